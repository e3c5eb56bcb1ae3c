"""Where the time of a warm program goes: on the clock between the places that its start and its end pass in a worker,
and in CPU time of the steps inside of its sandbox."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.inside_notes import MARK
from flowkit import Embedded, WorkerConfig
from flowkit.sandbox import inside, keeper
from flowkit.sandbox.bubblewrap import BubblewrapRuntime
from flowkit.sandbox.contained import Contained
from flowkit.sandbox.languages import program_for
from flowkit.sandbox.runtime import Limits
from flowkit.sandbox.supervisor import Supervision, Work
from flowkit.worker.outbox import Outbox
from flowkit.worker.slots import Slots

SOURCE = "def main(inputs):\n    return None\n"
GRAPH = {"nodes": [{"node_id": "n", "type": "code", "code": {"source": SOURCE}}]}
WARMING_UP = 5
PLACES = (
    ("given", "the worker has the job"),
    ("starting", "the program is put together"),
    ("ordered", "its order is with a place that was ready"),
    ("began", "it is behind its walls, and begins"),
    ("asked", "it asks what there is to do"),
    ("result", "it gives its result"),
    ("ended", "all its processes are gone"),
    ("judged", "its groups are gone too, and there is a verdict"),
    ("reported", "the worker reports the attempt"),
    ("known", "the result is known"),
)

Notes = dict[str, float]
Step = tuple[str, str]


async def measure(count: int) -> dict[str, Any]:
    """Medians: `places`, the milliseconds since the submission; `steps`, by process and step, microseconds of CPU and
    page faults."""
    return {"places": await _places(count), "steps": await _steps(count)}


def show(found: dict[str, Any]) -> None:
    print(f"\n| a warm program, one at a time | ms since its task was submitted | more |\n{'|---' * 3}|")
    last = 0.0
    for place, what in PLACES:
        at = found["places"][place]
        print(f"| {what} | {at:.2f} | {at - last:.2f} |")
        last = at
    print(f"\n| process | step | µs of CPU | page faults |\n{'|---' * 4}|")
    for who, what, used, faults in found["steps"]:
        print(f"| {who} | {what} | {used:.0f} | {faults:.0f} |")


# ---------------------------------------------------------------------------------------------- in the worker


async def _places(count: int) -> Notes:
    late: dict[str, list[float]] = defaultdict(list)
    seen: Notes = {}
    with _watched(seen):
        async with Embedded(worker_cfg=WorkerConfig(code_level="L3")) as engine:
            for number in range(count + WARMING_UP):
                seen.clear()
                began = time.perf_counter()
                await (await engine.submit(GRAPH)).wait(timeout=60)
                seen["known"] = time.perf_counter()
                for place, _ in PLACES if number >= WARMING_UP else ():
                    late[place].append(1000 * (seen[place] - began))
    return {place: statistics.median(times) for place, times in late.items()}


@contextmanager
def _watched(seen: Notes) -> Iterator[None]:
    """Note when each place is passed first; one program runs at a time."""

    def note(place: str) -> None:
        seen.setdefault(place, time.perf_counter())

    def answer(_: Any, running: Any, message: dict[str, Any]) -> None:
        note({"start": "asked", "result": "result"}.get(message["do"], "other"))

    undo: list[tuple[Any, str, Any]] = []
    for owner, name, before, after in (
        (Slots, "receive", lambda *_: note("given"), None),
        (BubblewrapRuntime, "start", lambda *_: note("starting"), lambda: note("began")),
        (Supervision, "_answer", answer, None),
        (Contained, "_while_it_runs", lambda *_: note("ended"), None),
        (Supervision, "run", None, lambda: note("judged")),
        (Outbox, "add", lambda *_: note("reported"), None),
        (keeper, "send_order", None, lambda: note("ordered")),
    ):
        inner = getattr(owner, name)
        undo.append((owner, name, inner))
        wrap = _around_async if inner.__code__.co_flags & 0x80 else _around
        setattr(owner, name, wrap(inner, before, after))
    try:
        yield
    finally:
        for owner, name, inner in undo:
            setattr(owner, name, inner)


def _around(inner: Any, before: Callable[..., None] | None, after: Callable[[], None] | None) -> Any:
    def noted(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(*args)
        value = inner(*args, **kwargs)
        if after is not None:
            after()
        return value

    return noted


def _around_async(inner: Any, before: Callable[..., None] | None, after: Callable[[], None] | None) -> Any:
    async def noted(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(*args)
        value = await inner(*args, **kwargs)
        if after is not None:
            after()
        return value

    return noted


# ---------------------------------------------------------------------------------------------- in the sandbox


class _Ears:
    """Hears the notes that a program's process writes before it is the program."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        self._hear = hear

    def started(self, pid: int, end_signal: int) -> None: ...
    def progress(self, done: float | None, total: float | None, message: str) -> None: ...
    async def batch(self, value: Any) -> None: ...

    def cancelled(self) -> bool:
        return False

    def log(self, level: str, message: str) -> None:
        self._hear(message)


async def _steps(count: int) -> list[tuple[str, str, float, float]]:
    used: dict[Step, list[tuple[float, int]]] = defaultdict(list)
    whole: list[tuple[float, int]] = []

    def hear(line: str) -> None:
        if line.startswith(MARK):
            who, what, seconds, faults = json.loads(line.removeprefix(MARK))
            used[who, what].append((1e6 * seconds, faults))

    with _inside_that_notes():
        runtime = BubblewrapRuntime()
        try:
            for _ in range(count):
                outcome = await Supervision(runtime, _work(), _Ears(hear)).run(lambda: 1.0)
                whole.append((1e6 * outcome.usage.cpu_sec, 0))
            for begun in runtime._zygotes._zygotes.values():
                complaints = (await begun)._launch._complaints
                for line in os.pread(complaints, os.fstat(complaints).st_size, 0).decode().splitlines():
                    hear(line)
        finally:
            await runtime.close()
    used["program", "all, of which the rest is Python's: the job, the code, the result"] = whole
    return [(who, what, *(statistics.median(one) for one in zip(*rows, strict=True)))
            for (who, what), rows in sorted(used.items(), key=lambda item: item[0][0], reverse=True)]  # fmt: skip


def _work() -> Work:
    limits = Limits()
    job: dict[str, Any] = {"inputs": None, "bytes": [], "source": SOURCE, "file": "n.py", "node": "n", "path": [],
                           "secrets": [], "most_bytes": limits.output_mb << 20}  # fmt: skip
    return Work(program_for("python", limits, warm="python"), job)


@contextmanager
def _inside_that_notes() -> Iterator[None]:
    """Sandboxes that begin now have a copy of what runs inside, which notes what it does."""
    original = inside.__file__
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # noqa: S103  programs are other users
        copy = Path(shutil.copytree(Path(original).parent, Path(folder, "inside")))
        shutil.copy(Path(__file__).with_name("inside_notes.py"), copy / "notes.py")
        with (copy / "main.py").open("a") as file:
            file.write("\n\nfrom .notes import watch\n\nwatch()\n")
        inside.__file__ = str(copy / "__init__.py")
        try:
            yield
        finally:
            inside.__file__ = original
