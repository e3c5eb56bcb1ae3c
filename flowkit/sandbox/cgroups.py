"""Control groups of programs: one for each while it runs, with its limits; what it used; and nothing left of it.

All groups of one runtime lie in a folder that it holds a lock on. A folder whose lock can be had belongs to nobody any
more: its owner has ended, however it did. So whoever comes next clears it away, whatever process numbers mean by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import itertools
import os
import secrets
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flowkit.sandbox.hierarchies import Controller
from flowkit.sandbox.owning import own
from flowkit.sandbox.runtime import Limits

PREFIX: Final = "flowkit-"

MIB: Final = 1024 * 1024
_PERIOD_US: Final = 100_000
_SHORTEST_QUOTA_US: Final = 1_000
_REMOVAL_SEC: Final = 2.0
_REMOVAL_PAUSE_SEC: Final = 0.01
_LONGEST_FILE: Final = 64 * 1024
_RESERVE_BYTES: Final = MIB
MOST_KEPT: Final = 16
"""Groups that are kept for the next programs."""


@dataclass(slots=True)
class _Home:
    """This runtime's folder in one hierarchy, and the descriptor that holds its lock."""

    folder: Path
    lock: int


class Cgroups:
    """Makes groups in the hierarchies of these controllers. `close` when no program runs any more."""

    def __init__(self, controllers: Iterable[Controller]) -> None:
        self.controllers = {controller.name: controller for controller in controllers}
        self._homes: dict[Path, _Home] = {}
        self._numbers = itertools.count()
        self._kept: list[Group] = []

    def open(self) -> None:
        """Clear away what owners left that have ended, and make folders of one's own. Raises `OSError`."""
        for parent in {controller.folder for controller in self.controllers.values()}:
            sweep(parent)
            self._homes[parent] = _new_home(parent)
        for controller in self.controllers.values():
            if controller.version == 2:
                _write(f"{self._homes[controller.folder].folder}/cgroup.subtree_control", f"+{_of_2(controller.name)}")

    def create(self, *, again: bool = False) -> Group:
        """A group with nobody in it, whose limits are yet to be set. `again`: it may be one that was in use before, and
        is kept for the next if it is as new when it is removed. Raises `OSError`."""
        if again and self._kept:
            return self._kept.pop()
        name = f"p{next(self._numbers)}"
        places = {
            controller.name: (controller.version, self._homes[controller.folder].folder / name)
            for controller in self.controllers.values()
        }
        group = Group(places, self._keep if again else None)
        try:
            group.make()
        except OSError:
            group.try_remove()
            raise
        return group

    def _keep(self, group: Group) -> bool:
        if len(self._kept) >= MOST_KEPT or not group.renew():
            return False
        self._kept.append(group)
        return True

    def give_back(self) -> None:
        """The kernel is given those back that are kept for the next programs."""
        while self._kept:
            self._kept.pop().try_remove()

    def close(self) -> None:
        while self._kept:
            self._kept.pop().close()
        for home in self._homes.values():
            _clear(home.folder)
            os.close(home.lock)
        self._homes.clear()


class Group:
    """What one program, and all that it starts, is counted and bounded in. `keep`: says whether it takes it when it is
    to be removed."""

    def __init__(self, places: dict[str, tuple[int, Path]], keep: Callable[[Group], bool] | None = None) -> None:
        # As text: a group is made and read for every program, and joining paths as objects is slow.
        self._places = {name: (version, str(folder)) for name, (version, folder) in places.items()}
        self._keep = keep
        self._bounds: tuple[int, float, int] | None = None
        self._files: dict[tuple[str, int], int] = {}
        self._folders = list(dict.fromkeys(folder for _, folder in self._places.values()))

    def make(self) -> None:
        for folder in self._folders:
            os.mkdir(folder)

    def bound(self, limits: Limits) -> None:
        """Raises `OSError`."""
        bounds = (limits.memory_mb, limits.cpu, limits.pids)
        if self._bounds == bounds:
            return
        if self._bounds is not None:
            self._bound_swap("-1")  # or memory could not be given more than both had together
        self._bounds = bounds
        for name, (version, folder) in self._places.items():
            for file, value in _settings(name, version, limits):
                _write(f"{folder}/{file}", value)
        self._bound_swap(str(limits.memory_mb * MIB))

    def renew(self) -> bool:
        """Whether it is as if it were new: nobody is in it, and what was counted is forgotten. Only in version 1 can
        all that be had. What is left of memory is the kernel's own reserve for it, which it takes back in need."""
        versions = {version for version, _ in self._places.values()}
        if versions != {1} or not {"memory", "pids"} <= self._places.keys() or self.oom_kills():
            return False
        memory, pids = self._places["memory"][1], self._places["pids"][1]
        if self._read(f"{pids}/pids.current", "?").strip() != "0":
            return False
        if int(self._read(f"{memory}/memory.usage_in_bytes", "-1")) not in range(_RESERVE_BYTES):
            return False
        try:
            os.pwrite(self._file(f"{memory}/memory.max_usage_in_bytes", os.O_RDWR), b"0", 0)
            if "cpuacct" in self._places:
                os.pwrite(self._file(f"{self._places['cpuacct'][1]}/cpuacct.usage", os.O_RDWR), b"0", 0)
        except OSError:
            return False
        return True

    def doors(self) -> list[int]:
        """Descriptors by which whoever writes `0` to all of them joins; they are this group's."""
        return [self._file(f"{folder}/cgroup.procs", os.O_WRONLY) for folder in self._folders]

    def cpu_sec(self) -> float | None:
        version, folder = self._places.get("cpuacct", (0, ""))
        if not version:
            return None
        if version == 1:
            return int(self._read(f"{folder}/cpuacct.usage", "0", os.O_RDWR)) / 1e9
        return int(_fields(self._read(f"{folder}/cpu.stat", "")).get("usage_usec", "0")) / 1e6

    def peak_memory_bytes(self) -> int | None:
        version, folder = self._places.get("memory", (0, ""))
        if not version:
            return None
        if version == 1:
            found = self._read(f"{folder}/memory.max_usage_in_bytes", "", os.O_RDWR)
        else:
            found = self._read(f"{folder}/memory.peak", "")
        return int(found) if found else None

    def oom_kills(self) -> int:
        """How many processes the kernel has killed because there was no memory left in the group."""
        version, folder = self._places.get("memory", (0, ""))
        if not version:
            return 0
        file = "memory.oom_control" if version == 1 else "memory.events"
        return int(_fields(self._read(f"{folder}/{file}", "")).get("oom_kill", "0"))

    def kill(self) -> None:
        """End whoever is in it."""
        for folder in self._folders:
            _kill(folder)

    async def remove(self) -> None:
        """Raises `OSError` if somebody is still in it after two seconds of killing."""
        if self._keep is not None and self._keep(self):
            return
        deadline = asyncio.get_running_loop().time() + _REMOVAL_SEC
        while not self.try_remove():
            if asyncio.get_running_loop().time() > deadline:
                raise OSError(errno.EBUSY, f"processes in {self._folders[0]} cannot be ended")
            self.kill()
            await asyncio.sleep(_REMOVAL_PAUSE_SEC)

    def try_remove(self) -> bool:
        """Whether nothing is left of it."""
        self.close()
        self._folders = [folder for folder in self._folders if not _remove(folder)]
        return not self._folders

    def close(self) -> None:
        """What is open of it; it is opened again where it is needed."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _file(self, path: str, flags: int) -> int:
        """A descriptor, which is kept: opening one of these files costs more than reading it. Raises `OSError`."""
        found = self._files.get((path, flags))
        if found is None:
            found = self._files[path, flags] = os.open(path, flags | os.O_CLOEXEC)
        return found

    def _read(self, path: str, default: str, flags: int = os.O_RDONLY) -> str:
        try:
            return os.pread(self._file(path, flags), _LONGEST_FILE, 0).decode()
        except OSError:
            return default

    def _bound_swap(self, with_swap: str) -> None:
        """`with_swap`: what memory and swap may be together, in version 1."""
        version, folder = self._places.get("memory", (0, ""))
        if not version:
            return
        file, value = ("memory.swap.max", "0")
        if version == 1:
            file, value = ("memory.memsw.limit_in_bytes", with_swap)
        with contextlib.suppress(FileNotFoundError):  # a kernel without swap, or that does not account for it
            _write(f"{folder}/{file}", value)


def sweep(parent: Path) -> None:
    """Clear away the folders here whose owners have ended, with whoever is still in them."""
    for folder in parent.glob(f"{PREFIX}*-*"):
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue  # somebody else was faster
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clear(folder)
        except BlockingIOError:
            continue  # its owner lives
        finally:
            os.close(lock)


def _new_home(parent: Path) -> _Home:
    while True:
        folder = parent / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        folder.mkdir()
        if (lock := own(folder)) is not None:
            return _Home(folder, lock)


def _settings(name: str, version: int, limits: Limits) -> list[tuple[str, str]]:
    quota = max(_SHORTEST_QUOTA_US, int(limits.cpu * _PERIOD_US))
    memory = str(limits.memory_mb * MIB)
    match name, version:
        case "memory", 1:
            return [("memory.limit_in_bytes", memory)]
        case "memory", 2:
            return [("memory.max", memory), ("memory.oom.group", "1")]
        case "pids", _:
            return [("pids.max", str(limits.pids))]
        case "cpu", 1:
            return [("cpu.cfs_period_us", str(_PERIOD_US)), ("cpu.cfs_quota_us", str(quota))]
        case "cpu", 2:
            return [("cpu.max", f"{quota} {_PERIOD_US}")]
        case _:
            return []


def _of_2(name: str) -> str:
    return "cpu" if name == "cpuacct" else name


def _clear(folder: Path) -> None:
    """As far as it goes: what cannot be ended yet is found by the next sweep."""
    for child in [*(path for path in folder.iterdir() if path.is_dir()), folder]:
        for _ in range(20):
            if _remove(str(child)):
                break
            _kill(str(child))


def _kill(folder: str) -> None:
    if os.path.exists(f"{folder}/cgroup.kill"):
        with contextlib.suppress(OSError):
            _write(f"{folder}/cgroup.kill", "1")
        return
    for word in _read(f"{folder}/cgroup.procs", "").split():
        if word != "0":  # a process of another namespace
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(word), signal.SIGKILL)


def _remove(folder: str) -> bool:
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _read(path: str, default: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return default
    try:
        return os.read(descriptor, _LONGEST_FILE).decode()
    except OSError:
        return default
    finally:
        os.close(descriptor)


def _fields(text: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in text.splitlines() if " " in line)
