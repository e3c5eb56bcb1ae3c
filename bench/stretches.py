"""For how long callbacks hold an event loop up: how long each took, how much of it was CPU, and whose it was. For
asyncio's own loop, which can be looked into."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.notes import replace

LEAST_SEC = 0.0005
"""Shorter ones are not noted: there are thousands a second."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Seconds; `began` and `ended` by the machine's monotonic clock."""

    pid: int
    began: float
    ended: float
    cpu: float
    what: str


def watch(folder: Path) -> None:
    """Note from now on what runs on the loop of this thread."""
    file = (folder / f"{os.getpid()}.stretches").open("a", buffering=1)
    inner, mine = asyncio.Handle._run, threading.get_ident()

    def run(handle: Any) -> None:
        if threading.get_ident() != mine:
            inner(handle)
            return
        began, used = time.monotonic(), time.thread_time()
        inner(handle)
        ended = time.monotonic()
        if ended - began >= LEAST_SEC:
            file.write(json.dumps([began, ended, time.thread_time() - used, _name(handle)]) + "\n")

    replace(asyncio.Handle, "_run", run)


def read(folder: Path) -> list[Stretch]:
    """Those of all processes, in order."""
    found = [
        Stretch(int(file.stem), *json.loads(line))
        for file in folder.glob("*.stretches")
        for line in file.read_text().splitlines()
    ]
    return sorted(found, key=lambda one: one.began)


def _name(handle: Any) -> str:
    called = handle._callback
    task = getattr(called, "__self__", None) if called is not None else None
    if isinstance(task, asyncio.Task):
        coroutine = task.get_coro()
        name = task.get_name()
        return name if "/" in name else getattr(coroutine, "__qualname__", name)
    return getattr(called, "__qualname__", repr(called))
