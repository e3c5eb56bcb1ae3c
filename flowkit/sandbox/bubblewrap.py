"""The highest level: bubblewrap gives a program namespaces and a root, and a first process of our own gives the rest.

As root, bubblewrap makes the root without a user namespace, and the program becomes a user of no account and enters a
user namespace of its own: it is nobody on this machine, whatever it becomes inside. As an ordinary user, bubblewrap
makes a user namespace, and the program enters another one below it.
"""

from __future__ import annotations

import os
import shutil

from flowkit.sandbox import seccomp
from flowkit.sandbox.box import Box
from flowkit.sandbox.cgroups import Cgroups, Group
from flowkit.sandbox.contained import Contained, make_ends, send_order
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.hierarchies import Controller, find
from flowkit.sandbox.inside.main import ONCE
from flowkit.sandbox.orders import check, order_for, some_uid
from flowkit.sandbox.runtime import Level, Program, Running


class BubblewrapRuntime:
    """Programs at `Level.L3`. `bwrap`: where bubblewrap is, if it is not on the path; `cgroups`: whether to use those
    that can be used."""

    name = "bubblewrap"
    level = Level.L3

    def __init__(self, *, bwrap: str = "", cgroups: bool = True) -> None:
        self._bwrap = bwrap
        self._cgroups = Cgroups(one for one in find() if isinstance(one, Controller)) if cgroups else Cgroups(())
        self._open = False
        self._running: set[Contained] = set()

    async def start(self, program: Program) -> Running:
        self._get_ready()
        check(program)
        group = self._group(program)
        box = Box(self._bwrap, program.readable, role=ONCE)

        async def after() -> None:
            self._running.discard(running)
            await box.gone()

        order = order_for(program, uid=self._uid(), counted=frozenset(self._cgroups.controllers))
        ends = make_ends(order, seccomp.build(internet=bool(program.network)), program, group.doors() if group else [])
        running = Contained(ends, limits=program.limits, group=group, after=after)
        self._running.add(running)
        try:
            with box.begin() as orders:
                send_order(orders, ends)
                await running.begin()
        except BaseException as error:
            raise
        return running

    async def close(self) -> None:
        for running in list(self._running):
            await running.kill()
        if self._open:
            self._cgroups.close()
            self._open = False

    def _get_ready(self) -> None:
        """Raises `CannotStart`."""
        if self._open:
            return
        self._bwrap = self._bwrap or shutil.which("bwrap") or ""
        if not self._bwrap:
            raise CannotStart("E_SANDBOX_BWRAP", "bubblewrap is not installed", "apt-get install bubblewrap")
        try:
            self._cgroups.open()
        except OSError as error:
            raise CannotStart("E_SANDBOX_CGROUP", f"no control groups can be made: {error}", "flowkit doctor") from None
        self._open = True

    def _group(self, program: Program) -> Group | None:
        if not self._cgroups.controllers:
            return None
        try:
            return self._cgroups.create(program.limits)
        except OSError as error:
            raise CannotStart("E_SANDBOX_CGROUP", f"no control group can be made: {error}", "flowkit doctor") from None

    def _uid(self) -> int:
        return some_uid() if os.geteuid() == 0 else 0
