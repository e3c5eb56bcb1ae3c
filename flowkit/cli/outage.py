"""Says when Kafka or MongoDB do not answer a running process any more, and when they do again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from flowkit.backend import Backend
from flowkit.cli.console import clean, say
from flowkit.cli.times import show_seconds
from flowkit.errors import FlowKitError

LOOK_SEC = 10.0
AWAY_LOOK_SEC = 2.0
ANSWER_SEC = 8.0


class Outages:
    """The process itself needs none of this: it goes on trying. It is for whoever reads its log."""

    def __init__(self, backend: Backend, kafka: str) -> None:
        self._asks: dict[str, Callable[[], Awaitable[Any]]] = {
            f"Kafka at {kafka}": backend.bus.describe,
            "MongoDB": backend.store.describe,
        }
        self._since: dict[str, float] = {}

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(AWAY_LOOK_SEC if self._since else LOOK_SEC)
            for name, ask in self._asks.items():
                await self._look(name, ask)

    async def _look(self, name: str, ask: Callable[[], Awaitable[Any]]) -> None:
        try:
            async with asyncio.timeout(ANSWER_SEC):
                await ask()
        except (FlowKitError, OSError) as error:  # a TimeoutError is an OSError
            if name not in self._since:
                self._since[name] = time.monotonic()
                say(f"{name} does not answer; going on trying: {clean(error) or type(error).__name__}")
            return
        if name in self._since:
            say(f"{name} answers again, after {show_seconds(time.monotonic() - self._since.pop(name))}")
