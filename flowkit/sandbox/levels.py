"""What this machine really gives to sandboxes: looked at once, when a worker starts, and tried, not guessed.

A level is given if a program was started at it and ended well. What is not given is not replaced by less: whoever asks
for it is told why.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from flowkit.sandbox.box import own_interpreter, own_python
from flowkit.sandbox.bubblewrap import BubblewrapRuntime
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.hierarchies import Controller, Missing, find
from flowkit.sandbox.inside.landlock import abi
from flowkit.sandbox.landlock import SCOPES_ABI, LandlockRuntime, barrier
from flowkit.sandbox.runtime import Level, Limits, Program, Runtime, Verdict
from flowkit.sandbox.seccomp import machine_name
from flowkit.sandbox.syscalls import MACHINES

_TRIAL: Final = Limits(memory_mb=64, pids=8, disk_mb=1, wall_sec=30.0, cpu_sec=10.0)

_INSTEAD: Final = {
    "memory": "bounded per process, by limits of the system; what is shared has 4 GiB more",
    "pids": "bounded by limits of the system, per program",
    "cpu": "not bounded: a program may use all cores",
    "cpuacct": "bounded per process, by limits of the system",
}
PYTHON_AT_L2: Final = "python_at_l2"
HINTS: Final = {
    Level.L3: "install bubblewrap and allow user namespaces, or run the worker as root",
    Level.L2: "take a kernel from 5.13 on with Landlock among its security modules (`lsm=landlock,...`)",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that levels stand on: whether it is there, and what was seen."""

    name: str
    there: bool
    says: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was found. `refused`: why a level is not given, for each that is not."""

    facts: tuple[Fact, ...]
    refused: Mapping[Level, str] = field(default_factory=dict)

    @property
    def highest(self) -> Level:
        return max(level for level in Level if level not in self.refused)

    def require(self, level: Level) -> None:
        """Raises `CannotStart` where this level is not given."""
        if level in self.refused:
            raise CannotStart(
                "E_SANDBOX_LEVEL", f"this machine does not give {level.name}: {self.refused[level]}", HINTS[level]
            )


async def detect() -> Report:
    """Look at this machine, and start a program at each level."""
    refused = {}
    for runtime in (BubblewrapRuntime(), LandlockRuntime()):
        if why := await _try(runtime):
            refused[runtime.level] = why
    return Report(facts(), refused)


def facts() -> tuple[Fact, ...]:
    """What can be seen without starting anything."""
    looked = (_user(), _filters(), _landlock(), _python_at_l2(), _namespaces(), _bubblewrap())
    return (*looked, *map(_control_group, find()))


async def _try(runtime: Runtime) -> str:
    program = shutil.which("true") or "/bin/true"
    try:
        running = await runtime.start(Program((program,), limits=_TRIAL))
        ending = await running.wait()
        running.channel.close()
        await running.stdout.read()
        await running.stderr.read()
    except CannotStart as error:
        return error.message
    finally:
        await runtime.close()
    if ending.verdict is Verdict.EXITED and ending.status == 0:
        return ""
    return f"{program} ended with {ending.verdict.value}, status {ending.status}, signal {ending.signal}"


def _user() -> Fact:
    root = os.geteuid() == 0
    return Fact("user", True, "root: programs become users of no account" if root else f"ordinary, {os.geteuid()}")


def _filters() -> Fact:
    name = machine_name()
    if name not in MACHINES:
        return Fact("seccomp", False, f"no filter is written for {name}, only for {', '.join(MACHINES)}")
    actions = _text("/proc/sys/kernel/seccomp/actions_avail").split()
    return Fact(
        "seccomp", "errno" in actions, f"{name}, Linux {platform.release()}" if actions else "not in this kernel"
    )


def _landlock() -> Fact:
    version = abi()
    if not version:
        return Fact("landlock", False, "not in this kernel, or switched off at its start")
    unscoped = "" if version >= SCOPES_ABI else "; it does not keep programs from signalling others of their user"
    return Fact("landlock", True, f"ABI {version}{unscoped}")


def _python_at_l2() -> Fact:
    barred = barrier((own_interpreter(), *own_python())) if os.geteuid() == 0 else ""
    return Fact(PYTHON_AT_L2, not barred, barred or own_interpreter())


def _namespaces() -> Fact:
    if os.geteuid() == 0:
        return Fact("user_namespaces", True, "not needed by root to begin with")
    if _text("/proc/sys/user/max_user_namespaces").strip() in ("", "0"):
        return Fact("user_namespaces", False, "user.max_user_namespaces is 0")
    if _text("/proc/sys/kernel/unprivileged_userns_clone").strip() == "0":
        return Fact("user_namespaces", False, "kernel.unprivileged_userns_clone is 0")
    if _text("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").strip() == "1":
        return Fact("user_namespaces", True, "only for programs that AppArmor knows; bubblewrap may be one")
    return Fact("user_namespaces", True, "allowed")


def _bubblewrap() -> Fact:
    path = shutil.which("bwrap")
    return Fact("bubblewrap", path is not None, path or "not installed (apt-get install bubblewrap)")


def _control_group(found: Controller | Missing) -> Fact:
    name = f"cgroup.{found.name}"
    if isinstance(found, Controller):
        return Fact(name, True, f"version {found.version}, {found.folder}")
    return Fact(name, False, f"{found.reason}; {_INSTEAD[found.name]}")


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
