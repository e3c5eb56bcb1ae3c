"""Streams as handlers meet them: batches to iterate over, and what an attempt may say about its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from flowkit.worker.stream_flow import StreamFlow
    from flowkit.worker.stream_reader import Row

Fetch = Callable[[list[Any]], Awaitable[Any]]


class Stream:
    """The batches of one or several nodes, in the order in which each of them made them: `async for batch in rows`, or
    `for batch in rows` in a plain function.

    `source`, `uid` and `index` (from 0, per source) are those of the batch that was given last. Asking for the next one
    says that this one is done with.
    """

    def __init__(self, flow: StreamFlow, sources: Iterable[str], fetch: Fetch) -> None:
        self.source = ""
        self.uid = ""
        self.index = -1
        self._flow = flow
        self._sources = list(sources)
        self._fetch = fetch
        self._turn = 0
        self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        row = await self.next_row()
        if row is None:
            raise StopAsyncIteration
        return row.value

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        if in_loop(self._loop):  # nobody could bring the next batch while this one waits for it
            raise TypeError("an async handler reads a stream by `async for`; `for` is for plain functions")
        row = asyncio.run_coroutine_threadsafe(self.next_row(), self._loop).result()
        if row is None:
            raise StopIteration
        return row.value

    async def next_row(self) -> Row | None:
        """The next batch with all that is known of it; None at the end."""
        row = await self._flow.next(self._sources, self._turn)
        if row is None:
            return None
        self._turn = (self._turn + 1) % len(self._sources)
        self.source, self.uid, self.index = row.source, row.uid, row.index - 1
        if row.artifact is not None:
            row.value, row.artifact = await self._fetch(row.artifact), None
        return row


class ListStream:
    """A list for a handler that iterates over a stream, in either way. It has no `source`."""

    def __init__(self, items: Iterable[Any]) -> None:
        self.source = ""
        self.uid = ""
        self.index = -1
        self._items = iter(items)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self)
        except StopIteration:
            raise StopAsyncIteration from None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        item = next(self._items)
        self.index += 1
        self.uid = str(self.index)
        return item


def in_loop(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this is called by what the loop runs, and not in a thread beside it."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def as_stream(value: Any) -> Any:
    """What a parameter that is iterated over gets. Raises `ValueError` for what is neither a stream nor a list."""
    if isinstance(value, Stream):
        return value
    if isinstance(value, list):
        return ListStream(value)
    raise ValueError('expected a stream, as {"$stream": "node"} gives it, or a list')


class StreamContext:
    """`ctx.stream`: what an attempt may ask and say about its own stream. Without one it does nothing."""

    def __init__(self, flow: StreamFlow | None) -> None:
        self._flow = flow

    @property
    def resume_from(self) -> int:
        """How many batches are there already. Whoever asks goes on from there: nothing that it makes is passed over."""
        return 0 if self._flow is None else self._flow.resume()

    @property
    def state(self) -> Any:
        """What `save` kept last, of whichever attempt; None if nothing."""
        return None if self._flow is None else self._flow.state

    async def save(self, state: Any) -> None:
        """Keep a JSON value of at most 256 KB that stands for all batches that were read and made until now: an attempt
        that comes after goes on behind them, with this `state`."""
        if self._flow is not None:
            await self._flow.save(state)
