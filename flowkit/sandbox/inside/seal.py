"""The last steps of a program's process before the program: whom it is, what it may use, what it may ask of the kernel.

The order matters: what needs privileges comes first, and the filter of system calls last.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal

from . import kernel
from .landlock import restrict
from .order import Ends, Order

INSIDE_ID = 1000
"""Whom a program is in a sandbox that has users of its own."""

CHANNEL_FD = 3
_FIRST_SPARE_FD = 64


def seal(order: Order, ends: Ends, filter_code: bytes, report: int) -> int:
    """Make this process the program's. What could still be reported goes to `report`, which is returned under the
    number that it has afterwards: it is the only descriptor left beside those that the program is given."""
    _join_cgroups(ends.cgroups)
    os.setsid()
    report = _descriptors(ends, report)
    if order.root:
        kernel.unshare(kernel.CLONE_NEWCGROUP)  # only now is the program's cgroup the root of what it sees
    if order.uid:
        become(order.uid)
    kernel.set_dumpable(True)  # what is a process's own under /proc is its own again
    if order.root:
        _own_user_namespace()
    for number, soft, hard in order.rlimits:
        resource.setrlimit(number, (soft, hard))
    kernel.drop_capabilities()
    kernel.no_new_privileges()
    kernel.die_with_parent(signal.SIGKILL)  # not earlier: a change of user takes it back
    if order.landlock is not None:
        restrict(order.landlock)
    kernel.filter_syscalls(filter_code)
    return report


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


def _join_cgroups(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.write(descriptor, b"0")  # whoever writes it


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


def _descriptors(ends: Ends, report: int) -> int:
    # Out of the way first: any of them may have a number that another is to get.
    channel, stdout, stderr, report = map(_above, (ends.channel, ends.stdout, ends.stderr, report))
    nothing = os.open("/dev/null", os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.dup2(channel, CHANNEL_FD)
    kept = CHANNEL_FD + 1
    os.dup2(report, kept, inheritable=False)
    for number in [int(name) for name in os.listdir("/proc/self/fd")]:
        if number > kept:
            _close(number)
    return kept


def _above(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_SPARE_FD)


def _close(number: int) -> None:
    try:
        os.close(number)
    except OSError:
        return  # the listing's own
