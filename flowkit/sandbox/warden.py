"""Started by the plain runtime, before the program: it limits itself, starts the program, and sees its end.

It stays the parent of everything that the program leaves behind, even of what detached itself, and ends all of that
before it goes. It gives its verdict on a pipe. A script of its own, with nothing but the standard library:
`python -I -S warden.py REPORT_FD CHANNEL_FD LIMITS PROGRAM ARGUMENT...`.

SIGTERM is for the program, not for this one; SIGUSR1 (also: its own parent died) ends everything now.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
CHANNEL_FD = 3
HEARD = {signal.SIGCHLD, signal.SIGTERM, signal.SIGUSR1}
PATIENCE_SEC = 10.0


def main() -> None:
    report, channel, limits, command = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4:]
    signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGUSR1), 0, 0, 0)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.getppid() != limits.pop("parent"):
        os._exit(1)  # it died before the signal was asked for
    for fd in (report, channel):
        os.set_inheritable(fd, False)
    pid = os.fork()
    if pid == 0:
        begin(libc, channel, limits, command)
    os.close(channel)
    for fd in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), fd)
    status, usage = watch(pid)
    bury()
    everything = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = {
        "status": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
        "cpu_sec": everything.ru_utime + everything.ru_stime,
        "own_cpu_sec": usage.ru_utime + usage.ru_stime,
        "peak": everything.ru_maxrss * 1024,
        "read": everything.ru_inblock * 512,
        "written": everything.ru_oublock * 512,
    }
    os.write(report, json.dumps(said).encode())


def begin(libc: ctypes.CDLL, channel: int, limits: dict[str, list[int]], command: list[str]) -> NoReturn:
    try:
        libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        os.dup2(channel, CHANNEL_FD)
        os.set_inheritable(CHANNEL_FD, True)  # also where it was this number before
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value[0], value[1]))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
        os.execv(command[0], command)  # noqa: S606 - no shell, on purpose
    except OSError as error:
        os.write(2, f"{command[0]} cannot be started: {error}\n".encode())
    os._exit(127)


def watch(pid: int) -> tuple[int, resource.struct_rusage]:
    """Until the program has ended: its status, and what it used."""
    while True:
        found, status, usage = os.wait4(-1, os.WNOHANG)
        if found == pid:
            return status, usage
        if not found and signal.sigwait(HEARD) == signal.SIGUSR1:
            end(pid, signal.SIGKILL)


def bury() -> None:
    """End everything that is left, until nothing comes back to this process as its child any more."""
    until = time.monotonic() + PATIENCE_SEC
    while time.monotonic() < until:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            for child in file.read().split():
                end(int(child), signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        signal.sigtimedwait({signal.SIGCHLD}, 0.01)


def end(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


if __name__ == "__main__":
    main()
