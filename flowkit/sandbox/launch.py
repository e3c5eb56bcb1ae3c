"""A process in which `inside.main` runs: how it is begun, what it complains of, and the end of it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import Callable, Sequence
from typing import Final

from flowkit.sandbox.errors import CannotStart

ENVIRONMENT: Final = {"LC_ALL": "C.UTF-8"}
"""All that it is given: what is in a process's environment could be read inside, however it is told to clear it."""

_END_SEC: Final = 10.0
_LONGEST_COMPLAINT: Final = 2000


class Launch:
    """One such process. `begin` once, `gone` in the end, whatever came of it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._complaints = -1
        self._said = ""

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def has_ended(self, within: float) -> bool:
        """Whether the process ends in this time, in seconds."""
        return self._process is None or await _ended(self._process, within)

    def begin(self, command: Callable[[int], list[str]], descriptors: Sequence[int] = ()) -> socket.socket:
        """Where orders go. `command` is given the number of the other end, which is passed on like `descriptors`.
        Raises `CannotStart`."""
        orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._complaints = os.memfd_create("complaints")
        argv = command(theirs.fileno())
        try:
            self._process = subprocess.Popen(
                argv, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=self._complaints, stderr=self._complaints,
                pass_fds=[theirs.fileno(), *descriptors], start_new_session=True, cwd="/",
            )  # fmt: skip
        except OSError as error:
            orders.close()
            raise CannotStart("E_SANDBOX_START", f"{argv[0]} cannot be run: {error}", "flowkit doctor") from None
        finally:
            theirs.close()
        return orders

    def explain(self, error: CannotStart) -> CannotStart:
        """The same, with what the process itself had to say. To be asked once it has gone."""
        return error.because(self._said) if self._said else error

    async def gone(self) -> None:
        """Until the process has ended; it is ended if it does not by itself."""
        process, self._process = self._process, None
        if process is not None and not await _ended(process, _END_SEC):
            process.kill()
            await _ended(process, _END_SEC)
        if self._complaints >= 0:
            self._said = os.pread(self._complaints, _LONGEST_COMPLAINT, 0).decode(errors="replace").strip()
            os.close(self._complaints)
            self._complaints = -1


def settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _ended(process: subprocess.Popen[bytes], within: float) -> bool:
    if process.poll() is not None:
        return True
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, settle, ended)
    try:
        async with asyncio.timeout(within):
            await ended
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.poll() is not None
