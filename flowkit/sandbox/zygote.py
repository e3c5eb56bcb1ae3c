"""Processes that are ready before a program comes: one per environment, begun when it is first asked for.

Nothing of a program is ever in one, nor any secret: it is asked for a fork, and everything else comes to the fork. One
that has died is begun anew; after many forks, or when there are too many others, one takes no more orders and ends with
the last of its programs.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from flowkit.sandbox.box import Box
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.inside.main import ZYGOTE
from flowkit.sandbox.inside.order import LONGEST_MESSAGE
from flowkit.sandbox.launch import Launch
from flowkit.sandbox.runtime import Program
from flowkit.sandbox.spots import Spot

READY_SEC: Final = 30.0
MOST_FORKS: Final = 10_000
MOST_ZYGOTES: Final = 16
SPARES: Final = 4
"""Places that are kept ready in each, so that joining a group, which the kernel takes its time for, is done before."""
UNUSED_SEC: Final = 300.0
"""One that nobody has asked for anything for so long is given back, with its places."""

_DEATH_SEC: Final = 1.0

Ask = Callable[[socket.socket], Awaitable[Spot]]


@dataclass(frozen=True, slots=True)
class Environment:
    """What makes two programs able to begin in the same zygote."""

    name: str
    interpreter: str
    readable: tuple[str, ...]
    prepared: str
    network: bool

    @classmethod
    def of(cls, program: Program) -> Environment:
        readable = tuple(sorted(set(program.readable)))
        return cls(program.warm, program.argv[0], readable, program.prepared, bool(program.network))

    def arguments(self) -> list[str]:
        """What its zygote is told of it."""
        return [self.prepared, str(int(self.network))]


class Zygote:
    """One such process. It ends when it was retired and none of its programs is left."""

    def __init__(self, ask: Ask, spares: int) -> None:
        self._ask = ask
        self._most_spares = spares
        self._spares: deque[Spot] = deque()
        self._filling: asyncio.Task[None] | None = None
        self._launch = Launch()
        self._orders: socket.socket | None = None
        self._retired = False
        self.used = time.monotonic()
        self.forks = 0
        self.programs = 0

    @property
    def alive(self) -> bool:
        return self._launch.alive

    async def has_died(self) -> bool:
        """Asked when something of it has ended: whether it was all of it, which may take a moment to be seen."""
        return await self._launch.has_ended(_DEATH_SEC)

    async def begin(self, bwrap: str, environment: Environment) -> None:
        """Until it is ready. Raises `CannotStart`."""
        box = Box(
            bwrap, environment.readable, role=ZYGOTE, interpreter=environment.interpreter,
            arguments=environment.arguments(),
        )  # fmt: skip
        try:
            with box.accounts() as accounts:
                self._orders = self._launch.begin(lambda number: box.argv(number, accounts), accounts)
                await self._until_ready()
        except BaseException as error:
            await asyncio.shield(self.close())
            raise self._launch.explain(error) if isinstance(error, CannotStart) else error from None

    async def take(self) -> Spot:
        """A place; `released` has to be called when it is empty again. Raises `OSError` where this one has died."""
        if self._orders is None:
            raise BrokenPipeError("this zygote has ended")
        self.used = time.monotonic()
        self.forks += 1
        self.programs += 1
        try:
            return self._spares.popleft() if self._spares else await self._ask(self._orders)
        except BaseException:
            self.programs -= 1
            raise

    def fill_up(self) -> None:
        """Have as many places ready as there should be, in the background: after a program has begun, not before."""
        if not self._retired and (self._filling is None or self._filling.done()):
            self._filling = asyncio.create_task(self._fill_up(), name="zygote/spares")

    async def _fill_up(self) -> None:
        with contextlib.suppress(OSError, CannotStart):  # whoever wants a place next is told
            while self._orders is not None and not self._retired and len(self._spares) < self._most_spares:
                self._spares.append(await self._ask(self._orders))

    async def released(self) -> None:
        self.programs -= 1
        if self._retired and not self.programs:
            await self.close()

    async def retire(self) -> None:
        self._retired = True
        await self._empty_spares()
        if not self.programs or not self.alive:
            await self.close()

    async def close(self) -> None:
        """End it, and with it all programs that it has begun."""
        self._retired = True
        if self._orders is not None:
            self._orders.close()
            self._orders = None
        await self._launch.gone()
        await self._empty_spares()

    async def _empty_spares(self) -> None:
        if self._filling is not None:
            await asyncio.wait([self._filling])
        while self._spares:
            await self._spares.popleft().remove()

    async def _until_ready(self) -> None:
        assert self._orders is not None
        self._orders.setblocking(False)
        try:
            async with asyncio.timeout(READY_SEC):
                said = await asyncio.get_running_loop().sock_recv(self._orders, LONGEST_MESSAGE)
        except TimeoutError:
            raise CannotStart("E_SANDBOX_ZYGOTE", f"the zygote was not ready after {READY_SEC:g} s") from None
        if not said:
            raise CannotStart("E_SANDBOX_ZYGOTE", "the zygote ended before it was ready", "flowkit doctor")


class Zygotes:
    """The zygotes of one runtime, by environment. `emptied` is called when all were given back."""

    def __init__(
        self, bwrap: Callable[[], str], ask: Ask, *, emptied: Callable[[], None],
        most_forks: int = MOST_FORKS, most: int = MOST_ZYGOTES, spares: int = SPARES,
    ) -> None:  # fmt: skip
        self._bwrap = bwrap
        self._ask = ask
        self._emptied = emptied
        self._spares = spares
        self._most_forks = most_forks
        self._most = most
        self._zygotes: dict[Environment, asyncio.Task[Zygote]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._giving_back: asyncio.Task[None] | None = None

    def __contains__(self, environment: Environment) -> bool:
        return environment in self._zygotes

    def have(self, environment: Environment) -> None:
        """Begin the one of this environment, if there is none. Nobody waits for it: who needs it next is told."""
        if environment not in self._zygotes:
            self._zygotes[environment] = self._begun(environment)

    async def get(self, environment: Environment) -> Zygote:
        """The one of this environment, begun if need be. Raises `CannotStart`."""
        known = self._zygotes.pop(environment, None)
        begun = known if known is not None and self._is_good(known) else None
        if begun is None:
            begun = self._begun(environment)
        self._zygotes[environment] = begun  # the last in order is the one that was asked for last
        if known is not None and known is not begun:
            await _retire(known)
        while len(self._zygotes) > self._most:
            await _retire(self._zygotes.pop(next(iter(self._zygotes))))
        return await asyncio.shield(begun)

    async def forget(self, environment: Environment, zygote: Zygote) -> None:
        """It has died: the next program begins another."""
        known = self._zygotes.get(environment)
        if known is not None and _is_done(known) and known.result() is zygote:
            del self._zygotes[environment]
        await zygote.close()

    async def give_back(self, unused_sec: float = UNUSED_SEC) -> None:
        """End those that have no programs, and were asked for nothing for so many seconds."""
        now = time.monotonic()
        for environment, begun in list(self._zygotes.items()):
            if not _is_done(begun) or begun.result().programs or now - begun.result().used < unused_sec:
                continue
            if self._zygotes.get(environment) is not begun:
                continue  # it was replaced while another one ended
            del self._zygotes[environment]
            await begun.result().retire()
        if not self._zygotes:
            self._emptied()

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._giving_back is not None:
            await asyncio.wait([self._giving_back])
        while self._zygotes:
            _, begun = self._zygotes.popitem()
            if not begun.done():
                await asyncio.wait([begun])
            if begun.exception() is None:
                await begun.result().close()

    def _begun(self, environment: Environment) -> asyncio.Task[Zygote]:
        if self._timer is None:
            self._look_later()
        return asyncio.create_task(self._begin(environment), name=f"zygote/{environment.name}")

    def _look_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(UNUSED_SEC / 4, self._look)

    def _look(self) -> None:
        self._giving_back = asyncio.create_task(self.give_back(), name="zygotes/give back")
        self._look_later()

    async def _begin(self, environment: Environment) -> Zygote:
        zygote = Zygote(self._ask, self._spares)
        await zygote.begin(self._bwrap(), environment)
        return zygote

    def _is_good(self, begun: asyncio.Task[Zygote]) -> bool:
        return not begun.done() or (
            _is_done(begun) and begun.result().alive and begun.result().forks < self._most_forks
        )


async def _retire(begun: asyncio.Task[Zygote]) -> None:
    await asyncio.wait([begun])
    if _is_done(begun):
        await begun.result().retire()


def _is_done(begun: asyncio.Task[Zygote]) -> bool:
    return begun.done() and begun.exception() is None
