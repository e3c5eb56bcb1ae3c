"""Rooms for programs, each lent to one at a time: a process namespace with its first process, and a network namespace
for programs that have no network. Making them takes the kernel longer than all other namespaces together, and a fork.

A first process does nothing but reap, may nothing but signal, which reaches nobody beyond its room, and is a user of
its own, so that programs cannot signal or change it in any way. A room is lent again only once its program has ended by
itself, if it had no other process then, and none had ended but by its own parent's hand. Nothing else of a process
namespace can be changed without privileges. Nothing can be changed in a network namespace by a program: its filter
refuses it all sockets but pairs of its own, and there is no interface that is up. A pair can be given a name; so one is
used again only if no socket is left in it.
"""

from __future__ import annotations

import os

from . import kernel
from .entry import FAILED
from .init import end_all, reap
from .kernel import signal
from .order import Place
from .seal import become

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

END = signal.SIGTERM
"""What a first process is sent when it is to end all. Others than its maker may send it, and end what is theirs."""

MOST_KEPT = 16
"""Of those that nobody has. More come to be where more programs run at a time."""

_LONGEST_HEAD = 4096
_REAPED_FAULTS = 8
"""Among the words of `/proc/PID/stat` behind the name: page faults of children that were waited for."""


class Room:
    """`pid`: its first process; `uid`: whom that is, 0 if it is the same as programs are; `processes`, `network`:
    descriptors of the namespaces, the latter -1 where programs make their own. `used`: somebody had it before; `gone`:
    the first process has ended."""

    def __init__(self, pid: int, uid: int, processes: int, network: int) -> None:
        self.pid = pid
        self.uid = uid
        self.processes = processes
        self.network = network
        self.used = False
        self.gone = False
        self._stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._children = os.open(f"/proc/{pid}/task/{pid}/children", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # a kernel that does not list them: the room is used once
            self._children = -1

    def is_as_new(self) -> bool:
        """Whether nobody is in it but its first process, which has never had to reap anybody."""
        if self.gone or not self.uid or self._children < 0:
            return False
        try:
            if os.pread(self._children, 1, 0):
                return False
            words = os.pread(self._stat, _LONGEST_HEAD, 0).rpartition(b")")[2].split()
        except ProcessLookupError:
            return False
        return words[_REAPED_FAULTS] == b"0"

    def end(self) -> None:
        """Have its first process end whoever is left in it, and itself, so that it sums up what they have used."""
        if not self.gone:
            os.kill(self.pid, END)

    def kill(self) -> None:
        """Have the kernel do that, which does not sum up."""
        if not self.gone:
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        for descriptor in (self.processes, self.network, self._stat, self._children):
            if descriptor >= 0:
                os.close(descriptor)


class Rooms:
    """`networks`: whether they come with a network namespace."""

    def __init__(self, *, networks: bool) -> None:
        self._processes = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._network = _own_network() if networks else -1
        self._kept: list[Room] = []

    def lend(self, place: Place) -> Room:
        """One in which nobody is. Raises `OSError`."""
        room = self._kept.pop() if self._kept else self._new(place)
        # Programs as the same user could change what bounds a first process: then it is this one's only.
        if room.uid == place.uid:
            room.uid = 0
        return room

    def give_back(self, room: Room) -> bool:
        """Whether it is kept for the next; else whoever had it has to end it."""
        if len(self._kept) >= MOST_KEPT or not room.is_as_new():
            return False
        room.used = True
        self._kept.append(room)
        return True

    def forget(self, pid: int) -> None:
        """A first process has ended while nobody was in its room."""
        for room in [room for room in self._kept if room.pid == pid]:
            self._kept.remove(room)
            room.close()

    def _new(self, place: Place) -> Room:
        # A process may make a namespace for its next child only while the one for its children is its own.
        kernel.setns(self._processes, kernel.CLONE_NEWPID)
        kernel.unshare(kernel.CLONE_NEWPID)
        network = self._new_network() if self._network >= 0 else -1
        ready, ready_to = os.pipe()
        pid = kernel.fork()
        if pid == 0:
            _be_first(place, ready_to)
        os.close(ready_to)
        begun = os.read(ready, 1)
        os.close(ready)
        if not begun:
            raise OSError("the first process of a sandbox has ended")
        # Not by the process's own number: it is not to be looked into.
        processes = os.open("/proc/self/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC)
        return Room(pid, place.keeper if place.uid else 0, processes, network)

    def _new_network(self) -> int:
        kernel.unshare(kernel.CLONE_NEWNET)
        network = _own_network()
        kernel.setns(self._network, kernel.CLONE_NEWNET)
        return network


def enter_network(network: int) -> None:
    """Be in this one, or in a new one if something is left there. Raises `OSError`."""
    if network >= 0:
        kernel.setns(network, kernel.CLONE_NEWNET)
        if _is_empty():
            return
    kernel.unshare(kernel.CLONE_NEWNET)


def _be_first(place: Place, ready: int) -> NoReturn:
    """Reap whoever has lost its parent, and nothing else, until it is told to end all. What it has reaped is in its
    sums."""
    try:
        kernel.close_but((ready,))
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD, END))
        kernel.bound_capabilities()
        if place.uid:
            kernel.keep_capabilities()
            become(place.keeper)
            kernel.only_signal()
        else:
            kernel.drop_capabilities()  # it is who programs are
        kernel.no_new_privileges()
        kernel.set_dumpable(False)
        kernel.die_with_parent(signal.SIGKILL)  # not earlier: a change of user takes it back
        os.write(ready, b"1")
        os.close(ready)
        while signal.sigwait((signal.SIGCHLD, END)) != END:
            reap()
        end_all()
    finally:
        os._exit(FAILED)


def _own_network() -> int:
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _is_empty() -> bool:
    """Whether no socket is left. All that a program can have are Unix sockets; the first line is a heading."""
    descriptor = os.open("/proc/self/net/unix", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _LONGEST_HEAD).count(b"\n") <= 1
    finally:
        os.close(descriptor)
