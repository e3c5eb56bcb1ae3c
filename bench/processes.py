"""The benchmark's processes as their parent sees them: told by lines of JSON, and never waited for without end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import msgspec

ROOT = Path(__file__).resolve().parents[1]
LINE_BYTES = 256 * 1024 * 1024
START_SEC = 60.0
STOP_SEC = 20.0
GRACE_SEC = 15.0
"""How much longer than a command's own timeout its answer may take."""


class BenchFailed(RuntimeError):
    """A process failed, answered an error, or hangs; the message says which and why."""


def exit_code_of(measuring: Coroutine[Any, Any, None]) -> int:
    """Measure; 1, and why on standard error, where that failed."""
    try:
        asyncio.run(measuring)
    except BenchFailed as error:
        print(f"the benchmark failed: {error}", file=sys.stderr)
        return 1
    return 0


class Child:
    """One `bench.child`. `role` names it."""

    def __init__(self, role: str, process: asyncio.subprocess.Process) -> None:
        self.role = role
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(cls, role: str, settings: dict[str, str]) -> Self:
        """Start it and wait until it is ready. Raises `BenchFailed`."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.child", role, msgspec.json.encode(settings).decode(),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=LINE_BYTES, cwd=ROOT,
        )  # fmt: skip
        child = cls(role, process)
        try:
            await child._answer(START_SEC, "start")
        except BaseException:
            child.kill()
            raise
        return child

    async def do(self, what: str, *, timeout: float = 60.0, **arguments: Any) -> Any:
        """Its answer to a command. Raises `BenchFailed` for an error, its end, and no answer in time."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode({"do": what, "timeout": timeout, **arguments}) + b"\n")
        await self._process.stdin.drain()
        return await self._answer(timeout + GRACE_SEC, what)

    async def stop(self) -> None:
        """End it; by force, and loudly, if it does not end by itself."""
        if self._process.returncode is not None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_SEC)
        except TimeoutError:
            await self._show_stacks()
            self.kill()
            raise BenchFailed(f"{self.role} (pid {self.pid}) did not stop within {STOP_SEC:g} s") from None

    def kill(self) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _answer(self, seconds: float, what: str) -> Any:
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), seconds)
        except TimeoutError:
            await self._show_stacks()
            raise BenchFailed(f"{self.role} hangs: no answer to {what!r} in {seconds:g} s") from None
        if not line:
            code = await self._process.wait()
            raise BenchFailed(f"{self.role} ended with code {code} at {what!r}")
        answer = msgspec.json.decode(line)
        if "error" in answer:
            raise BenchFailed(f"{self.role} failed at {what!r}:\n{answer['error']}")
        return answer["ok"]

    async def _show_stacks(self) -> None:
        """Where its threads stand, on standard error."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGUSR1)
        await asyncio.sleep(1.0)
