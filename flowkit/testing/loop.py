"""An asyncio event loop where nothing waits: time jumps to the next timer, and processes can freeze and die.

Every callback belongs to the process whose `PROCESS` its context carries. Within one process callbacks run in
asyncio's order; which process goes next is drawn from the dice (without dice: first come, first served).
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import random
import sys
import weakref
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

# At one moment of virtual time: more callbacks than this, and something polls without waiting.
MOST_AT_ONCE = 100_000


class Stuck(Exception):
    """The simulated world came to a standstill, or went on for ever; the message says how."""


class Process:
    """One incarnation of a simulated process: what of it is ready to run, and whether it may."""

    __slots__ = ("__weakref__", "dead", "frozen", "listed", "name", "ready", "tasks")

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready: list[VirtualHandle] = []
        self.listed = False
        self.frozen = False
        self.dead = False
        self.tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"<Process {self.name}>"

    def context(self) -> Context:
        """A context in which everything belongs to this process."""
        context = copy_context()
        context.run(PROCESS.set, self)
        return context


PROCESS: ContextVar[Process] = ContextVar("PROCESS")


class VirtualHandle(asyncio.TimerHandle):
    """A callback of `VirtualLoop`; cancelled by forgetting what to call."""

    __slots__ = ("args", "at", "call", "owner", "run")

    def __init__(self, at: float, owner: Process, context: Context, call: Callable[..., Any] | None,
                 args: tuple[Any, ...]) -> None:  # fmt: skip
        # The base class's own fields stay unset: nothing reads them, and no path is hotter than this.
        self.at = at
        self.owner = owner
        self.run = context.run
        self.call = call
        self.args = args

    def cancel(self) -> None:
        self.call = None
        self.args = ()

    def cancelled(self) -> bool:
        return self.call is None

    def when(self) -> float:
        return self.at

    def __repr__(self) -> str:
        return f"<{self.owner.name} at {self.at:.3f}: {self.call!r}>"


class VirtualTask(asyncio.Task[T]):
    """A task whose hash does not depend on its address: sets of tasks have the same order in every run."""

    def __init__(self, number: int, coro: Any, loop: asyncio.AbstractEventLoop, name: str | None,
                 context: Context | None) -> None:  # fmt: skip
        self.number = number  # first: asyncio keeps a set of its own
        super().__init__(coro, loop=loop, name=name, context=context)

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.AbstractEventLoop):
    """`dice` choose among processes; `limit` bounds the virtual time, `most` the number of callbacks."""

    def __init__(self, *, dice: random.Random | None = None, limit: float = 1e6, most: int = 20_000_000) -> None:
        self.root = Process("root")
        self.steps = 0
        self.faults: list[tuple[str, BaseException | None, str]] = []
        self._dice = dice
        self._limit = limit
        self._most = most
        self._now = 0.0
        self._timers: list[tuple[float, int, VirtualHandle]] = []
        self._numbers = itertools.count()
        self._active: list[Process] = []
        self._graveyard: list[asyncio.Task[Any]] = []
        self._processes: weakref.WeakSet[Process] = weakref.WeakSet([self.root])
        self._running = False
        self._closed = False
        self._at_once = 0

    # ---- what asyncio calls

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._running

    def is_closed(self) -> bool:
        return self._closed

    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> VirtualHandle:
        if context is None:
            context = copy_context()
        owner = context.get(PROCESS, self.root)
        handle = VirtualHandle(self._now, owner, context, callback, args)
        if not owner.dead:
            owner.ready.append(handle)
            if not owner.listed and not owner.frozen:
                owner.listed = True
                self._active.append(owner)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> VirtualHandle:
        return self.call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts,
        context: Context | None = None,
    ) -> VirtualHandle:  # fmt: skip
        if context is None:
            context = copy_context()
        owner = context.get(PROCESS, self.root)
        handle = VirtualHandle(when, owner, context, callback, args)
        if not owner.dead:
            heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts,
        context: Context | None = None,
    ) -> VirtualHandle:  # fmt: skip
        return self.call_at(self._now + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: str | None = None,
        context: Context | None = None,
        **_newer: Any,
    ) -> asyncio.Task[T]:
        owner = PROCESS.get(self.root) if context is None else context.get(PROCESS, self.root)
        task: VirtualTask[T] = VirtualTask(next(self._numbers), coro, self, name, context)
        owner.tasks.add(task)
        if owner.dead:
            self._graveyard.append(task)
        return task

    def run_in_executor(self, executor: Any, func: Callable[[Unpack[Ts]], T], *args: *Ts) -> asyncio.Future[T]:
        # In place: threads would bring back what this loop is there to remove.
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # as an executor does: whoever awaits it gets it
            future.set_exception(error)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        owner = PROCESS.get(self.root)
        if not self._closed and not owner.dead:
            self.faults.append((owner.name, context.get("exception"), str(context.get("message", ""))))

    async def shutdown_asyncgens(self) -> None: ...

    async def shutdown_default_executor(self, timeout: float | None = None) -> None: ...

    # ---- the driver

    def run_until_complete(self, future: Any) -> Any:
        """Run the coroutine to its end, in the process `root`. Raises `Stuck` where time or patience ends."""
        if self._running or self._closed or asyncio._get_running_loop() is not None:
            raise RuntimeError("this loop is closed, or one runs already: call this from a plain function")
        self._running = True
        hooks = sys.get_asyncgen_hooks()
        # Generators that are dropped are not finished behind their owner's back.
        sys.set_asyncgen_hooks(firstiter=None, finalizer=lambda agen: None)
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(future, context=self.root.context(), name="main")
            while not task.done():
                self._turn()
            return task.result()
        finally:
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)
            self._running = False

    def _turn(self) -> None:
        active = self._active
        if self._timers and (not active or self._timers[0][0] <= self._now):
            self._pass_time(bool(active))
        elif not active:
            raise Stuck(f"at {self._now:.3f} s nothing is ready and no timer is set")
        if not active:
            return

        if len(active) == 1:
            owner = active.pop()
        elif self._dice is None:
            owner = active.pop(0)
        else:
            place = int(self._dice.random() * len(active))
            active[place], active[-1] = active[-1], active[place]
            owner = active.pop()
        self._run(owner)

    def _run(self, owner: Process) -> None:
        owner.listed = False
        batch, owner.ready = owner.ready, []
        self.steps += len(batch)
        self._at_once += len(batch)
        if self._at_once > MOST_AT_ONCE or self.steps > self._most:
            calls = ", ".join(repr(handle.call) for handle in batch[:3])
            raise Stuck(f"at {self._now:.3f} s {owner.name} runs and runs without waiting: {calls}")

        for place, handle in enumerate(batch):
            if handle.call is None:
                continue
            if owner.frozen:
                owner.ready[:0] = batch[place:]
                return
            if owner.dead:
                return
            try:
                handle.run(handle.call, *handle.args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:  # a callback's fault is its process's, as in any loop
                self.faults.append((owner.name, error, f"in {handle.call!r}"))

        if owner.ready and not owner.listed and not owner.frozen:
            owner.listed = True
            self._active.append(owner)

    def _pass_time(self, busy: bool) -> None:
        timers = self._timers
        while timers and timers[0][2].call is None:
            heapq.heappop(timers)
        if not timers:
            return
        if not busy and timers[0][0] > self._now:
            self._now = timers[0][0]
            self._at_once = 0
            if self._now > self._limit:
                raise Stuck(f"virtual time passed its limit of {self._limit:g} s")
        while timers and timers[0][0] <= self._now:
            handle = heapq.heappop(timers)[2]
            owner = handle.owner
            if handle.call is None or owner.dead:
                continue
            owner.ready.append(handle)
            if not owner.listed and not owner.frozen:
                owner.listed = True
                self._active.append(owner)

    # ---- what a machine can suffer

    def new_process(self, name: str) -> Process:
        process = Process(name)
        self._processes.add(process)
        return process

    def freeze(self, process: Process) -> None:
        """SIGSTOP: whatever is or becomes ready waits."""
        process.frozen = True
        if process.listed:
            process.listed = False
            self._active.remove(process)

    def thaw(self, process: Process) -> None:
        process.frozen = False
        if process.ready and not process.listed and not process.dead:
            process.listed = True
            self._active.append(process)

    def kill(self, process: Process) -> None:
        """SIGKILL: nothing of it runs any more, no `finally` either."""
        process.dead = True
        if process.listed:
            process.listed = False
            self._active.remove(process)
        self._graveyard.extend(process.tasks)  # the collector would close them, and run what they clean up with
        process.ready.clear()

    def close(self) -> None:
        """Forget everything. What is suspended is closed with nobody watching."""
        self._closed = True
        doomed = [*self._graveyard, *(task for process in self._processes for task in process.tasks)]
        for process in self._processes:
            process.dead = True
            process.ready.clear()
        self._timers.clear()
        self._active.clear()
        for task in doomed:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            if not task.done() and (coro := task.get_coro()) is not None:
                # A `finally` that awaits, or that meets the closed world, raises: nobody is there to hear it.
                with contextlib.suppress(BaseException):
                    coro.close()
        self._graveyard.clear()
