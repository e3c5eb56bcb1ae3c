"""Calls of the kernel that Python's standard library does not have."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from _socket import AF_INET, SOCK_DGRAM, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from typing import Any
else:
    import _signal as signal  # what the other is made of, without the enums, which take longer than all the rest

__all__ = ["signal"]  # named here for the others; they are given the rest by this module's name

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_BIND = 4096

LANDLOCK_CREATE_RULESET = 444
LANDLOCK_ADD_RULE = 445
LANDLOCK_RESTRICT_SELF = 446

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_KEEPCAPS = 8
_PR_SET_SECCOMP = 22
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_CLOSE_RANGE = 436
_HIGHEST = 0xFFFFFFFF
_CAPABILITIES = 64

_OWN_CAPABILITIES = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
_NO_CAPABILITIES = bytes(24)
_MAY_SIGNAL = struct.pack("=6I", 1 << 5, 1 << 5, 0, 0, 0, 0)  # CAP_KILL: effective, permitted, inheritable

_libc = ctypes.CDLL(None, use_errno=True)
_python = ctypes.PyDLL(None, use_errno=True)  # this one keeps the interpreter's lock, so that the fork has it
_python.fork.restype = ctypes.c_int
_libc.syscall.restype = ctypes.c_long
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
for _name in ("unshare", "setns", "mount", "capset"):
    getattr(_libc, _name)  # looked up now, and not in every fork


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _long(value: int) -> Any:
    return ctypes.c_ulong(value)


def _prctl(option: int, first: int = 0, second: int = 0) -> int:
    return _check(_libc.prctl(option, first, second, 0, 0))


def syscall(number: int, *args: Any) -> int:
    return _check(_libc.syscall(_long(number), *args))


def fork() -> int:
    """A fork of a process that has one thread. What Python does in a fork besides, for those that had more and for
    what must not be the same in both, takes longer than the fork: whoever goes on to run somebody's code sees to that
    (`script.Site.run`)."""
    return _check(_python.fork())


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags))


def setns(descriptor: int, kind: int) -> None:
    _check(_libc.setns(descriptor, kind))


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    _check(_libc.mount(source.encode(), target.encode(), kind.encode(), _long(flags), options.encode()))


def die_with_parent(signal: int) -> None:
    _prctl(_PR_SET_PDEATHSIG, signal)


def set_dumpable(yes: bool) -> None:
    """Whether others of the same user may read this process's memory, environment and descriptors."""
    _prctl(_PR_SET_DUMPABLE, int(yes))


def adopt_orphans() -> None:
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def no_new_privileges() -> None:
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def filter_syscalls(program: bytes) -> None:
    """Install a filter: an array of `struct sock_filter`. For good, and for all children."""
    code = ctypes.create_string_buffer(program, len(program))
    fprog = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(fprog))


def drop_capabilities() -> None:
    """All capabilities that this process has go, for good."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _check(_libc.capset(_OWN_CAPABILITIES, _NO_CAPABILITIES))


def keep_capabilities() -> None:
    """Those that may be used are kept when the user changes, to be given up afterwards."""
    _prctl(_PR_SET_KEEPCAPS, 1)


def only_signal() -> None:
    """All capabilities that this process has go, for good, but for that to signal whomever it sees."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _check(_libc.capset(_OWN_CAPABILITIES, _MAY_SIGNAL))


def bound_capabilities() -> None:
    """No program that this process becomes can have any either. To be called while it still has them. A new user
    namespace has all of them again, so this comes after it."""
    drop = _libc.prctl
    for number in range(_CAPABILITIES):
        if drop(_PR_CAPBSET_DROP, number, 0, 0, 0) < 0:
            break  # the first that this kernel does not have, or there is no right to drop any, nor a need


def close_from(number: int) -> None:
    """Close this descriptor and all above it."""
    _close_range(number, _HIGHEST)


def close_but(kept: tuple[int, ...]) -> None:
    """Close all descriptors but these, and those below 3."""
    first = 3
    for number in sorted({number for number in kept if number >= first}):
        if number > first:
            _close_range(first, number - 1)
        first = number + 1
    _close_range(first, _HIGHEST)


def _close_range(first: int, last: int) -> None:
    try:
        syscall(_CLOSE_RANGE, ctypes.c_uint(first), ctypes.c_uint(last), ctypes.c_uint(0))
    except OSError:  # a kernel before 5.9
        for open_now in [int(name) for name in os.listdir("/proc/self/fd")]:
            if first <= open_now <= last:
                _close(open_now)


def _close(number: int) -> None:
    try:
        os.close(number)
    except OSError:
        return  # the listing's own


def raise_loopback() -> None:
    """Bring up this network namespace's own `lo`."""
    asker = socket(AF_INET, SOCK_DGRAM)
    try:
        request = struct.pack("16sH22x", b"lo", 0)
        flags = struct.unpack("16sH22x", fcntl.ioctl(asker.fileno(), _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(asker.fileno(), _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | _IFF_UP))
    finally:
        asker.close()
