"""Where a worker's heart beats: in the worker's own loop, or in a thread with a loop, a bus and a store of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from flowkit.ports import Bus
from flowkit.wire.topics import Topics
from flowkit.worker.attempt import Attempt
from flowkit.worker.heart import Heart, Renewer

READY_SEC = 30.0
STOP_SEC = 5.0

MakeHeart = Callable[[Bus, Renewer, Callable[[Attempt], None]], Heart]


class Pulse(Protocol):
    async def start(self) -> None: ...

    def beat_now(self, *, draining: bool) -> None:
        """Beat once more, without waiting for the next turn."""

    async def stop(self) -> None: ...


class LoopPulse:
    """The heart in this loop."""

    def __init__(self, make: MakeHeart, bus: Bus, store: Renewer, on_lost: Callable[[Attempt], None]) -> None:
        self.heart = make(bus, store, on_lost)

    async def start(self) -> None:
        self.heart.start()

    def beat_now(self, *, draining: bool) -> None:
        self.heart.draining = draining
        self.heart.beat_now()

    async def stop(self) -> None:
        await self.heart.stop()


class ThreadPulse:
    """The heart in a daemon thread. `on_lost` is called in the loop that started it."""

    def __init__(self, make: MakeHeart, make_bus: Callable[[], Bus], make_store: Callable[[], Renewer],
                 topics: Topics, on_lost: Callable[[Attempt], None], name: str) -> None:  # fmt: skip
        self._make = make
        self._make_bus = make_bus
        self._make_store = make_store
        self._topics = topics
        self._on_lost = on_lost
        self._name = name
        self._heart: Heart | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ended: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Raises what the connections raise."""
        home = asyncio.get_running_loop()
        ready: asyncio.Future[None] = home.create_future()
        self._ended = home.create_future()
        threading.Thread(target=self._run, args=(home, ready, self._ended), name=self._name, daemon=True).start()
        async with asyncio.timeout(READY_SEC):
            await ready

    def beat_now(self, *, draining: bool) -> None:
        def beat() -> None:
            if self._heart is not None:
                self._heart.draining = draining
                self._heart.beat_now()

        self._in_thread(beat)

    async def stop(self) -> None:
        def stop() -> None:
            if self._stop is not None:
                self._stop.set()

        self._in_thread(stop)
        if self._ended is not None:
            await asyncio.wait({self._ended}, timeout=STOP_SEC)

    def _in_thread(self, action: Callable[[], None]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # its loop is closed
                self._loop.call_soon_threadsafe(action)

    def _run(self, home: asyncio.AbstractEventLoop, ready: asyncio.Future[None], ended: asyncio.Future[None]) -> None:
        error: BaseException | None = None
        try:
            asyncio.run(self._live(home, ready))
        except Exception as raised:  # the thread's last line: its end is told in the loop that started it
            error = raised
        with suppress(RuntimeError):
            home.call_soon_threadsafe(_over, home, ready, ended, error)

    async def _live(self, home: asyncio.AbstractEventLoop, ready: asyncio.Future[None]) -> None:
        def lost(attempt: Attempt) -> None:
            with suppress(RuntimeError):
                home.call_soon_threadsafe(self._on_lost, attempt)

        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        bus, store = self._make_bus(), self._make_store()
        try:
            await bus.start()
            await store.start()
            await bus.ensure_topics(self._topics.specs())
            self._heart = self._make(bus, store, lost)
            self._heart.start()
            home.call_soon_threadsafe(_settle, ready, None)
            await self._stop.wait()
            await self._heart.stop()
        finally:
            await bus.stop()
            await store.stop()


def _over(home: asyncio.AbstractEventLoop, ready: asyncio.Future[None], ended: asyncio.Future[None],
          error: BaseException | None) -> None:  # fmt: skip
    if error is not None and ready.done():  # nobody waits for it any more
        home.call_exception_handler({"message": "the heart's thread failed", "exception": error})
    _settle(ready, error or RuntimeError("the heart stopped before it began"))
    _settle(ended, None)


def _settle(future: asyncio.Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
