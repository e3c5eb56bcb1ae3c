"""A program behind a wall, as its starter sees it: it talks to the first process of the sandbox, watches the limits that
the kernel does not enforce by itself, and says how the program ended.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import enum
import json
import os
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from flowkit.sandbox.cgroups import Group
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.inside import init
from flowkit.sandbox.inside.order import LONGEST_MESSAGE, MOST_DESCRIPTORS, Order, write_order
from flowkit.sandbox.runtime import Ending, Limits, Program, Usage, Verdict

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
    """The descriptors of a start: the parent's, and those that are sent away and closed here."""

    control: socket.socket
    channel: socket.socket
    stdout: int
    stderr: int
    away: list[int] = field(default_factory=list)

    def sent(self) -> None:
        for descriptor in self.away:
            os.close(descriptor)
        self.away.clear()

    def close(self) -> None:
        self.sent()
        self.control.close()
        self.channel.close()
        for name in ("stdout", "stderr"):
            if (descriptor := getattr(self, name)) >= 0:
                os.close(descriptor)
                setattr(self, name, -1)


def make_ends(order: Order, filter_code: bytes, program: Program, doors: list[int]) -> Ends:
    """The descriptors of this program. `doors` become part of what is sent away."""
    control, their_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel, their_channel = socket.socketpair()
    stdout, their_stdout = os.pipe()
    stderr, their_stderr = os.pipe()
    control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    control.setblocking(False)
    channel.setblocking(False)
    order.files = [(path, len(content)) for path, content in program.files.items()]
    written = write_order(order, filter_code, list(program.files.values()))
    away = [their_control.detach(), their_channel.detach(), their_stdout, their_stderr, written, *doors]
    return Ends(control, channel, stdout, stderr, away)


def send_order(orders: socket.socket, ends: Ends) -> None:
    """Raises `OSError` where nobody takes orders any more."""
    orders.sendmsg([b"order"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", ends.away).tobytes())])
    ends.sent()


class Contained:
    """A running program. `serve` is given the socket on which the program's way out arrives, if it has one."""

    def __init__(
        self, ends: Ends, *, limits: Limits, group: Group | None, after: Callable[[], Awaitable[None]],
        serve: Served | None = None,
    ) -> None:  # fmt: skip
        self.pid = 0
        self.channel = ends.channel
        self.stdout = asyncio.StreamReader()
        self.stderr = asyncio.StreamReader()
        self._ends = ends
        self._limits = limits
        self._group = group
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
            await asyncio.shield(self._undo())
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
            match message and message["kind"]:
                case "listening" if self._serve is not None:
                    self._traffic = await self._serve(socket.socket(fileno=descriptors.pop()))
                case "began":
                    self._began = time.monotonic()
                    return
                case "failed":
                    raise _failed(message or {})
                case None:
                    raise CannotStart("E_SANDBOX_START", "the sandbox ended before the program began")
            for descriptor in descriptors:
                os.close(descriptor)

    async def _read_outputs(self) -> None:
        loop = asyncio.get_running_loop()
        for name in ("stdout", "stderr"):
            reader: asyncio.StreamReader = getattr(self, name)
            file = os.fdopen(getattr(self._ends, name), "rb", buffering=0)
            setattr(self._ends, name, -1)
            await loop.connect_read_pipe(lambda reader=reader: asyncio.StreamReaderProtocol(reader), file)

    async def _undo(self) -> None:
        self._ends.close()
        await self._clean_up()

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
        self._ends.control.close()
        await self._clean_up()
        return ending

    async def _until_reported(self) -> dict[str, Any] | None:
        while True:
            message, _, descriptors = await self._receive()
            for descriptor in descriptors:
                os.close(descriptor)
            if message is None or message["kind"] == "ended":
                return message

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
        """The first process of the sandbox was told, and has neither ended nor reported: it cannot have been replaced."""
        if self._group is not None:
            self._group.kill()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, signal.SIGKILL)

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(OSError):  # whoever is not there any more needs not be told
            self._ends.control.send(word)

    def _judge(self, report: dict[str, Any] | None, wall: float) -> Ending:
        report = report or {"status": None}
        status = None if report["status"] is None else os.waitstatus_to_exitcode(report["status"])
        number = -status if status is not None and status < 0 else None
        if status is None:
            number = int(signal.SIGKILL)
        usage = self._usage(report, wall)
        verdict = self._verdict(status, number, usage)
        return Ending(verdict, None if number else status, number, usage)

    def _verdict(self, status: int | None, number: int | None, usage: Usage) -> Verdict:
        out_of_memory = self._group is not None and self._group.oom_kills() > 0
        if out_of_memory and status != 0 and self._cause in (None, _Cause.OOM):
            return Verdict.OOM
        if self._cause is not None and status is None:
            return self._cause.value
        if number == signal.SIGXCPU or (number == signal.SIGKILL and usage.cpu_sec >= self._limits.cpu_sec):
            return Verdict.CPU
        return Verdict.EXITED if number is None else Verdict.SIGNAL

    def _usage(self, report: dict[str, Any], wall: float) -> Usage:
        cpu = self._group.cpu_sec() if self._group is not None else None
        peak = self._group.peak_memory_bytes() if self._group is not None else None
        return Usage(
            wall_sec=wall,
            cpu_sec=report.get("cpu_sec", cpu or 0.0),
            peak_memory_bytes=peak if peak is not None else report.get("peak_bytes"),
            read_bytes=report.get("read_bytes"),
            written_bytes=report.get("written_bytes"),
            received_bytes=self._traffic.received if self._traffic is not None else 0,
            sent_bytes=self._traffic.sent if self._traffic is not None else 0,
        )

    async def _clean_up(self) -> None:
        await self._after()
        if self._group is not None:
            await self._group.remove()

    # ---- messages

    async def _receive(self) -> tuple[dict[str, Any] | None, int, list[int]]:
        """A message, the number that its sender has on this side, and the descriptors that came with it. No message:
        there is nobody any more who could send one."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                data, ancillary, _, _ = self._ends.control.recvmsg(LONGEST_MESSAGE, _ROOM)
            except BlockingIOError:
                ready = loop.create_future()
                loop.add_reader(self._ends.control, _set, ready)
                try:
                    await ready
                finally:
                    loop.remove_reader(self._ends.control)
                continue
            except ConnectionResetError:
                return None, 0, []
            pid, descriptors = _unpack(ancillary)
            return (json.loads(data) if data else None), pid, descriptors


_ROOM = socket.CMSG_SPACE(struct.calcsize(_CREDENTIALS)) + socket.CMSG_SPACE(
    MOST_DESCRIPTORS * array.array("i").itemsize
)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _unpack(ancillary: list[tuple[int, int, bytes]]) -> tuple[int, list[int]]:
    pid, descriptors = 0, array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid = struct.unpack(_CREDENTIALS, data)[0]
    return pid, list(descriptors)


def _failed(message: dict[str, Any]) -> CannotStart:
    stage, text = message["stage"], message["text"]
    match stage:
        case "exec":
            return CannotStart(
                "E_PROGRAM", f"the program cannot be run: {text}", "`argv[0]` has to be an absolute path that it may read"
            )
        case "files":
            return CannotStart("E_FILES", f"the program's files cannot be put in place: {text}", "raise its `disk_mb`")
        case _:
            return CannotStart("E_SANDBOX_START", f"the sandbox could not be made ({stage}): {text}", "flowkit doctor")
