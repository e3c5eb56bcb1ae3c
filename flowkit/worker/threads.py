"""Runs plain functions in threads. Daemon threads: a function that never returns must not keep the process alive."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class _Call:
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    context: Context
    function: Callable[[], Any]


class Threads:
    """At most `most` threads, made when they are needed and kept until `stop`."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._count = 0

    async def run(self, function: Callable[[], Any]) -> Any:
        """Run the function with this task's context variables. Cancelled while it runs, it goes on and nobody hears
        of it."""
        loop = asyncio.get_running_loop()
        call = _Call(loop, loop.create_future(), copy_context(), function)
        self._calls.put(call)
        if not self._idle.acquire(blocking=False) and self._count < self._most:
            self._count += 1
            name = f"{self._name}-{self._count}"
            threading.Thread(target=_work, args=(self._calls, self._idle), name=name, daemon=True).start()
        return await call.future

    def stop(self) -> None:
        """Let the threads end as soon as they are idle."""
        for _ in range(self._count):
            self._calls.put(None)
        self._calls, self._idle, self._count = queue.SimpleQueue(), threading.Semaphore(0), 0


def _work(calls: queue.SimpleQueue[_Call | None], idle: threading.Semaphore) -> None:
    while (call := calls.get()) is not None:
        _perform(call)
        del call  # or it would keep its result alive until the next one comes
        idle.release()


def _perform(call: _Call) -> None:
    if call.future.cancelled():
        return
    result: Any = None
    error: BaseException | None = None
    try:
        result = call.context.run(call.function)
    except StopIteration as stop:  # no future can carry it
        error = RuntimeError("the handler raised StopIteration")
        error.__cause__ = stop
    except BaseException as raised:  # SystemExit too: it ends the function, not the worker
        error = raised
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        call.loop.call_soon_threadsafe(_settle, call.future, result, error)


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
