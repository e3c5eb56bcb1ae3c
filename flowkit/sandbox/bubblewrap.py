"""The highest level: bubblewrap gives a program namespaces and a root, and a first process of our own gives the rest.

As root, bubblewrap makes the root without a user namespace, and the program becomes a user of no account and enters a
user namespace of its own: it is nobody on this machine, whatever it becomes inside. As an ordinary user, bubblewrap
makes a user namespace, and the program enters another one below it.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Iterable

from flowkit.sandbox import seccomp
from flowkit.sandbox.box import Box
from flowkit.sandbox.contained import Contained
from flowkit.sandbox.egress import Egress
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.inside.main import ONCE
from flowkit.sandbox.keeper import Keeper
from flowkit.sandbox.launch import Launch
from flowkit.sandbox.orders import check, order_for
from flowkit.sandbox.runtime import Level, Program, Running
from flowkit.sandbox.spots import Spot
from flowkit.sandbox.zygote import MOST_FORKS, SPARES, Environment, Zygote, Zygotes


class BubblewrapRuntime:
    """Programs at `Level.L3`.

    `bwrap`: where bubblewrap is, if it is not on the path. `cgroups`: whether to use those that can be used.
    `reachable`: networks such as `10.1.0.0/16` that programs may reach though they are private, if their own list names
    a host there. `most_forks`: how many programs begin in one zygote before it is renewed; `spares`: how many places
    each keeps ready. `cold_first`: the first program of an environment does not wait for its zygote, which is begun
    behind it.
    """

    name = "bubblewrap"
    level = Level.L3

    def __init__(
        self, *, bwrap: str = "", cgroups: bool = True, reachable: Iterable[str] = (), most_forks: int = MOST_FORKS,
        spares: int = SPARES, cold_first: bool = False,
    ) -> None:  # fmt: skip
        self._cold_first = cold_first
        self._beginning: set[Environment] = set()
        self._keeper = Keeper(cgroups=cgroups)
        self._bwrap = bwrap
        self._reachable = tuple(reachable)
        self._zygotes = Zygotes(
            lambda: self._bwrap,
            lambda orders: self._keeper.ask(orders, warm=True),
            emptied=self._keeper.give_back,
            most_forks=most_forks,
            spares=spares,
        )

    @property
    def counted(self) -> frozenset[str]:
        """The controllers of control groups that bound programs; limits of the system do for the others."""
        return self._keeper.counted

    async def start(self, program: Program) -> Running:
        self._open()
        check(program)
        egress = Egress(program.network, reachable=self._reachable) if program.network else None
        return await (self._start_warm(program, egress) if program.warm else self._start_cold(program, egress))

    async def cool(self, unused_sec: float = 0.0) -> None:
        """End the zygotes that nobody has used for so many seconds; else that happens after some minutes."""
        await self._zygotes.give_back(unused_sec)

    async def close(self) -> None:
        await self._keeper.end_all()
        await self._zygotes.close()
        self._keeper.close()

    def _open(self) -> None:
        self._bwrap = self._bwrap or shutil.which("bwrap") or ""
        if not self._bwrap:
            raise CannotStart("E_SANDBOX_BWRAP", "bubblewrap is not installed", "apt-get install bubblewrap")
        self._keeper.open()

    async def _start_cold(self, program: Program, egress: Egress | None) -> Contained:
        launch = Launch()
        box = Box(self._bwrap, program.readable, role=ONCE)
        try:
            with (
                box.accounts() as accounts,
                launch.begin(lambda number: box.argv(number, accounts), accounts) as orders,
            ):
                spot = await self._keeper.ask(orders)
            return await self._fill(spot, program, launch.gone, egress)
        except (CannotStart, OSError) as error:
            await launch.gone()
            raise launch.explain(_as_cannot_start(error)) from None

    async def _start_warm(self, program: Program, egress: Egress | None) -> Contained:
        environment = Environment.of(program)
        if self._cold_first and environment not in self._zygotes and environment not in self._beginning:
            return await self._start_first(environment, program, egress)
        zygote = await self._zygotes.get(environment)
        try:
            return await self._fork(zygote, program, egress)
        except (CannotStart, OSError) as error:
            if getattr(error, "code", "E_SANDBOX_START") != "E_SANDBOX_START" or not await zygote.has_died():
                raise _as_cannot_start(error) from None
        await self._zygotes.forget(environment, zygote)
        try:
            return await self._fork(await self._zygotes.get(environment), program, egress)
        except OSError as error:
            raise _as_cannot_start(error) from None

    async def _start_first(self, environment: Environment, program: Program, egress: Egress | None) -> Contained:
        self._beginning.add(environment)
        try:
            running = await self._start_cold(program, egress)
            self._zygotes.have(environment)
        finally:
            self._beginning.discard(environment)
        return running

    async def _fork(self, zygote: Zygote, program: Program, egress: Egress | None) -> Contained:
        running = await self._fill(await zygote.take(), program, zygote.released, egress, in_zygote=True)
        zygote.fill_up()
        return running

    async def _fill(
        self, spot: Spot, program: Program, after: Callable[[], Awaitable[None]], egress: Egress | None, *,
        in_zygote: bool = False,
    ) -> Contained:  # fmt: skip
        async def gone() -> None:
            if egress is not None:
                await egress.close()
            await after()

        order = order_for(program, counted=self._keeper.counted)
        order.script = in_zygote
        return await self._keeper.fill(
            spot, program, order, seccomp.build(internet=bool(program.network)), after=gone,
            serve=egress.serve if egress is not None else None,
        )  # fmt: skip


def _as_cannot_start(error: CannotStart | OSError) -> CannotStart:
    if isinstance(error, CannotStart):
        return error
    return CannotStart("E_SANDBOX_START", f"the sandbox ended before the program began: {error}", "flowkit doctor")
