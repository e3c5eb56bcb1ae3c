"""Runs inside of a sandbox that is measured: notes the CPU time and the page faults of the steps on a program's way, in
the zygote's process and the program's. The file is laid beside the others of `flowkit.sandbox.inside`."""

from __future__ import annotations

import json
import os
import resource
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MARK = "NOTE "

_noted: list[tuple[str, str, float, int]] = []


def watch() -> None:
    from . import entry, kernel, zygote  # type: ignore[attr-defined]

    for owner, name, who, what in (
        (zygote.Zygote, "_fork", "zygote", "a room lent, and the fork"),
        (zygote.Zygote, "_reap", "zygote", "an end noticed, counted and told, the room looked at"),
        (entry, "join", "program", "control groups joined, session"),
        (zygote, "_raise_walls", "program", "network entered; mounts, IPC, host name: namespaces"),
        (entry, "read_order", "program", "the order read"),
        (entry.Entry, "_make", "program", "mounts of what can be written to"),
        (entry, "settle", "program", "user, user namespace"),
        (entry, "take", "program", "its descriptors, and no others"),
        (kernel, "bound_capabilities", "program", "no capabilities, for good"),
        (kernel, "filter_syscalls", "program", "the filter of system calls"),
        (entry, "restore_signals", "program", ""),
    ):
        _note(owner, name, who, what)


def _note(owner: Any, name: str, who: str, what: str) -> None:
    inner = getattr(owner, name)

    def noted(*args: Any, **kwargs: Any) -> Any:
        used, faults = time.process_time(), _faults()
        value = inner(*args, **kwargs)
        if name == "_fork" and value[1] == 0:  # a process of its own, in which nothing was noted
            _noted.clear()
        elif what:
            _noted.append((who, what, time.process_time() - used, _faults() - faults))
        if name in ("_fork", "_reap", "restore_signals"):
            os.write(2, b"".join(f"{MARK}{json.dumps(one)}\n".encode() for one in _noted))
            _noted.clear()
        return value

    setattr(owner, name, noted)


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
