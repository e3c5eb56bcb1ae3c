"""Programs for tests: Python that every user can run, and what came of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from dataclasses import dataclass
from typing import Any

from flowkit.sandbox.landlock import barrier
from flowkit.sandbox.runtime import Ending, Limits, Program, Running, Runtime


def python() -> tuple[str, tuple[str, ...]]:
    """The interpreter of these tests, so that it is tried what programs do on it, or the machine's where not every user
    can read that; and what has to be readable for it."""
    own, prefix = os.path.realpath(sys.executable), os.path.realpath(sys.base_prefix)
    machines = next((path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if os.path.exists(path)), own)
    found = machines if barrier((own, prefix)) else own
    return found, () if found.startswith("/usr/") else (prefix,)


PYTHON, READABLE = python()


@dataclass(frozen=True, slots=True)
class Outcome:
    ending: Ending
    out: str
    err: str


def script(source: str, *, args: tuple[str, ...] = (), warm: str = "", **more: Any) -> Program:
    """A program that runs this source; as a warm one, it is a script that has to be readable by its path."""
    limits = more.pop("limits", Limits(wall_sec=60))
    env = {"PATH": "/usr/bin:/bin", **more.pop("env", {})}
    readable = (*READABLE, *more.pop("readable_too", ()))
    return Program((PYTHON, "-c", source, *args), env=env, readable=readable, limits=limits, **more)


async def run(runtime: Runtime, program: Program) -> Outcome:
    return await finish(await runtime.start(program))


async def finish(running: Running) -> Outcome:
    out, err, ending = await asyncio.gather(running.stdout.read(), running.stderr.read(), running.wait())
    running.channel.close()
    return Outcome(ending, out.decode(errors="replace"), err.decode(errors="replace"))


def node() -> str | None:
    return shutil.which("node")
