"""Runs inside of a sandbox that is measured: notes the CPU time and the page faults of the steps on a program's way, in
the zygote, the first process and the program's. The file is laid beside the others of `flowkit.sandbox.inside`."""

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
_forking: list[bool] = []


def watch() -> None:
    from . import init, kernel, zygote  # type: ignore[attr-defined]

    for owner, name, who, what in (
        (zygote, "_fork", "zygote", "fork, with a process namespace and a lent network"),
        (init.Init, "_own_namespaces", "first process", "mounts, IPC, host name: namespaces"),
        (kernel, "fork", "first process", "fork"),
        (init.Init, "_own_disk", "first process", "mounts of what can be written to"),
        (init.Init, "_lower", "first process", "be nobody"),
        (init.Init, "_report", "first process", "add up, report"),
        (init, "settle", "program", "control groups joined, session, user, user namespace"),
        (init, "take", "program", "its descriptors, and no others"),
        (init, "read_order", "program", "the order read"),
        (kernel, "bound_capabilities", "program", "no capabilities, for good"),
        (kernel, "filter_syscalls", "program", "the filter of system calls"),
        (init, "restore_signals", "program", ""),
    ):
        _note(owner, name, who, what)


def _note(owner: Any, name: str, who: str, what: str) -> None:
    inner = getattr(owner, name)

    def noted(*args: Any, **kwargs: Any) -> Any:
        used, faults = time.process_time(), _faults()
        if name == "_fork":
            _forking.append(True)
        value = inner(*args, **kwargs)
        if name == "_fork":
            _forking.clear()
        if name in ("fork", "_fork") and value == 0:  # a process of its own, in which nothing was noted
            _noted.clear()
        elif what and not (name == "fork" and _forking):  # the zygote's is noted with what it does besides
            _noted.append((who, what, time.process_time() - used, _faults() - faults))
        if name in ("_fork", "_report", "restore_signals"):
            os.write(2, b"".join(f"{MARK}{json.dumps(one)}\n".encode() for one in _noted))
            _noted.clear()
        return value

    setattr(owner, name, noted)


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
