"""The first process of a sandbox for one program: starts it, reaps, counts, reports, ends all.

Nothing outlives it: it ends when the program does, when it is told to, and when whoever started it has gone; and with
it the kernel ends whatever else there is in its namespace, or it does so itself where it has none.
"""

from __future__ import annotations

import os
import resource
import select
from _socket import socket

from . import kernel
from .counters import Counters
from .entry import FAILED, Entry, Report
from .kernel import signal
from .order import Place, tell
from .seal import become

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

TERMINATE = b"t"
KILL = b"k"
END = signal.SIGUSR1
"""Ends a program that has no namespace of its own, and all that it has started: who kills this process leaves them."""

_KILL_ROUND_SEC = 0.05
_LONGEST_FAILURE = 1000


class Init:
    """`start` gives in the program's process what it has yet to do, and comes back in no other."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._control = socket(fileno=place.control)
        self._program = 0
        self._counters = Counters()
        self._before = self._counters.read()

    def start(self) -> Callable[[], None]:
        """Raises nothing: what goes wrong is reported, and ends this process."""
        try:
            woken = listen_for_children()
            if not self._place.root:
                kernel.adopt_orphans()
                # It ends all that it has adopted before it ends itself: when its parent has gone, `control` tells it.
                kernel.die_with_parent(0)
                signal.signal(END, lambda *_: None)
            began, beginning = os.pipe()
            kernel.set_dumpable(False)
            self._program = kernel.fork()
        except OSError as error:
            self._give_up("place", error)
        if self._program == 0:
            self._control.detach()
            return Entry(self._place, Report(beginning)).start()
        for descriptor in (beginning, self._place.line, *self._place.doors):
            os.close(descriptor)
        self._watch(began, woken)

    # ---- in the first process

    def _watch(self, began: int, woken: int) -> NoReturn:
        self._lower()
        failure = _read_all(began)
        if failure:
            tell(self._control, "failed", failure)
            os._exit(0)
        tell(self._control, "began")
        status = self._until_program_ends(woken)
        self._end_the_rest()
        self._report(status)
        os._exit(0)

    def _lower(self) -> None:
        if self._place.root:
            if self._place.uid:
                become(self._place.uid)
            kernel.drop_capabilities()
            kernel.set_dumpable(False)
            kernel.die_with_parent(signal.SIGKILL)

    def _until_program_ends(self, woken: int) -> int | None:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(woken, select.POLLIN)
        while True:
            status = self._reap()
            if status is not None:
                return status
            for descriptor, _ in poll.poll():
                if descriptor == woken:
                    if END in os.read(woken, 4096):
                        return None
                elif self._told_to_end():
                    return None

    def _told_to_end(self) -> bool:
        try:
            word = self._control.recv(16)
        except ConnectionResetError:
            return True
        if word == TERMINATE:
            os.kill(self._program, signal.SIGTERM)
        return word in (b"", KILL)

    def _reap(self) -> int | None:
        """The program's status, if it is among those that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return None
            if pid == 0:
                return None
            if pid == self._program:
                return status

    def _end_the_rest(self) -> None:
        """All that is left, so that what it used is counted before this process ends. Who forks meanwhile is found in
        the next round; in a namespace, one is enough."""
        if self._place.root:
            end_all()
            return
        while True:
            self._kill_all()
            if reap():
                return
            select.select([], [], [], _KILL_ROUND_SEC / 10)

    def _kill_all(self) -> None:
        # Who is stopped does not fork, so that what there is to be killed becomes fewer.
        stopped: set[int] = set()
        while found := set(descendants(os.getpid())) - stopped:
            for pid in found:
                _send(pid, signal.SIGSTOP)
            stopped |= found
        for pid in stopped:
            _send(pid, signal.SIGKILL)

    def _report(self, status: int | None) -> None:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = used.ru_utime + used.ru_stime
        tell(self._control, "ended", ending(status, cpu, used.ru_maxrss, *self._counters.since(self._before)))

    def _give_up(self, stage: str, error: OSError) -> NoReturn:
        tell(self._control, "failed", f"{stage} {error}")
        os._exit(FAILED)


def listen_for_children() -> int:
    """A descriptor that can be read when a child has ended."""
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    return woken


def descendants(pid: int) -> list[int]:
    """All processes that this one has started, and they, and so on, as /proc shows them now."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            continue  # it has ended meanwhile
        children.setdefault(parent, []).append(int(name))
    found = list(children.get(pid, ()))
    for one in found:
        found += children.get(one, ())
    return found


def end_all() -> None:
    """End all processes of the namespace of which this one is the first, and wait until they are reaped."""
    while True:
        _send(-1, signal.SIGKILL)
        if reap():
            return
        select.select([], [], [], _KILL_ROUND_SEC / 10)


def reap() -> bool:
    """Whether there are no children left once those have been reaped that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue
    except ChildProcessError:
        return True
    return False


def ending(status: int | None, cpu_sec: float, peak_kib: int, read: int, written: int) -> str:
    """How the parent is told of a program's end; without a status, who was told to end it did."""
    return f"{'' if status is None else status},{cpu_sec},{peak_kib * 1024},{read},{written}"


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _read_all(descriptor: int) -> str:
    found = b""
    while part := os.read(descriptor, _LONGEST_FAILURE):
        found += part
    os.close(descriptor)
    return found.decode(errors="replace")
