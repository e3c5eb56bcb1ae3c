"""Which system calls a program may not make, and the filter that says so to the kernel.

It is a list of what is refused, with everything that is newer than the list unknown to the program: a list of what is
allowed breaks with every release of a language's runtime, and is then widened in a hurry. What is refused reaches code
of the kernel that a program has no business with, and where most ways out of sandboxes have been found.
"""

from __future__ import annotations

import errno
import functools
import platform
from collections.abc import Callable
from typing import Final

from flowkit.sandbox.bpf import Assembler
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.syscalls import MACHINES, NEWEST, Machine

AF_UNIX: Final = 1
AF_INET: Final = 2
AF_INET6: Final = 10
SOCK_STREAM: Final = 1

_SOCKET_TYPE: Final = 0xF  # the rest are flags such as SOCK_CLOEXEC
_X32: Final = 0x40000000

REFUSED: Final[dict[str, str]] = {
    "ptrace": "reads and changes other processes",
    "process_vm_readv": "reads other processes",
    "process_vm_writev": "changes other processes",
    "process_madvise": "changes other processes",
    "pidfd_getfd": "takes descriptors out of other processes",
    "kcmp": "tells what other processes share",
    "mount": "changes what the root is made of",
    "umount2": "changes what the root is made of",
    "pivot_root": "changes what the root is made of",
    "chroot": "is an old way out of a root",
    "move_mount": "changes what the root is made of",
    "open_tree": "changes what the root is made of",
    "open_tree_attr": "changes what the root is made of",
    "fsopen": "changes what the root is made of",
    "fsconfig": "changes what the root is made of",
    "fsmount": "changes what the root is made of",
    "fspick": "changes what the root is made of",
    "mount_setattr": "changes what the root is made of",
    "unshare": "makes namespaces, in which a program would be root",
    "setns": "enters namespaces of others",
    "bpf": "puts code into the kernel",
    "perf_event_open": "watches the kernel, and others",
    "userfaultfd": "holds the kernel up in the middle of its work",
    "io_uring_setup": "makes system calls that no filter sees",
    "io_uring_enter": "makes system calls that no filter sees",
    "io_uring_register": "makes system calls that no filter sees",
    "keyctl": "keyrings are not confined to a namespace",
    "add_key": "keyrings are not confined to a namespace",
    "request_key": "starts a program outside of the sandbox",
    "kexec_load": "replaces the kernel",
    "kexec_file_load": "replaces the kernel",
    "init_module": "puts code into the kernel",
    "finit_module": "puts code into the kernel",
    "delete_module": "takes code out of the kernel",
    "create_module": "puts code into the kernel",
    "query_module": "lists the kernel's modules",
    "get_kernel_syms": "tells where the kernel's code lies",
    "reboot": "ends the machine",
    "swapon": "changes the machine's memory",
    "swapoff": "changes the machine's memory",
    "acct": "writes a file about all processes",
    "settimeofday": "sets the machine's clock",
    "clock_settime": "sets the machine's clock",
    "adjtimex": "sets the machine's clock",
    "clock_adjtime": "sets the machine's clock",
    "sethostname": "renames the machine",
    "setdomainname": "renames the machine",
    "iopl": "reaches the machine's ports",
    "ioperm": "reaches the machine's ports",
    "modify_ldt": "is rarely used and often broken",
    "quotactl": "concerns whole file systems",
    "quotactl_fd": "concerns whole file systems",
    "nfsservctl": "concerns whole file systems",
    "lookup_dcookie": "tells paths of others",
    "syslog": "reads the kernel's log",
    "vhangup": "hangs a terminal up",
    "name_to_handle_at": "is half of a way around a root",
    "open_by_handle_at": "opens files around a root",
    "fanotify_init": "watches whole file systems",
    "fanotify_mark": "watches whole file systems",
    "migrate_pages": "moves other processes' memory",
    "move_pages": "moves other processes' memory",
    "memfd_secret": "hides memory from whoever accounts for it",
    "uselib": "is rarely used and often broken",
    "ustat": "is rarely used and often broken",
    "sysfs": "is rarely used and often broken",
    "_sysctl": "is rarely used and often broken",
    "seccomp": "is the filter's own way in",
}
"""What no program may call, and why. It is answered with EPERM."""

SHARED_IPC: Final[dict[str, str]] = {
    "shmget": "memory that outlives its makers, and that all of a user's processes see",
    "semget": "semaphores that outlive their makers, and that all of a user's processes see",
    "msgget": "queues that outlive their makers, and that all of a user's processes see",
    "mq_open": "queues that outlive their makers, and that all of a user's processes see",
}
"""Refused as well where a program has no IPC namespace of its own."""

UNKNOWN: Final[dict[str, str]] = {
    "clone3": "its flags lie in memory, where no filter sees them; libc then takes clone",
}
"""Answered as if the kernel had none of it, so that whoever asks falls back."""

_NEW_NAMESPACES: Final = 0x7E020000  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET
_BESIDE: Final = 0x00008000  # CLONE_PARENT: a child of the program's parent, which counts what it has started
_PERSONALITIES: Final = (0x0, 0xFFFFFFFF)  # the usual one, and the question which it is
_IOCTLS: Final = (0x5412, 0x541C, 0x5423)  # TIOCSTI and TIOCLINUX type into a terminal; TIOCSETD loads drivers

_ALLOW: Final = 0x7FFF0000
_KILL_PROCESS: Final = 0x80000000
_ERRNO: Final = 0x00050000
_FEW: Final = 4
"""Calls that are told apart one after the other."""

_DENIED: Final = _ERRNO | errno.EPERM
_NOT_THERE: Final = _ERRNO | errno.ENOSYS

# struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6]. Both machines are little-endian.
_NR: Final = 0
_ARCH: Final = 4


def _low(argument: int) -> int:
    return 16 + 8 * argument


def machine_name() -> str:
    """What this machine's system calls are called: `x86_64`, `aarch64`, or one that no filter is written for."""
    return {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())


@functools.cache
def build(*, internet: bool = False, own_ipc: bool = True, machine: str = "") -> bytes:
    """The filter as an array of `struct sock_filter`. `internet`: whether streams to IP addresses may be opened;
    `own_ipc`: whether there is an IPC namespace. Raises `CannotStart` for a machine that it is not written for."""
    name = machine or machine_name()
    if name not in MACHINES:
        raise CannotStart(
            "E_SANDBOX_MACHINE", f"there is no filter of system calls for {name}", f"use {' or '.join(MACHINES)}"
        )
    return _Filter(MACHINES[name]).build(internet=internet, own_ipc=own_ipc)


class _Filter:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._code = Assembler()

    def build(self, *, internet: bool, own_ipc: bool) -> bytes:
        code = self._code
        rules: dict[str, Callable[[], None]] = {
            "clone": self._ordinary_clone,
            "personality": self._usual_personality,
            "ioctl": self._harmless_ioctl,
            "socketpair": self._unix_only,
        }
        answers = {name: "not there" for name in UNKNOWN}
        answers |= {name: "denied" for name in (*REFUSED, *(() if own_ipc else SHARED_IPC))}
        if internet:
            rules["socket"] = self._streams
        else:
            answers["socket"] = "denied"
        places = {number: label for name, label in (answers | {name: name for name in rules}).items()
                  if (number := self._machine.number(name)) is not None}  # fmt: skip
        self._only_this_machine()
        self._tell_apart(sorted(places), places)
        for label, answer in (("denied", _DENIED), ("not there", _NOT_THERE)):
            code.label(label)
            code.answer(answer)
        for name, rule in rules.items():
            code.label(name)
            rule()
        return code.assemble()

    def _tell_apart(self, numbers: list[int], places: dict[int, str]) -> None:
        """By halves: when a filter is installed, the kernel asks it about each call that there is."""
        code = self._code
        if len(numbers) > _FEW:
            middle = numbers[len(numbers) // 2]
            code.if_at_least(middle, then=f"from {middle}")
            self._tell_apart([number for number in numbers if number < middle], places)
            code.label(f"from {middle}")
            self._tell_apart([number for number in numbers if number >= middle], places)
            return
        for number in numbers:
            code.if_equal(number, then=places[number])
        code.answer(_ALLOW)

    def _only_this_machine(self) -> None:
        code = self._code
        code.load(_ARCH)
        code.if_equal(self._machine.audit_arch, then="this machine")
        code.answer(_KILL_PROCESS)
        code.label("this machine")
        code.load(_NR)
        # Later calls, and those of x32, whose numbers have a high bit set, or lie above 511.
        code.if_at_least(NEWEST + 1, otherwise="known")
        code.answer(_NOT_THERE)
        code.label("known")

    def _ordinary_clone(self) -> None:
        code = self._code
        code.load(_low(0))
        code.if_any_bit(_NEW_NAMESPACES | _BESIDE, otherwise="plain clone")
        code.answer(_DENIED)
        code.label("plain clone")
        code.answer(_ALLOW)

    def _usual_personality(self) -> None:
        self._code.load(_low(0))
        self._among(_PERSONALITIES, "personality", found=_ALLOW, other=_DENIED)

    def _harmless_ioctl(self) -> None:
        self._code.load(_low(1))  # the kernel looks at these 32 bits only
        self._among(_IOCTLS, "ioctl", found=_DENIED, other=_ALLOW)

    def _unix_only(self) -> None:
        self._code.load(_low(0))
        self._among((AF_UNIX,), "socketpair", found=_ALLOW, other=_DENIED)

    def _streams(self) -> None:
        code = self._code
        code.load(_low(1))
        code.mask(_SOCKET_TYPE)
        code.if_equal(SOCK_STREAM, then="a stream")
        code.answer(_DENIED)
        code.label("a stream")
        code.load(_low(0))
        self._among((AF_INET, AF_INET6), "socket", found=_ALLOW, other=_DENIED)

    def _among(self, values: tuple[int, ...], what: str, *, found: int, other: int) -> None:
        code = self._code
        for value in values:
            code.if_equal(value, then=f"{what} among")
        code.answer(other)
        code.label(f"{what} among")
        code.answer(found)
