"""Level 1: a program as a process of its own, with limits of the system and nothing else. For code that is trusted.

It runs as the user of whoever starts it, and may do what that user may. What it is spared: the environment and the
descriptors of its parent, and leaving anything behind. Memory is bounded as data (`RLIMIT_DATA`, for each process),
CPU time for each process, disk for each file. Processes cannot be counted here, nor cores and the network be shut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path, PurePosixPath
from typing import Any, Final

from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.runtime import Ending, Level, Limits, Program, Usage, Verdict

WARDEN: Final = str(Path(__file__).with_name("warden.py"))
LINE_BYTES: Final = 64 * 1024
GONE_SEC: Final = 10.0
MB: Final = 1024 * 1024
SPARE_FILES: Final = 256


class PlainRuntime:
    """Starts programs with nothing around them. Raises `CannotStart` where the operator has not said that code is
    trusted."""

    name = "plain"
    level = Level.L1

    def __init__(self, *, trusted: bool = False) -> None:
        if not trusted:
            raise CannotStart(
                "level_not_allowed",
                "programs would run at level L1: with all that the worker's user may do",
                "if you trust the code, set code_trusted (FLOWKIT_CODE_TRUSTED=1)",
            )
        self._running: set[PlainRunning] = set()

    async def start(self, program: Program) -> PlainRunning:
        if not os.path.isabs(program.argv[0]) or not os.access(program.argv[0], os.X_OK):
            raise CannotStart("cannot_start", f"{program.argv[0]!r} is no absolute path of a program that can be run")
        folder = await asyncio.to_thread(_furnish, program)
        ours, theirs = socket.socketpair()
        report, written = os.pipe()
        try:
            process = await self._begin(program, folder, theirs.fileno(), written)
        except BaseException as error:
            ours.close()
            os.close(report)
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))
            if isinstance(error, OSError):
                raise CannotStart("cannot_start", f"the program could not be started: {error}") from error
            raise
        finally:
            theirs.close()
            os.close(written)
        ours.setblocking(False)
        running = PlainRunning(process, ours, report, folder, program.limits)
        self._running.add(running)
        running.ended.add_done_callback(lambda _: self._running.discard(running))
        return running

    async def close(self) -> None:
        for running in list(self._running):
            await running.kill()

    async def _begin(self, program: Program, folder: str, channel: int, report: int) -> Process:
        limits = json.dumps(_limits(program.limits) | {"parent": os.getpid()})
        command = (sys.executable, "-I", "-S", WARDEN, str(report), str(channel), limits, *program.argv)
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=dict(program.env), cwd=folder,
                start_new_session=True, pass_fds=(channel, report), limit=LINE_BYTES,
            )
        )  # fmt: skip
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_bury)
            raise


class PlainRunning:
    """A program that was started. `ended` is done once it is gone with everything that it started."""

    def __init__(self, process: Process, channel: socket.socket, report: int, folder: str, limits: Limits) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self.pid = process.pid
        self.end_signal = int(signal.SIGUSR1)
        self.channel = channel
        self.stdout = process.stdout
        self.stderr = process.stderr
        self._process = process
        self._report = report
        self._folder = folder
        self._limits = limits
        self._began = time.monotonic()
        self._forced: Verdict | None = None
        loop = asyncio.get_running_loop()
        self._wall = loop.call_later(limits.wall_sec, self._force, Verdict.WALL)
        self.ended: asyncio.Future[Ending] = asyncio.ensure_future(self._end())

    async def wait(self) -> Ending:
        return await asyncio.shield(self.ended)

    def terminate(self) -> None:
        _signal(self.pid, signal.SIGTERM, group=True)

    async def kill(self) -> None:
        self._force(Verdict.KILLED)
        await asyncio.wait({self.ended}, timeout=GONE_SEC)

    def _force(self, why: Verdict) -> None:
        if self._forced is None and not self.ended.done():
            self._forced = why
            _signal(self.pid, signal.SIGUSR1)
            asyncio.get_running_loop().call_later(GONE_SEC, self._at_any_price)

    def _at_any_price(self) -> None:
        # Whoever should have ended it does not answer: it was stopped, perhaps by the program.
        if self._process.returncode is None:
            _signal(self.pid, signal.SIGKILL, group=True)

    async def _end(self) -> Ending:
        try:
            await self._process.wait()
            return self._ending(_read_report(self._report), time.monotonic() - self._began)
        finally:
            self._wall.cancel()
            os.close(self._report)
            await asyncio.to_thread(_remove, self._folder)

    def _ending(self, said: dict[str, Any], wall_sec: float) -> Ending:
        if not said:  # it was killed itself
            usage = Usage(wall_sec, 0.0)
            return Ending(self._forced or Verdict.KILLED, None, int(signal.SIGKILL), usage)
        usage = Usage(wall_sec, said["cpu_sec"], said["peak"], said["read"], said["written"])
        number = said["signal"]
        spent = said["own_cpu_sec"] >= math.ceil(self._limits.cpu_sec)
        if self._forced is not None:
            verdict = self._forced
        elif number == signal.SIGXCPU or (number == signal.SIGKILL and spent):
            verdict = Verdict.CPU
        else:
            verdict = Verdict.EXITED if number is None else Verdict.SIGNAL
        return Ending(verdict, said["status"], number, usage)


def _furnish(program: Program) -> str:
    folder = tempfile.mkdtemp(prefix="flowkit-program-")
    try:
        for name, content in program.files.items():
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not path.parts:
                raise CannotStart("bad_path", f"{name!r} does not stay inside the program's working directory")
            target = Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder


def _limits(limits: Limits) -> dict[str, Any]:
    cpu = max(1, math.ceil(limits.cpu_sec))
    disk = limits.disk_mb * MB
    memory = limits.memory_mb * MB
    return {
        "DATA": [memory, memory],
        "CPU": [cpu, cpu + 1],
        "FSIZE": [disk, disk],
        "NOFILE": [SPARE_FILES, SPARE_FILES],
        "CORE": [0, 0],
    }


def _read_report(fd: int) -> dict[str, Any]:
    # The launcher has ended, so all of it is there, or nothing ever will be.
    os.set_blocking(fd, False)
    with contextlib.suppress(BlockingIOError, ValueError):
        said = json.loads(os.read(fd, 64 * 1024) or b"{}")
        return said if isinstance(said, dict) else {}
    return {}


def _remove(folder: str) -> None:
    """Also what the program has made unreadable for itself."""
    shutil.rmtree(folder, ignore_errors=True)
    if os.path.lexists(folder):
        for path, _, _ in os.walk(folder):
            with contextlib.suppress(OSError):
                os.chmod(path, 0o700)
        shutil.rmtree(folder, ignore_errors=True)


def _bury(starting: asyncio.Future[Process]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        _signal(starting.result().pid, signal.SIGUSR1)


def _signal(pid: int, number: signal.Signals, *, group: bool = False) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if group:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
