"""What the runtimes with a first process of our own have in common: groups, descriptors, and who is running."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from flowkit.sandbox.cgroups import Cgroups, Group
from flowkit.sandbox.contained import Contained, Ends, Served, make_ends
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.hierarchies import Controller, find
from flowkit.sandbox.inside.order import Order
from flowkit.sandbox.runtime import Program


class Base:
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

    async def close(self) -> None:
        """End all programs."""
        await asyncio.gather(*(running.kill() for running in self._running))
        if self._open:
            self._cgroups.close()
            self._open = False

    async def run(
        self, program: Program, order: Order, filter_code: bytes, *, hand_over: Callable[[Ends], None],
        after: Callable[[], Awaitable[None]], serve: Served | None = None,
    ) -> Contained:  # fmt: skip
        """Raises `CannotStart`, and what `hand_over` does; then nothing is left, and `after` has been called."""
        try:
            group = self._group(program)
        except CannotStart:
            await after()
            raise
        ends = make_ends(order, filter_code, program, group.doors() if group is not None else [])

        async def gone() -> None:
            self._running.discard(running)
            await after()

        running = Contained(ends, limits=program.limits, group=group, after=gone, serve=serve)
        await running.begin(hand_over)
        self._running.add(running)
        return running

    def _group(self, program: Program) -> Group | None:
        if not self._cgroups.controllers:
            return None
        try:
            return self._cgroups.create(program.limits)
        except OSError as error:
            raise CannotStart("E_SANDBOX_CGROUP", f"no control group can be made: {error}", "flowkit doctor") from None
