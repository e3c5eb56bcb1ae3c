"""How code of each language is started: the program that takes the user's code from the channel and runs it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.runtime import Limits, Program

HERE: Final = Path(__file__).resolve().parent
PACKAGE: Final = str(HERE.parent)
CHILD: Final = str(HERE / "child.py")
BOOT: Final = str(HERE / "boot.py")
BOOTS: Final = HERE / "runtimes"
ENVIRONMENT: Final = MappingProxyType({"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"})
SUFFIXES: Final = MappingProxyType({"python": ".py", "node": ".js", "bash": ".sh"})
HEAP_SHARE: Final = 0.75
"""Of a program's memory, what Node.js may use for objects; the rest is for the engine itself."""

ROOM_FOR_THREADS_MB: Final = 64
"""With less, Node.js gets no threads of its own: their stacks alone take 8 MiB each where a limit of the system counts
memory, and it waits for ever for one that it does not get."""


@cache
def interpreter() -> str:
    """The Python that code runs on: that of the worker, outside of any environment of the worker's own."""
    return os.path.realpath(sys.executable)


@cache
def find(name: str) -> str | None:
    """Where the interpreter of a language is; None where this machine has none."""
    path = shutil.which(name, path=ENVIRONMENT["PATH"])
    return None if path is None else os.path.realpath(path)


def available() -> tuple[str, ...]:
    """The languages whose code can run here."""
    return tuple(name for name in SUFFIXES if name == "python" or find(name) is not None)


def program_for(language: str, limits: Limits, *, network: Sequence[str] = (), packages: Sequence[str] = (),
                warm: str = "") -> Program:  # fmt: skip
    """The program that runs code of a language. `packages` are the folders that it may import from. Raises
    `CannotStart` where this machine has no interpreter for it."""
    argv, readable = _command(language, limits)
    return Program(
        argv=argv,
        # Node.js ends at once where it may not read the machine's own OpenSSL settings.
        env={**ENVIRONMENT, "OPENSSL_CONF": os.devnull} if language == "node" else dict(ENVIRONMENT),
        readable=(*readable, PACKAGE, *packages),
        limits=limits,
        network=tuple(network),
        warm=warm if language == "python" else "",
        prepared=CHILD if language == "python" else "",
    )


def _command(language: str, limits: Limits) -> tuple[tuple[str, ...], tuple[str, ...]]:
    python = (interpreter(), "-I", "-S")
    if language == "python":
        return (*python, BOOT), (sys.base_prefix,)
    found = find(language)
    if found is None:
        say = f"there is no {language!r} on this machine"
        raise CannotStart("runtime_missing", say, f"install it where {ENVIRONMENT['PATH']} leads")
    if language == "bash":
        return (*python, str(BOOTS / "bash.py"), found), (sys.base_prefix,)
    heap = f"--max-old-space-size={max(16, int(limits.memory_mb * HEAP_SHARE))}"
    threads = () if limits.memory_mb >= ROOM_FOR_THREADS_MB else ("--v8-pool-size=0",)
    return (found, heap, *threads, str(BOOTS / "node.cjs")), ()
