"""A connection that says nothing, or never ends what it says, is not kept: it would hold a place for ever."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SEC: Final = 15.0
MOST: Final = 1000
"""Connections of a service at a time; more are hung up."""


class Connection(H11Protocol):
    """HTTP as uvicorn speaks it. Between two requests, and before the first, there are at most `head_sec` to twice as
    many seconds for the next one's head to come."""

    head_sec = HEAD_SEC

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._seen: Any = None
        self._looking: asyncio.TimerHandle | None = None
        if len(self.connections) > MOST:
            transport.abort()
        else:
            self._look_again()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._looking is not None:
            self._looking.cancel()
        super().connection_lost(exc)

    def _look_again(self) -> None:
        self._looking = self.loop.call_later(self.head_sec, self._look)

    def _look(self) -> None:
        """The request is still the one of the last look, or none, and is answered: it waits for one that does not
        come."""
        cycle: Any = self.cycle  # None before the first request, whatever its type says
        busy = cycle is not None and not cycle.response_complete
        if not busy and self._seen is cycle:
            self.transport.abort()
            return
        self._seen = cycle
        self._look_again()
