"""Network namespaces for programs that have no network: lent to one place at a time, since making one takes the kernel
longer than all the others together.

Nothing can be changed in one by a program: it has no privileges there, its filter refuses it all sockets but pairs of
its own, and there is no interface that is up. A pair can be given a name; so one is lent again only once the process
namespace of its borrower has ended, and only if no socket is left in it.
"""

from __future__ import annotations

import os

from . import kernel

MOST_KEPT = 16
"""Of those that nobody has. More come to be where more programs run at a time."""

_LONGEST_HEAD = 4096


class Networks:
    """`lend` before a place is forked, `lent` after it, `returned` when that process has ended and was reaped."""

    def __init__(self) -> None:
        self._home = _own()
        self._kept: list[int] = []
        self._lent: dict[int, int] = {}

    def lend(self) -> int:
        """Be in one in which nobody and nothing is. Raises `OSError`."""
        while self._kept:
            network = self._kept.pop()
            kernel.setns(network, kernel.CLONE_NEWNET)
            if _is_empty():
                return network
            os.close(network)
        kernel.unshare(kernel.CLONE_NEWNET)
        return _own()

    def lent(self, network: int, pid: int) -> None:
        """Be back home; the network is that of this process's children."""
        kernel.setns(self._home, kernel.CLONE_NEWNET)
        self._lent[pid] = network

    def returned(self, pid: int) -> None:
        network = self._lent.pop(pid, -1)
        if network < 0:
            return
        if len(self._kept) < MOST_KEPT:
            self._kept.append(network)
        else:
            os.close(network)

    def close(self) -> None:
        """In a fork: it is not to have any of them."""
        for descriptor in (self._home, *self._kept, *self._lent.values()):
            os.close(descriptor)


def _own() -> int:
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _is_empty() -> bool:
    """Whether no socket is left. All that a program can have are Unix sockets; the first line is a heading."""
    descriptor = os.open("/proc/self/net/unix", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _LONGEST_HEAD).count(b"\n") <= 1
    finally:
        os.close(descriptor)
