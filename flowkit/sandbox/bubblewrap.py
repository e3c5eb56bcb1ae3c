"""The highest level: bubblewrap gives a program namespaces and a root, and a first process of our own gives the rest.

As root, bubblewrap makes the root without a user namespace, and the program becomes a user of no account and enters a
user namespace of its own: it is nobody on this machine, whatever it becomes inside. As an ordinary user, bubblewrap
makes a user namespace, and the program enters another one below it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable, Iterable

from flowkit.sandbox import seccomp
from flowkit.sandbox.base import Base
from flowkit.sandbox.box import Box
from flowkit.sandbox.contained import Contained, Ends, send_order
from flowkit.sandbox.egress import Egress
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.inside.main import ONCE
from flowkit.sandbox.launch import Launch
from flowkit.sandbox.orders import check, order_for, some_uid
from flowkit.sandbox.runtime import Level, Program, Running
from flowkit.sandbox.zygote import MOST_FORKS, Environment, Zygote, Zygotes


class BubblewrapRuntime(Base):
    """Programs at `Level.L3`.

    `bwrap`: where bubblewrap is, if it is not on the path. `cgroups`: whether to use those that can be used.
    `reachable`: networks such as `10.1.0.0/16` that programs may reach though they are private, if their own list names
    a host there. `most_forks`: how many programs begin in one zygote before it is renewed.
    """

    name = "bubblewrap"
    level = Level.L3

    def __init__(
        self, *, bwrap: str = "", cgroups: bool = True, reachable: Iterable[str] = (), most_forks: int = MOST_FORKS
    ) -> None:
        super().__init__(cgroups=cgroups)
        self._bwrap = bwrap
        self._reachable = tuple(reachable)
        self._zygotes = Zygotes(lambda: self._bwrap, most_forks=most_forks)

    async def start(self, program: Program) -> Running:
        self.open()
        check(program)
        egress = Egress(program.network, reachable=self._reachable) if program.network else None
        return await (self._start_warm(program, egress) if program.warm else self._start_cold(program, egress))

    async def close(self) -> None:
        await super().close()
        await self._zygotes.close()

    def open(self) -> None:
        self._bwrap = self._bwrap or shutil.which("bwrap") or ""
        if not self._bwrap:
            raise CannotStart("E_SANDBOX_BWRAP", "bubblewrap is not installed", "apt-get install bubblewrap")
        super().open()

    async def _start_cold(self, program: Program, egress: Egress | None) -> Contained:
        launch = Launch()
        box = Box(self._bwrap, program.readable, role=ONCE)

        def hand_over(ends: Ends) -> None:
            with (
                box.accounts() as accounts,
                launch.begin(lambda number: box.argv(number, accounts), accounts) as orders,
            ):
                send_order(orders, ends)

        async def after() -> None:
            if egress is not None:
                await egress.close()
            await launch.gone()

        try:
            return await self._run(program, hand_over, after, egress)
        except CannotStart as error:
            raise launch.explain(error) from None

    async def _start_warm(self, program: Program, egress: Egress | None) -> Contained:
        environment = Environment.of(program)
        zygote = await self._zygotes.get(environment)
        try:
            return await self._fork(zygote, program, egress)
        except (CannotStart, OSError):
            if zygote.alive:
                raise
        await self._zygotes.forget(environment, zygote)
        return await self._fork(await self._zygotes.get(environment), program, egress)

    async def _fork(self, zygote: Zygote, program: Program, egress: Egress | None) -> Contained:
        forked = False

        def hand_over(ends: Ends) -> None:
            nonlocal forked
            zygote.fork(ends)
            forked = True

        async def after() -> None:
            if egress is not None:
                await egress.close()
            if forked:
                await zygote.released()

        return await self._run(program, hand_over, after, egress)

    async def _run(
        self, program: Program, hand_over: Callable[[Ends], None], after: Callable[[], Awaitable[None]],
        egress: Egress | None,
    ) -> Contained:  # fmt: skip
        order = order_for(program, uid=some_uid() if os.geteuid() == 0 else 0, counted=self.counted)
        order.script = order.fresh = bool(program.warm)
        return await self.run(
            program, order, seccomp.build(internet=bool(program.network)), hand_over=hand_over, after=after,
            serve=egress.serve if egress is not None else None,
        )  # fmt: skip
