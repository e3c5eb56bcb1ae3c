"""A program behind a wall, as its starter sees it: it talks to whoever watches over it there, watches the limits
that the kernel does not enforce by itself, and says how the program ended.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import enum
import os
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Final

from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.inside import init
from flowkit.sandbox.inside.order import LONGEST_MESSAGE, MOST_DESCRIPTORS, ORDER, Order, send, write_order
from flowkit.sandbox.launch import settle
from flowkit.sandbox.pipes import Pipe
from flowkit.sandbox.runtime import Ending, Limits, Program, Usage, Verdict
from flowkit.sandbox.spots import Spot

START_SEC: Final = 30.0
"""A program that has not begun by then is not going to: the machine is lost, or it is somebody's mistake."""

_LOOK_SEC: Final = 0.25
_END_SEC: Final = 10.0
_CREDENTIALS: Final = "3i"

Served = Callable[[socket.socket], Coroutine[None, None, "Traffic"]]


@dataclass(slots=True)
class Traffic:
    """Bytes that went through a program's way out, so far."""

    received: int = 0
    sent: int = 0


class _Cause(enum.Enum):
    WALL = Verdict.WALL
    CPU = Verdict.CPU
    OOM = Verdict.OOM
    KILLED = Verdict.KILLED


@dataclass(slots=True)
class Ends:
    """The parent's ends of what a program is given. Descriptors become -1 when somebody else owns them."""

    channel: socket.socket
    stdout: int
    stderr: int

    def close(self) -> None:
        self.channel.close()
        for name in ("stdout", "stderr"):
            if (descriptor := getattr(self, name)) >= 0:
                os.close(descriptor)
                setattr(self, name, -1)


def send_order(line: socket.socket, order: Order, filter_code: bytes, program: Program) -> Ends:
    """Give the order to who waits in a place; the parent's ends come back. Raises `OSError` where nobody is there any
    more, and `CannotStart` for what cannot be said."""
    try:
        written = write_order(order, filter_code, dict(program.files))
    except ValueError as error:
        raise CannotStart("E_PROGRAM", str(error)) from None
    channel, their_channel = socket.socketpair()
    stdout, their_stdout = os.pipe()
    stderr, their_stderr = os.pipe()
    channel.setblocking(False)
    ends = Ends(channel, stdout, stderr)
    away = (their_channel.detach(), their_stdout, their_stderr, written)
    try:
        send(line, ORDER, away)
    except OSError:
        ends.close()
        raise
    finally:
        for descriptor in away:
            os.close(descriptor)
    return ends


@dataclass(frozen=True, slots=True)
class _Report:
    """What whoever watched over it said last. Nothing: that was itself ended."""

    exit_code: int | None = None
    cpu_sec: float | None = None
    peak_bytes: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None

    @classmethod
    def read(cls, text: str) -> _Report:
        status, cpu, peak, read, written = text.split(",")
        return cls(
            exit_code=os.waitstatus_to_exitcode(int(status)) if status else None,
            cpu_sec=float(cpu),
            peak_bytes=int(peak),
            read_bytes=int(read) if int(read) >= 0 else None,
            written_bytes=int(written) if int(written) >= 0 else None,
        )


class Contained:
    """A running program. `serve` is given the socket on which the program's way out arrives, if it has one; `after` is
    awaited once its place is empty."""

    def __init__(
        self, spot: Spot, ends: Ends, *, limits: Limits, after: Callable[[], Awaitable[None]],
        serve: Served | None = None,
    ) -> None:  # fmt: skip
        self.pid = 0
        self._process = -1
        self.end_signal = int(signal.SIGKILL if spot.root else init.END)
        self.channel = ends.channel
        self.stdout = asyncio.StreamReader()
        self.stderr = asyncio.StreamReader()
        self._loop = asyncio.get_running_loop()
        self._spot = spot
        self._ends = ends
        self._limits = limits
        self._group = spot.group
        self._after = after
        self._serve = serve
        self._serving: asyncio.Task[Traffic] | None = None
        self._cause: _Cause | None = None
        self._began = time.monotonic()
        self._begun: asyncio.Future[None] = self._loop.create_future()
        self._ending: asyncio.Future[Ending] | None = None
        self._finishing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def begin(self) -> None:
        """Until the program runs. Raises `CannotStart`; then nothing of it is left."""
        self._timer = self._loop.call_later(START_SEC, self._too_late)
        self._loop.add_reader(self._spot.control.fileno(), self._hear)
        try:
            await self._begun
            if self._serving is not None:
                await self._serving
        except BaseException:
            self._stop_listening()
            if self._serving is not None:
                self._serving.cancel()
            self._ends.close()
            await asyncio.shield(self._finishing or self._clean_up())  # it may have ended already
            raise
        self._read_outputs()

    async def wait(self) -> Ending:
        if self._ending is None:
            raise RuntimeError("wait for a program that has begun")
        return await asyncio.shield(self._ending)

    def terminate(self) -> None:
        self._say(init.TERMINATE)

    async def kill(self) -> None:
        self._end(_Cause.KILLED)
        await self.wait()

    # ---- what whoever watches over it says

    def _hear(self) -> None:
        while True:
            try:
                data, ancillary, _, _ = self._spot.control.recvmsg(LONGEST_MESSAGE, _ROOM)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data, ancillary = b"", []
            pid, descriptors = _unpack(ancillary)
            if pid and self._ending is None:
                self.pid = pid
            kind, _, text = data.decode().partition(" ")
            heard = self._while_it_begins if self._ending is None else self._while_it_runs
            goes_on = heard(kind, text, descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            if not goes_on:
                return

    def _while_it_begins(self, kind: str, text: str, descriptors: list[int]) -> bool:
        match kind:
            case "listening" if self._serve is not None and self._serving is None:
                way_out = self._serve(socket.socket(fileno=descriptors.pop()))
                self._serving = asyncio.ensure_future(way_out)
            case "began":
                self._began = time.monotonic()
                with contextlib.suppress(ProcessLookupError):  # it has ended already
                    self._process = os.pidfd_open(self.pid)
                self._ending = self._loop.create_future()
                self._look_again()
                settle(self._begun)
            case "failed":
                return self._has_not_begun(_failed(text))
            case "" | "ended":
                say = "the sandbox ended before the program began"
                return self._has_not_begun(CannotStart("E_SANDBOX_START", say, "flowkit doctor"))
        return True

    def _while_it_runs(self, kind: str, text: str, _: list[int]) -> bool:
        if kind in ("ended", ""):
            self._stop_listening()
            report = _Report.read(text) if kind else _Report()
            self._finishing = asyncio.create_task(self._finish(report), name=f"sandbox/{self.pid}")
            return False
        return True

    def _has_not_begun(self, error: CannotStart) -> bool:
        self._stop_listening()
        if not self._begun.done():
            self._begun.set_exception(error)
        return False

    def _too_late(self) -> None:
        say = f"the program had not begun after {START_SEC:g} s"
        self._has_not_begun(CannotStart("E_SANDBOX_START", say, "look at the machine's load"))

    def _stop_listening(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._loop.remove_reader(self._spot.control.fileno())

    def _read_outputs(self) -> None:
        for name in ("stdout", "stderr"):
            descriptor = getattr(self._ends, name)
            setattr(self._ends, name, -1)
            Pipe(descriptor, getattr(self, name))

    # ---- its end

    async def _finish(self, report: _Report) -> None:
        assert self._ending is not None
        try:
            ending = self._judge(report, time.monotonic() - self._began)
            await self._clean_up()
            self._ending.set_result(ending)
        except BaseException as error:
            self._ending.set_exception(error)
            if not isinstance(error, Exception):
                raise

    def _look_again(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left = self._began + self._limits.wall_sec - time.monotonic()
        pause = _END_SEC if self._cause is not None else max(0.0, min(left, _LOOK_SEC))
        self._timer = self._loop.call_later(pause, self._look)

    def _look(self) -> None:
        """After its limits; at what has not ended though it was told to, once more."""
        if self._cause is not None:
            self._force()
        elif time.monotonic() >= self._began + self._limits.wall_sec:
            self._end(_Cause.WALL)
        elif self._group is not None and self._group.oom_kills():
            self._end(_Cause.OOM)  # what is left of it waits, perhaps for ever, for what was killed
        elif self._group is not None and (self._group.cpu_sec() or 0.0) >= self._limits.cpu_sec:
            self._end(_Cause.CPU)
        self._look_again()

    def _end(self, cause: _Cause) -> None:
        if self._cause is None and self._ending is not None and self._finishing is None:
            self._cause = cause
            self._say(init.KILL)
            self._look_again()

    def _force(self) -> None:
        """Whoever watches over it was told to end it, and has not reported that."""
        if self._group is not None:
            self._group.kill()
        if self._process >= 0:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(OSError):  # whoever is not there any more needs not be told
            self._spot.control.send(word)

    def _judge(self, report: _Report, wall: float) -> Ending:
        status = report.exit_code
        number = int(signal.SIGKILL) if status is None else -status if status < 0 else None
        usage = self._usage(report, wall)
        return Ending(self._verdict(status, number, usage), None if number else status, number, usage)

    def _verdict(self, status: int | None, number: int | None, usage: Usage) -> Verdict:
        out_of_memory = self._group is not None and self._group.oom_kills() > 0
        if out_of_memory and status != 0 and self._cause in (None, _Cause.OOM):
            return Verdict.OOM
        if self._cause is not None and status is None:
            return self._cause.value
        if number == signal.SIGXCPU or (number == signal.SIGKILL and usage.cpu_sec >= self._limits.cpu_sec):
            return Verdict.CPU
        return Verdict.EXITED if number is None else Verdict.SIGNAL

    def _usage(self, report: _Report, wall: float) -> Usage:
        cpu = report.cpu_sec
        if cpu is None and self._group is not None:
            cpu = self._group.cpu_sec()
        peak = self._group.peak_memory_bytes() if self._group is not None else None
        traffic = self._serving.result() if self._serving is not None else Traffic()
        return Usage(
            wall_sec=wall,
            cpu_sec=cpu or 0.0,
            peak_memory_bytes=peak if peak is not None else report.peak_bytes,
            read_bytes=report.read_bytes,
            written_bytes=report.written_bytes,
            received_bytes=traffic.received,
            sent_bytes=traffic.sent,
        )

    async def _clean_up(self) -> None:
        self._spot.close()
        if self._process >= 0:
            os.close(self._process)
            self._process = -1
        await self._after()
        await self._spot.remove()


_ROOM = socket.CMSG_SPACE(struct.calcsize(_CREDENTIALS)) + socket.CMSG_SPACE(
    MOST_DESCRIPTORS * array.array("i").itemsize
)


def _unpack(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, list[int]]:
    pid, descriptors = 0, array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid = struct.unpack(_CREDENTIALS, data)[0]
    return pid, list(descriptors)


def _failed(text: str) -> CannotStart:
    stage, _, why = text.partition(" ")
    match stage:
        case "exec":
            return CannotStart(
                "E_PROGRAM",
                f"the program cannot be run: {why}",
                "`argv[0]` has to be an absolute path that it may read",
            )
        case "files":
            return CannotStart("E_FILES", f"its files cannot be put in place: {why}", "see that they fit its `disk_mb`")
        case "folder":
            return CannotStart("E_FILES", f"its folder cannot be entered: {why}", "let other users into where it lies")
        case _:
            return CannotStart("E_SANDBOX_START", f"the sandbox could not be made ({stage}): {why}", "flowkit doctor")
