"""Process groups of one attempt: started, signalled as a whole, and never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from typing import Any, Self

from flowkit.worker.orphans import Undertaker

MOST_OUTPUT = 1024 * 1024
REAP_SEC = 5.0
LOOK_SEC = 0.25
LINGER_SEC = 1.0


class Exit(int):
    """A process's exit status, with what it wrote: `stdout` and `stderr`, the last MiB of each. Negative: the signal
    that killed it."""

    stdout: bytes
    stderr: bytes

    def __new__(cls, status: int, stdout: bytes = b"", stderr: bytes = b"") -> Self:
        self = super().__new__(cls, status)
        self.stdout = stdout
        self.stderr = stderr
        return self


class Groups:
    """The processes that an attempt has started. `terminate` and `kill` may be called from another thread."""

    __slots__ = ("_keepers", "_leaders", "_undertaker", "killed")

    def __init__(self, undertaker: Undertaker | None = None) -> None:
        # By pid: whether it leads a group of its own, which is then signalled as a whole.
        self._leaders: dict[int, bool] = {}
        self._keepers: dict[int, int] = {}
        self._undertaker = undertaker
        self.killed = False

    def __len__(self) -> int:
        return len(self._leaders) + len(self._keepers)

    def add(self, pid: int) -> None:
        """Take a process in, with its group if it leads one."""
        leads = _leads_group(pid)
        self._leaders[pid] = leads
        if leads and self._undertaker is not None:
            self._undertaker.watch(pid)
        if self.killed:  # it was started while the attempt was being killed
            _signal(pid, leads, signal.SIGKILL)

    def add_keeper(self, pid: int, end_signal: int) -> None:
        """Take a process in that ends what it has started by itself: when it is sent this signal, and when this process
        has gone. Killing it might leave them; to ask them to end is not for this one to do."""
        self._keepers[pid] = end_signal
        if self.killed:
            _signal(pid, False, end_signal)

    def remove(self, pid: int) -> None:
        if self._leaders.pop(pid, False) and self._undertaker is not None:
            self._undertaker.forget(pid)

    def forget(self) -> None:
        self._keepers.clear()
        for pid in list(self._leaders):
            self.remove(pid)

    def terminate(self) -> None:
        for pid, leads in list(self._leaders.items()):
            _signal(pid, leads, signal.SIGTERM)

    def kill(self) -> None:
        self.killed = True
        for pid, leads in list(self._leaders.items()):
            _signal(pid, leads, signal.SIGKILL)
        for pid, end_signal in list(self._keepers.items()):
            _signal(pid, False, end_signal)

    async def run(self, *command: str | os.PathLike[str], grace_sec: float, stdin: bytes | None = None,
                  **options: Any) -> Exit:  # fmt: skip
        """Run a command in a group of its own. Cancelled, it asks the group to end, and kills it after `grace_sec`."""
        process = await self._begin(command, stdin, options)
        self.add(process.pid)
        talk = _Talk(process, stdin)
        try:
            await talk.finish()
            return Exit(await process.wait(), talk.out, talk.err)
        finally:
            try:
                if process.returncode is None:
                    await _end(process, grace_sec)
            finally:
                talk.stop()
                _signal(process.pid, True, signal.SIGKILL)  # what it left running in its group
                self.remove(process.pid)

    async def _begin(self, command: Sequence[str | os.PathLike[str]], stdin: bytes | None, options: Any) -> Process:
        # Cancelled half-way, asyncio would kill the process but not its group.
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *command, stdin=DEVNULL if stdin is None else PIPE, stdout=PIPE, stderr=PIPE, start_new_session=True,
                **options,
            )
        )  # fmt: skip
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_bury)
            raise


class _Talk:
    """Reads both pipes at once: one that nobody reads fills up, and then the process waits for ever."""

    def __init__(self, process: Process, stdin: bytes | None) -> None:
        self._process = process
        self._out, self._err = bytearray(), bytearray()
        work = [_read(process.stdout, self._out), _read(process.stderr, self._err)]
        if stdin is not None:
            work.append(_feed(process.stdin, stdin))
        self._tasks = [asyncio.ensure_future(part) for part in work]

    @property
    def out(self) -> bytes:
        return bytes(self._out[-MOST_OUTPUT:])

    @property
    def err(self) -> bytes:
        return bytes(self._err[-MOST_OUTPUT:])

    async def finish(self) -> None:
        """Until the pipes end; what the process left behind may hold them open, but not for long."""
        waiting = set(self._tasks)
        while waiting:
            _, waiting = await asyncio.wait(waiting, timeout=LOOK_SEC)
            if waiting and self._process.returncode is not None:
                _signal(self._process.pid, True, signal.SIGKILL)
                await asyncio.wait(waiting, timeout=LINGER_SEC)
                return

    def stop(self) -> None:
        for task in self._tasks:
            task.cancel()


async def _read(stream: asyncio.StreamReader | None, kept: bytearray) -> None:
    while stream is not None and (part := await stream.read(64 * 1024)):
        kept += part
        if len(kept) > 2 * MOST_OUTPUT:
            del kept[:-MOST_OUTPUT]


async def _feed(stream: asyncio.StreamWriter | None, data: bytes) -> None:
    assert stream is not None
    with contextlib.suppress(ConnectionError):
        stream.write(data)
        await stream.drain()
    stream.close()


async def _end(process: Process, grace_sec: float) -> None:
    _signal(process.pid, True, signal.SIGTERM)
    ending = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait({ending}, timeout=grace_sec)
        if not ending.done():
            _signal(process.pid, True, signal.SIGKILL)
            await asyncio.wait({ending}, timeout=REAP_SEC)
    finally:
        ending.cancel()


def _bury(starting: asyncio.Future[Process]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        _signal(starting.result().pid, True, signal.SIGKILL)


def _leads_group(pid: int) -> bool:
    try:
        return os.getpgid(pid) == pid
    except ProcessLookupError:
        return False


def _signal(pid: int, group: bool, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if group:
            os.killpg(pid, number)
        else:
            os.kill(pid, number)
