"""Whom programs become that root starts."""

from __future__ import annotations

import functools
import os
import secrets
from typing import Final

FIRST_UID: Final = 0x7000_0000
UIDS: Final = 0x1000_0000
"""Users that no account has, by what is usual on Linux: programs that root starts run as one of them."""

NOBODY: Final = 65534


def some_uid() -> int:
    """Whom a program that root starts becomes: somebody else each time, where this machine has so many."""
    uid = FIRST_UID + secrets.randbelow(UIDS)
    return uid if _mapped(uid) else NOBODY


def threads_of(uid: int) -> int:
    """How many of this machine's threads are this user's: the system counts them all for a limit of processes."""
    found = 0
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{name}").st_uid == uid:
                found += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            continue  # it has ended meanwhile
    return found


def _mapped(uid: int) -> bool:
    return any(first <= uid < first + count for first, count in _map())


@functools.cache
def _map() -> tuple[tuple[int, int], ...]:
    """First users and how many there are; it is written once in the life of a namespace."""
    with open("/proc/self/uid_map") as file:
        return tuple((first, count) for first, _, count in (map(int, line.split()) for line in file))
