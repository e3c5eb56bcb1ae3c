"""Folders that belong to whoever holds a lock on them. One whose lock can be had is nobody's any more, and cleared away
by whoever comes next; also one that was made this very moment, and is yet to be locked."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def own(folder: Path) -> int | None:
    """The descriptor that holds the lock of a folder that was just made; None where somebody took it for nobody's, and
    clears it away: then make another one."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.exists():
            return lock
    except BlockingIOError:
        pass
    os.close(lock)
    return None
