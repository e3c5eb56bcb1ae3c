"""Keeps what the runtimes with a first process of our own need: groups, places, and who is running."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable

from flowkit.sandbox.cgroups import Cgroups, Group
from flowkit.sandbox.contained import Contained, Served, send_order
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.hierarchies import Controller, find
from flowkit.sandbox.inside.order import Order
from flowkit.sandbox.runtime import Program
from flowkit.sandbox.spots import Spot, ask
from flowkit.sandbox.users import some_uid


class Keeper:
    """`cgroups`: whether to use those control groups that can be used."""

    def __init__(self, *, cgroups: bool) -> None:
        self._use_cgroups = cgroups
        self._cgroups = Cgroups(())
        self._open = False
        self._running: set[Contained] = set()

    def open(self) -> None:
        """Find and clear what is needed, once. Raises `CannotStart`."""
        if self._open:
            return
        if self._use_cgroups:
            self._cgroups = Cgroups(one for one in find() if isinstance(one, Controller))
        try:
            self._cgroups.open()
        except OSError as error:
            raise CannotStart("E_SANDBOX_CGROUP", f"no control groups can be made: {error}", "flowkit doctor") from None
        self._open = True

    @property
    def counted(self) -> frozenset[str]:
        """The controllers that bound programs; limits of the system do for the others."""
        return frozenset(self._cgroups.controllers)

    async def end_all(self) -> None:
        """End all programs."""
        await asyncio.gather(*(running.kill() for running in self._running))

    def give_back(self) -> None:
        """What is kept for the next programs, as none will come for a while."""
        self._cgroups.give_back()

    def close(self) -> None:
        """Nobody may be in any place any more."""
        if self._open:
            self._cgroups.close()
            self._open = False

    async def ask(
        self, orders: socket.socket, *, root: bool = True, warm: bool = False, uid: int | None = None
    ) -> Spot:
        """Ask for a place for some program. `warm`: of a zygote, in a room that may be another program's afterwards.
        Raises `CannotStart`, and `OSError` where nobody takes orders."""
        group = self._group(again=warm)
        try:
            privileged = os.geteuid() == 0
            if uid is None:
                uid = some_uid() if privileged else 0
            return ask(orders, group, uid=uid, root=root, keeper=some_uid() if warm and privileged else 0)
        except OSError:
            if group is not None:
                await group.remove()
            raise

    async def fill(
        self, spot: Spot, program: Program, order: Order, filter_code: bytes, *,
        after: Callable[[], Awaitable[None]], serve: Served | None = None,
    ) -> Contained:  # fmt: skip
        """Have this program in that place. Raises `CannotStart`, and `OSError` where nobody is there any more; then
        nothing is left, and `after` has been called."""

        async def gone() -> None:
            self._running.discard(running)
            await after()

        try:
            _bound(spot.group, program)
            ends = send_order(spot.line, order, filter_code, program)
        except BaseException:
            spot.close()
            await after()
            await spot.remove()
            raise
        running = Contained(spot, ends, limits=program.limits, after=gone, serve=serve)
        await running.begin()
        self._running.add(running)
        return running

    def _group(self, *, again: bool) -> Group | None:
        if not self._cgroups.controllers:
            return None
        try:
            return self._cgroups.create(again=again)
        except OSError as error:
            raise CannotStart("E_SANDBOX_CGROUP", f"no control group can be made: {error}", "flowkit doctor") from None


def _bound(group: Group | None, program: Program) -> None:
    try:
        if group is not None:
            group.bound(program.limits)
    except OSError as error:
        raise CannotStart("E_LIMITS", f"these limits cannot be set: {error}", "flowkit doctor") from None
