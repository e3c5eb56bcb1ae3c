"""From a program to an order: what is checked before anything is made, and what its limits are to the kernel."""

from __future__ import annotations

import math
import os
import resource
from pathlib import PurePosixPath
from typing import Final

from flowkit.sandbox.cgroups import MIB
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.inside.entry import PROXY_PORT, WORK
from flowkit.sandbox.inside.order import Order
from flowkit.sandbox.runtime import Limits, Program

_PLACES_OF_OTHERS: Final = ("/proc", "/sys", "/dev", "/run/flowkit", WORK)
_TOO_MUCH: Final = ("/", "/etc", "/home", "/root", "/run", "/tmp", "/var")  # noqa: S108  not as a place to write to
_OPEN_FILES: Final = 1024
_LOCKED_BYTES: Final = 8 * MIB
_SHARED_BYTES: Final = 4096 * MIB
_NO_CORE: Final = 1  # with 0 the kernel would still start a core handler that the machine has; it is not told of 1


def check(program: Program) -> None:
    """Raises `CannotStart` for what no sandbox can give."""
    if not program.argv or not os.path.isabs(program.argv[0]):
        raise CannotStart(
            "E_PROGRAM", f"argv[0] is no absolute path: {program.argv[:1]}", "name the interpreter's path"
        )
    for path in program.files:
        if not path or os.path.isabs(path) or ".." in PurePosixPath(path).parts:
            raise CannotStart("E_FILES", f"{path!r} does not lie in the working directory", "give a relative path")
    for path in program.readable:
        _check_readable(path)
    limits = program.limits
    for name in ("memory_mb", "cpu", "pids", "disk_mb", "wall_sec", "cpu_sec"):
        if getattr(limits, name) <= 0:
            raise CannotStart("E_LIMITS", f"{name} is {getattr(limits, name)}", "give more than 0")


def _check_readable(path: str) -> None:
    if os.path.normpath(path) != path or not os.path.isabs(path):
        raise CannotStart("E_READABLE", f"{path!r} is no absolute path", "give it without `..` and a slash at its end")
    if path in _TOO_MUCH or any(path == place or path.startswith(f"{place}/") for place in _PLACES_OF_OTHERS):
        raise CannotStart("E_READABLE", f"{path} may not be given to a program", "name the folders that it needs")
    if not os.path.exists(path):
        raise CannotStart("E_READABLE", f"{path} is not there", "see that the program's environment was built")


def order_for(program: Program, *, counted: frozenset[str], beside: int = 0) -> Order:
    """`counted`: what a control group bounds already, by its controller's name; limits of the system bound the rest.
    `beside`: processes that are counted with the program's, where it has no users of its own."""
    own_tmp = not any(path.startswith("/tmp/") for path in program.readable)  # noqa: S108  the sandbox's
    env = dict(program.env)
    if not own_tmp:
        env.setdefault("TMPDIR", WORK)
    if program.network:
        env.update(_proxy())
    return Order(
        argv=list(program.argv),
        env=env,
        rlimits=rlimits(program.limits, counted, beside),
        network=bool(program.network),
        disk_bytes=program.limits.disk_mb * MIB,
        own_tmp=own_tmp,
    )


def rlimits(limits: Limits, counted: frozenset[str], beside: int) -> list[tuple[int, int, int]]:
    cpu = math.ceil(limits.cpu_sec)
    found = [
        (resource.RLIMIT_CPU, cpu, cpu + 1),
        *((number, limit, limit) for number, limit in (
            (resource.RLIMIT_CORE, _NO_CORE),
            (resource.RLIMIT_FSIZE, limits.disk_mb * MIB),
            (resource.RLIMIT_NOFILE, _most(resource.RLIMIT_NOFILE, _OPEN_FILES)),
            (resource.RLIMIT_MEMLOCK, _most(resource.RLIMIT_MEMLOCK, _LOCKED_BYTES)),
        )),
    ]  # fmt: skip
    if "memory" not in counted:
        # What is private is bounded as asked; what is merely reserved, as runtimes like to do, has room besides.
        found.append((resource.RLIMIT_DATA, limits.memory_mb * MIB, limits.memory_mb * MIB))
        room = limits.memory_mb * MIB + _SHARED_BYTES
        found.append((resource.RLIMIT_AS, room, room))
    if "pids" not in counted:
        most = beside + limits.pids
        found.append((resource.RLIMIT_NPROC, most, most))
    return found


def _proxy() -> dict[str, str]:
    address = f"http://127.0.0.1:{PROXY_PORT}"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    return {
        **dict.fromkeys((*names, *(name.lower() for name in names)), address),
        "NO_PROXY": "",
        "no_proxy": "",
    }


def _most(number: int, wanted: int) -> int:
    hard = resource.getrlimit(number)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
