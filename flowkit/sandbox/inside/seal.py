"""The last steps of a program's process before the program: whom it is, what it may use, what it may ask of the kernel.

What needs privileges comes first, and the filter of system calls last.
"""

from __future__ import annotations

import fcntl
import os
import resource

from . import kernel
from .kernel import signal
from .landlock import restrict
from .order import Ends, Order, Place

INSIDE_ID = 1000
"""Whom a program is in a sandbox that has users of its own."""

CHANNEL_FD = 3
_ORDER_FD = CHANNEL_FD + 1
_REPORT_FD = CHANNEL_FD + 2
_FIRST_SPARE_FD = 64


def join(place: Place) -> None:
    """Be counted with the program's groups, in a session of one's own. What the program is does not have to be known
    yet."""
    for door in place.doors:
        os.write(door, b"0")  # whoever writes it
    os.setsid()
    if place.root:
        kernel.unshare(kernel.CLONE_NEWCGROUP)  # only now is the program's group the root of what it sees


def settle(place: Place) -> None:
    """Be whom the program is to be."""
    if place.uid:
        become(place.uid)
    kernel.set_dumpable(True)  # what is a process's own under /proc is its own again
    if place.root:
        _own_user_namespace()


def take(ends: Ends, report: int) -> tuple[int, int]:
    """Have those descriptors that the program is to have, and no others but that of the order and `report`, which are
    returned under the numbers that they then have."""
    # Out of the way first: any of them may have a number that another is to get.
    channel, stdout, stderr, order, report = [_above(number) for number in (*ends.all(), report)]
    nothing = os.open("/dev/null", os.O_RDONLY)
    for number, source in enumerate((nothing, stdout, stderr, channel)):
        os.dup2(source, number)
    os.dup2(order, _ORDER_FD, inheritable=False)
    os.dup2(report, _REPORT_FD, inheritable=False)
    kernel.close_from(_REPORT_FD + 1)
    return _ORDER_FD, _REPORT_FD


def seal(order: Order, filter_code: bytes) -> None:
    """Give up, for good, all that the program is not to have."""
    for number, soft, hard in order.rlimits:
        resource.setrlimit(number, (soft, hard))
    kernel.bound_capabilities()
    kernel.drop_capabilities()
    kernel.no_new_privileges()
    kernel.die_with_parent(signal.SIGKILL)  # not earlier: a change of user takes it back
    if order.landlock is not None:
        restrict(order.landlock)
    kernel.filter_syscalls(filter_code)


def become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def restore_signals(*, python: bool) -> None:
    """As a program finds them that a shell has started; `python`: as Python changes them for itself."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler if python else signal.SIG_DFL)
    if not python:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def _own_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{INSIDE_ID} {uid} 1")
    _write("/proc/self/gid_map", f"{INSIDE_ID} {gid} 1")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _above(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_SPARE_FD)
