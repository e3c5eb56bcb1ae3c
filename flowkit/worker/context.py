"""What a handler may know of its attempt, and do in its name."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import os
import shutil
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from flowkit.clock import Clock
from flowkit.errors import Cancelled
from flowkit.ports import Store
from flowkit.telemetry import Telemetry
from flowkit.wire.codec import loads
from flowkit.worker.artifacts import Artifacts
from flowkit.worker.attempt import Attempt
from flowkit.worker.covering import covering
from flowkit.worker.inputs import RunSync
from flowkit.worker.log_pipe import LogPipe
from flowkit.worker.logger import AttemptLogger
from flowkit.worker.orphans import Undertaker
from flowkit.worker.outcome import clean
from flowkit.worker.processes import Exit, Groups
from flowkit.worker.stream import StreamContext
from flowkit.worker.stream_hub import StreamHub

T = TypeVar("T")
CLEANUP_SEC = 10.0
LONGEST_PROGRESS = 200


@dataclass(frozen=True, slots=True)
class Kit:
    """What the attempts of one worker share."""

    worker_id: str
    store: Store
    clock: Clock
    run_sync: RunSync
    telemetry: Telemetry
    undertaker: Undertaker
    hub: StreamHub
    logs: LogPipe


class Started(Protocol):
    """A process that somebody started: of `subprocess` or of `asyncio`."""

    pid: int
    returncode: int | None


class _OneTurn:
    """Awaiting it lets the loop have a turn, so that an order to stop gets through; not awaiting it is fine too."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Context:
    """Handed to a handler that asks for it: a parameter named `ctx`, or annotated `flowkit.Context`.

    `stream` is for what a handler that yields or reads streams has to say. `params` are the task's; `kv` is the
    attempt's own scratch pad; `deadline` (epoch seconds) is when the attempt runs out of time, or None;
    `cancel_flag` is an event that is set once the attempt is to stop.
    """

    def __init__(self, attempt: Attempt, kit: Kit, params: Any) -> None:
        job = attempt.job
        self.task_id = job.task_id
        self.node_id = job.node
        self.tenant = job.tenant
        self.role = job.role
        self.attempt = job.attempt
        self.attempt_epoch = job.attempt
        self.idempotency_key = job.idempotency_key
        self.worker_id = kit.worker_id
        self.clock = kit.clock
        self._params: Any = {} if params is None else params
        self.kv: dict[str, Any] = {}
        self.cancel_flag = asyncio.Event()
        self.last_progress: tuple[float | None, float | None, str | None] | None = None
        self.stream = StreamContext(attempt.flow)
        self.artifacts = Artifacts(kit.store, job.task_id, job.node, covering(attempt, kit.run_sync))
        self._attempt = attempt
        self._kit = kit
        self._loop = asyncio.get_running_loop()
        self._cleanups: list[Callable[[], object]] = []
        self._processes: list[Started] = []
        self._paths: list[Path] = []
        if attempt.order is not None:
            self.cancel_flag.set()

    @property
    def traceparent(self) -> str:
        """The span that the attempt runs in (W3C Trace Context), to be passed on to whatever it calls; empty where
        nobody traces. Libraries with OpenTelemetry pass it on by themselves."""
        propagation = self._kit.telemetry.propagation
        return self._attempt.job.traceparent if propagation is None else propagation.of_run(self._attempt.job)

    @property
    def log(self) -> AttemptLogger:
        """A logger whose lines are kept with the task, the node and the attempt; keywords become their fields."""
        return AttemptLogger(self._attempt.log_of(self._kit.logs))

    # ------------------------------------------------------------------------------------------ time and cancellation

    @property
    def deadline(self) -> float | None:
        """When the attempt runs out of time (epoch seconds), or None."""
        left = self._left()
        return None if left is None else self.clock.wall() + left

    def remaining_ms(self) -> float | None:
        """Milliseconds until the attempt runs out of time, or None if nothing limits it."""
        left = self._left()
        return None if left is None else max(0.0, left * 1000)

    @property
    def cancel_reason(self) -> str | None:
        """Why the attempt is to stop, or None while it is not."""
        order = self._attempt.order
        return None if order is None else order.why

    @property
    def cancel_deadline_ts_ms(self) -> int | None:
        """When (epoch milliseconds) nobody waits for a stopping attempt any more."""
        at = self.deadline if self._attempt.order is not None else None
        return None if at is None else int(at * 1000)

    @property
    def params(self) -> dict[str, Any]:
        """The task's params."""
        if isinstance(self._params, bytes):  # large ones are decoded for those who look at them
            self._params = loads(self._params)
        params: dict[str, Any] = self._params
        return params

    def cancelled(self) -> bool:
        """Whether the attempt is to stop: cancelled, out of time, or taken away from this worker."""
        return self._attempt.order is not None or self._attempt.lost

    def raise_if_cancelled(self) -> Awaitable[None]:
        """Raise `Cancelled` if the attempt is to stop. To be awaited in an async handler, called in a plain one."""
        if self.cancelled():
            raise Cancelled(self.cancel_reason or "the attempt is no longer this worker's")
        return _OneTurn()

    async def cancellable(self, work: Awaitable[T]) -> T:
        """Await something, but no longer than until the attempt is to stop; then raise `Cancelled`."""
        doing = asyncio.ensure_future(work)
        flag = asyncio.ensure_future(self.cancel_flag.wait())
        try:
            await asyncio.wait({doing, flag}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                await self.raise_if_cancelled()
            return await doing
        finally:
            flag.cancel()
            doing.cancel()

    def progress(self, done: float | None = None, total: float | None = None, message: str | None = None) -> None:
        """Say how far it is; the worker's next heartbeat tells. With `heartbeat_sec`, an attempt must say so that
        often."""
        self.last_progress = (done, total, message)
        numbers, text, cover = (_number(done), _number(total)), str(message or ""), self._attempt.cover
        if cover is not None:
            numbers, text = (cover.number(numbers[0]), cover.number(numbers[1])), cover.text(text)
        self._attempt.progress = (*numbers, clean(text, LONGEST_PROGRESS))
        self._attempt.progress_at = self.clock.mono()

    def from_thread(self, work: Coroutine[Any, Any, T]) -> T:
        """From a plain handler: run a coroutine, such as `ctx.artifacts.get(...)`, in the worker's loop and wait for
        it."""
        with contextlib.suppress(RuntimeError):
            if asyncio.get_running_loop() is self._loop:
                work.close()
                raise TypeError("from_thread is for plain handlers; await the coroutine in an async one")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _left(self) -> float | None:
        if self._attempt.stop_by is None:
            return None
        return self._attempt.stop_by - self.clock.mono()

    # ------------------------------------------------------------------------------------------ cleaning up

    async def run_subprocess(self, *command: str | os.PathLike[str], grace_ms: float = 5000, **options: Any) -> Exit:
        """Run a command in its own process group and wait. The answer is the exit status, with `stdout` and `stderr`.
        Where the attempt is to stop, the group gets SIGTERM, and SIGKILL after `grace_ms`."""
        return await self._groups().run(*command, grace_sec=grace_ms / 1000, **options)

    def register_subprocess(self, process: Started) -> None:
        """Have a process, with the group that it leads, end with the attempt."""
        self._processes.append(process)
        self._groups().add(process.pid)

    def register_temp_path(self, path: str | os.PathLike[str]) -> None:
        """Have a file or a folder removed after the attempt."""
        self._paths.append(Path(path))

    def on_cleanup(self, callback: Callable[[], object]) -> None:
        """Have a function, plain or async, called after the attempt, the last one first."""
        self._cleanups.append(callback)

    async def close(self) -> None:
        """Clean up behind the handler, however it ended: callbacks, then processes, then paths."""
        try:
            if self._cleanups:
                async with asyncio.timeout(CLEANUP_SEC):
                    while self._cleanups:
                        await self._call(self._cleanups.pop())
        except TimeoutError:
            self._kit.telemetry.count("cleanup_timeouts")
        finally:
            self._end_processes()
            if self._paths:
                paths, self._paths = self._paths, []
                await self._kit.run_sync(lambda: _remove(paths))

    async def _call(self, callback: Callable[[], object]) -> None:
        try:
            result = callback()
            if inspect.isawaitable(result):
                await result
        except Exception as error:  # one callback that fails must not keep the others from cleaning up
            self._kit.telemetry.count("cleanup_failures")
            self.log.warning("a cleanup callback failed", exc_info=error)

    def _end_processes(self) -> None:
        groups = self._attempt.groups
        if groups is None:
            return
        for process in self._processes:
            if process.returncode is not None:
                groups.remove(process.pid)
        groups.kill()
        groups.forget()
        self._processes.clear()

    def _groups(self) -> Groups:
        if self._attempt.groups is None:
            self._attempt.groups = Groups(self._kit.undertaker)
        return self._attempt.groups


RunContext = Context  # as older handlers call it


def _number(value: object) -> float | None:
    """A number that JSON can say; for anything else None: progress is a courtesy, and fails no attempt."""
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        number = float(value)  # type: ignore[arg-type]
        if math.isfinite(number):
            return number
    return None


def _remove(paths: list[Path]) -> None:
    for path in reversed(paths):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
