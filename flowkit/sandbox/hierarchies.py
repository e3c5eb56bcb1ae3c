"""Where this process stands among the control groups: of version 1, 2, or a mixture, and what of it may be written."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

WANTED: Final = ("memory", "pids", "cpu", "cpuacct")
"""What limits and figures need. `cpuacct` is part of `cpu` in version 2."""

LEAF: Final = "flowkit-worker"
"""Version 2 has processes in leaves only: a worker moves itself into this one, beside those of its programs."""

_ROOT: Final = Path("/")


@dataclass(frozen=True, slots=True)
class Controller:
    """One controller and the folder of its hierarchy below which groups may be made."""

    name: str
    version: int
    folder: Path


@dataclass(frozen=True, slots=True)
class Missing:
    """A controller that cannot be used, and why."""

    name: str
    reason: str


def find(root: Path = _ROOT) -> list[Controller | Missing]:
    """For each of the wanted controllers, where it is or why it is not. Changes nothing but, in version 2, the leaf
    that this process is in. `root` is where `/proc` and the mounts are looked for."""
    own = _own_groups(root)
    mounts = _mounts(root)
    first = {name: folder for names, folder in _version_1(own, mounts, root) for name in names}
    second = _version_2(own, mounts, root)
    return [_one(name, first, second) for name in WANTED]


def _one(name: str, first: dict[str, Path], second: tuple[Path, set[str], str] | None) -> Controller | Missing:
    if name in first:
        folder = first[name]
        if os.access(folder, os.W_OK):
            return Controller(name, 1, folder)
        return Missing(name, f"{folder} cannot be written to by this user")
    if second is None:
        return Missing(name, "no control groups are mounted that have it")
    folder, usable, reason = second
    new_name = "cpu" if name == "cpuacct" else name
    if new_name in usable:
        return Controller(name, 2, folder)
    return Missing(name, reason or f"{folder} does not have it")


def _own_groups(root: Path) -> dict[str, str]:
    """The path of this process's group by what the hierarchy is called; of version 2 it is called nothing."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return {}
    return {names: path for _, names, path in (line.split(":", 2) for line in lines)}


@dataclass(frozen=True, slots=True)
class _Mount:
    kind: str
    top: str
    point: str
    options: set[str]

    def folder(self, path: str, root: Path) -> Path:
        """Where the group at this path is seen. A mount may show only what is below a group."""
        below = path.removeprefix(self.top) if path.startswith(self.top) else ""
        return root / self.point.lstrip("/") / below.lstrip("/")


def _mounts(root: Path) -> list[_Mount]:
    try:
        lines = (root / "proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            _, _, _, top, point = before.split(" ")[:5]
            found.append(_Mount(kind, top.rstrip("/"), point, set(options.split(","))))
    return found


def _version_1(own: dict[str, str], mounts: list[_Mount], root: Path) -> list[tuple[list[str], Path]]:
    found = []
    for names, path in own.items():
        controllers = names.split(",")
        for mount in mounts:
            if mount.kind == "cgroup" and names and set(controllers) <= mount.options:
                found.append((controllers, mount.folder(path, root)))
                break
    return found


def _version_2(own: dict[str, str], mounts: list[_Mount], root: Path) -> tuple[Path, set[str], str] | None:
    """The folder for groups, the controllers that they will have, and why others are missing."""
    mount = next((mount for mount in mounts if mount.kind == "cgroup2"), None)
    if mount is None or "" not in own:
        return None
    folder = mount.folder(own[""], root)
    if folder.name == LEAF:
        folder = folder.parent
    available = _words(folder / "cgroup.controllers") & set(WANTED)
    if not available:
        return None
    reason = _hand_down(folder, available)
    return folder, available & _words(folder / "cgroup.subtree_control"), reason


def _hand_down(folder: Path, available: set[str]) -> str:
    """Have the groups below get these controllers; says why not."""
    if available <= _words(folder / "cgroup.subtree_control"):
        return ""
    try:
        if (folder / "cgroup.type").exists():  # not in the root, which alone may have processes and groups
            (folder / LEAF).mkdir(exist_ok=True)
            (folder / LEAF / "cgroup.procs").write_text(str(os.getpid()))
        for name in sorted(available):
            (folder / "cgroup.subtree_control").write_text(f"+{name}")
    except OSError as error:
        _go_back(folder)
        if error.errno == errno.EBUSY:
            return f"{folder} has other processes; give the worker a group of its own (systemd: Delegate=yes)"
        return f"{folder} cannot be written to by this user (systemd: Delegate=yes)"
    return ""


def _go_back(folder: Path) -> None:
    """Out of the leaf, which is of no use then, and need not stay."""
    with contextlib.suppress(OSError):
        (folder / "cgroup.procs").write_text(str(os.getpid()))
        (folder / LEAF).rmdir()


def _words(path: Path) -> set[str]:
    try:
        return set(path.read_text().split())
    except OSError:
        return set()
