"""A program behind a wall, as its starter sees it: it talks to the first process of the sandbox, watches the limits
that the kernel does not enforce by itself, and says how the program ended.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import enum
import functools
import os
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.inside import init
from flowkit.sandbox.inside.order import LONGEST_MESSAGE, MOST_DESCRIPTORS, Order, send, write_order, write_summary
from flowkit.sandbox.launch import settle
from flowkit.sandbox.runtime import Ending, Limits, Program, Usage, Verdict
from flowkit.sandbox.spots import Spot

START_SEC: Final = 30.0
"""A program that has not begun by then is not going to: the machine is lost, or it is somebody's mistake."""

_LOOK_SEC: Final = 0.25
_END_SEC: Final = 10.0
_CREDENTIALS: Final = "3i"

Served = Callable[[socket.socket], Awaitable["Traffic"]]


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


class _Output(asyncio.StreamReaderProtocol):
    """What a program prints. Nothing is ever written to it, so at its end it is closed: by uvloop only if that is said,
    and a descriptor that is closed later, by the garbage collector, may be another's by then."""

    def eof_received(self) -> bool:
        super().eof_received()
        return False


def send_order(control: socket.socket, order: Order, filter_code: bytes, program: Program) -> Ends:
    """Give the order to a place; the parent's ends come back. Raises `OSError` where nobody is there any more, and
    `CannotStart` for what cannot be said."""
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
        send(control, write_summary(order), away)
    except OSError:
        ends.close()
        raise
    finally:
        for descriptor in away:
            os.close(descriptor)
    return ends


@dataclass(frozen=True, slots=True)
class _Report:
    """What the first process of the sandbox said last. Nothing: it was itself ended."""

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
        self.channel = ends.channel
        self.stdout = asyncio.StreamReader()
        self.stderr = asyncio.StreamReader()
        self._spot = spot
        self._ends = ends
        self._limits = limits
        self._group = spot.group
        self._after = after
        self._serve = serve
        self._traffic: Traffic | None = None
        self._cause: _Cause | None = None
        self._began = time.monotonic()
        self._watch: asyncio.Task[Ending] | None = None

    async def begin(self) -> None:
        """Until the program runs. Raises `CannotStart`; then nothing of it is left."""
        try:
            async with asyncio.timeout(START_SEC):
                await self._until_begun()
                await self._read_outputs()
        except BaseException as error:
            self._ends.close()
            await asyncio.shield(self._clean_up())
            if isinstance(error, TimeoutError):
                raise CannotStart(
                    "E_SANDBOX_START", f"the program had not begun after {START_SEC:g} s", "look at the machine's load"
                ) from None
            raise
        self._watch = asyncio.create_task(self._until_ended(), name=f"sandbox/{self.pid}")

    async def wait(self) -> Ending:
        if self._watch is None:
            raise RuntimeError("wait for a program that has begun")
        return await asyncio.shield(self._watch)

    def terminate(self) -> None:
        self._say(init.TERMINATE)

    async def kill(self) -> None:
        self._end(_Cause.KILLED)
        await self.wait()

    # ---- its beginning

    async def _until_begun(self) -> None:
        while True:
            message, pid, descriptors = await self._receive()
            self.pid = pid or self.pid
            kind, _, text = message.partition(" ")
            match kind:
                case "listening" if self._serve is not None:
                    self._traffic = await self._serve(socket.socket(fileno=descriptors.pop()))
                case "began":
                    self._began = time.monotonic()
                    return
                case "failed":
                    raise _failed(text)
                case "":
                    raise CannotStart("E_SANDBOX_START", "the sandbox ended before the program began", "flowkit doctor")
            for descriptor in descriptors:
                os.close(descriptor)

    async def _read_outputs(self) -> None:
        loop = asyncio.get_running_loop()
        for name in ("stdout", "stderr"):
            reader: asyncio.StreamReader = getattr(self, name)
            file = os.fdopen(getattr(self._ends, name), "rb", buffering=0)
            setattr(self._ends, name, -1)
            await loop.connect_read_pipe(functools.partial(_Output, reader), file)

    # ---- its end

    async def _until_ended(self) -> Ending:
        looking = asyncio.create_task(self._look_after_limits(), name=f"sandbox/{self.pid}/limits")
        try:
            report = await self._until_reported()
        finally:
            looking.cancel()
            await asyncio.wait([looking])
        wall = time.monotonic() - self._began
        ending = self._judge(report, wall)
        await self._clean_up()
        return ending

    async def _until_reported(self) -> _Report:
        while True:
            message, _, descriptors = await self._receive()
            for descriptor in descriptors:
                os.close(descriptor)
            kind, _, text = message.partition(" ")
            if kind == "ended":
                return _Report.read(text)
            if not kind:
                return _Report()

    async def _look_after_limits(self) -> None:
        while True:
            if self._cause is not None:
                await asyncio.sleep(_END_SEC)
                self._force()
                continue
            left = self._began + self._limits.wall_sec - time.monotonic()
            if left <= 0:
                self._end(_Cause.WALL)
                continue
            await asyncio.sleep(min(left, _LOOK_SEC))
            if self._group is None:
                continue
            if self._group.oom_kills():
                self._end(_Cause.OOM)  # what is left of it waits, perhaps for ever, for what was killed
            elif (self._group.cpu_sec() or 0.0) >= self._limits.cpu_sec:
                self._end(_Cause.CPU)

    def _end(self, cause: _Cause) -> None:
        if self._cause is None and self._watch is not None and not self._watch.done():
            self._cause = cause
            self._say(init.KILL)

    def _force(self) -> None:
        """The first process of the sandbox was told, and has neither ended nor reported: so its number is still its."""
        if self._group is not None:
            self._group.kill()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, signal.SIGKILL)

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
        cpu = self._group.cpu_sec() if self._group is not None else None
        peak = self._group.peak_memory_bytes() if self._group is not None else None
        return Usage(
            wall_sec=wall,
            cpu_sec=report.cpu_sec if report.cpu_sec is not None else cpu or 0.0,
            peak_memory_bytes=peak if peak is not None else report.peak_bytes,
            read_bytes=report.read_bytes,
            written_bytes=report.written_bytes,
            received_bytes=self._traffic.received if self._traffic is not None else 0,
            sent_bytes=self._traffic.sent if self._traffic is not None else 0,
        )

    async def _clean_up(self) -> None:
        self._spot.control.close()
        await self._after()
        await self._spot.remove()

    # ---- messages

    async def _receive(self) -> tuple[str, int, list[int]]:
        """A message, the number that its sender has on this side, and the descriptors that came with it. An empty one:
        there is nobody any more who could send one."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                data, ancillary, _, _ = self._spot.control.recvmsg(LONGEST_MESSAGE, _ROOM)
            except BlockingIOError:
                ready = loop.create_future()
                loop.add_reader(self._spot.control, settle, ready)
                try:
                    await ready
                finally:
                    loop.remove_reader(self._spot.control)
                continue
            except ConnectionResetError:
                return "", 0, []
            return data.decode(), *_unpack(ancillary)


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
