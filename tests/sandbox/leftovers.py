"""What a machine has more of than before: processes, mounts, control groups, descriptors and files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from flowkit.sandbox.hierarchies import Controller, find
from flowkit.sandbox.landlock import PREFIX


def counted() -> dict[str, set[str]]:
    """Everything by which something that was left behind would show, of this process and what it has started only."""
    folders = {one.folder for one in find() if isinstance(one, Controller)}
    return {
        "processes": _descendants(),
        "mounts": set(Path("/proc/self/mountinfo").read_text().splitlines()),
        "groups": {
            str(path) for folder in folders for path in folder.glob(f"flowkit-{os.getpid()}-*/*") if path.is_dir()
        },
        "descriptors": {name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")},
        "files": {str(path) for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}{os.getpid()}-*")},
    }


def _descendants() -> set[str]:
    children: dict[str, list[str]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            stat = Path(f"/proc/{name}/stat").read_text()
        except OSError:
            continue
        children.setdefault(stat.rpartition(")")[2].split()[1], []).append(name)
    found, left = set(), [str(os.getpid())]
    while left:
        new = children.get(left.pop(), [])
        found.update(new)
        left += new
    return found
