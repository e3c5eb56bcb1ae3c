"""Programs that mean harm get the right verdict, do none to the worker, and leave nothing, however often they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from flowkit.sandbox.bubblewrap import BubblewrapRuntime
from flowkit.sandbox.cgroups import MOST_KEPT
from flowkit.sandbox.hierarchies import Controller, find
from flowkit.sandbox.inside.rooms import MOST_KEPT as MOST_ROOMS
from flowkit.sandbox.landlock import LandlockRuntime
from flowkit.sandbox.runtime import Ending, Limits, Program, Running, Verdict
from flowkit.sandbox.zygote import SPARES, Environment, Zygote
from tests.sandbox.hostile import WHOLE
from tests.sandbox.leftovers import counted
from tests.sandbox.programs import PYTHON, READABLE, finish, run, script

Walled = BubblewrapRuntime | LandlockRuntime

GONE_WITHIN_SEC = 20.0
EXPECTED = {
    "fork_bomb": Verdict.WALL,
    "memory_bomb": Verdict.OOM,
    "ignore_the_request_to_end": Verdict.WALL,
    "leave_a_daemon": Verdict.EXITED,
    "disk_filler": Verdict.EXITED,
    "a_gigabyte_of_output": Verdict.KILLED,
}
DISK = (
    "try:\n"
    "    with open('full', 'wb', buffering=0) as file:\n"
    "        while True:\n"
    "            file.write(bytes(1_000_000))\n"
    "except OSError:\n"
    "    pass\n"
)
OUTPUT = "import os\nfor _ in range(1024):\n    os.write(1, b'x' * (1 << 20))\n"
MOST_OUTPUT = 1 << 20


def hostile(name: str, *, wall_sec: float) -> tuple[str, Limits]:
    """Its source and its limits."""
    if name not in WHOLE:
        return (DISK if name == "disk_filler" else OUTPUT), Limits(disk_mb=8, wall_sec=60)
    limits = WHOLE[name].limits
    wall_sec = wall_sec if EXPECTED[name] is Verdict.WALL else 60
    return WHOLE[name].source, Limits(memory_mb=limits.memory_mb, pids=limits.pids, wall_sec=wall_sec)


class Cold:
    """Every program is a process of its own, begun for it; so nothing at all is left of it."""

    def __init__(self, runtime: Walled) -> None:
        self.runtime = runtime
        self._before: dict[str, set[str]] = {}

    def script(self, name: str, source: str, limits: Limits) -> Program:
        return script(source, limits=limits)

    async def begin(self) -> None:
        """What is made once stays: threads, a child watcher, the runtime's own folders."""
        await asyncio.gather(run(self.runtime, script("pass")), run(self.runtime, script("pass")))
        await asyncio.to_thread(int)
        self._before = counted()

    async def as_before(self) -> None:
        await until(lambda: more_than(self._before), {})


class Warm:
    """Every program is a fork of one zygote, which outlives them all, with the places that it keeps ready."""

    def __init__(self, runtime: BubblewrapRuntime, folder: Path) -> None:
        self.runtime = runtime
        self._folder = folder
        self._before: dict[str, set[str]] = {}
        self._zygote: Zygote | None = None

    def script(self, name: str, source: str, limits: Limits) -> Program:
        path = self._folder / f"{name}.py"
        path.write_text(source)
        path.chmod(0o644)
        return Program(
            (PYTHON, str(path)), readable=(*READABLE, str(self._folder)), warm="abuse", limits=limits,
            env={"PATH": "/usr/bin:/bin"},
        )  # fmt: skip

    async def begin(self) -> None:
        await asyncio.to_thread(int)
        self._before = counted()
        quiet = self.script("quiet", "pass", Limits(wall_sec=60))
        await asyncio.gather(*(run(self.runtime, quiet) for _ in EXPECTED))
        self._zygote = await self.runtime._zygotes.get(Environment.of(quiet))
        await self.as_before()

    async def as_before(self) -> None:
        """It is still the same zygote. What is kept for the next programs differs, up to its bounds, which a hundred
        rounds that each left something would pass; nothing else is left."""
        assert self._zygote is not None
        assert self._zygote.alive
        if self._zygote._filling is not None:
            await asyncio.wait({self._zygote._filling})
        await until(self._too_many, {})

    def _too_many(self) -> dict[str, int]:
        hierarchies = len({one.folder for one in find() if isinstance(one, Controller)})
        groups = MOST_KEPT + SPARES
        most = {
            # Bubblewrap and the zygote; in each place the first process and what waits there; and rooms that are kept.
            "processes": 2 + 2 * SPARES + MOST_ROOMS,
            "groups": groups * hierarchies,
            "descriptors": groups * (hierarchies + 5) + 2 * SPARES + 10,  # five files are read of each
        }
        found = {what: len(one) for what, one in more_than(self._before).items()}
        return {what: count for what, count in found.items() if count > most.get(what, 0)}


Way = Cold | Warm


def program(way: Way, name: str, *, wall_sec: float) -> Program:
    source, limits = hostile(name, wall_sec=wall_sec)
    return way.script(name, source, limits)


@pytest.fixture(params=["L3", "L3 warm", "L2"])
async def way(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Way]:
    await asyncio.to_thread(int)  # what is made once stays
    before = counted()
    runtime: Walled = LandlockRuntime() if request.param == "L2" else BubblewrapRuntime()
    yield Warm(runtime, folder) if isinstance(runtime, BubblewrapRuntime) and "warm" in request.param else Cold(runtime)
    await runtime.close()
    await until(lambda: more_than(before), {})


async def end(name: str, running: Running) -> Ending:
    if name == "ignore_the_request_to_end":
        await running.stdout.readline()
        running.terminate()
    if name == "a_gigabyte_of_output":
        await running.stdout.readexactly(MOST_OUTPUT)
        await running.kill()
    return (await finish(running)).ending


async def once(way: Way, *, wall_sec: float = 1.5) -> None:
    running = await asyncio.gather(*(way.runtime.start(program(way, name, wall_sec=wall_sec)) for name in EXPECTED))
    endings = await asyncio.gather(*map(end, EXPECTED, running))
    expected = dict(EXPECTED)
    if "memory" not in way.runtime.counted:
        expected["memory_bomb"] = Verdict.EXITED
    assert {name: ending.verdict for name, ending in zip(EXPECTED, endings, strict=True)} == expected


def more_than(before: dict[str, set[str]]) -> dict[str, set[str]]:
    return {what: found - before[what] for what, found in counted().items() if found - before[what]}


async def until(look: Callable[[], Any], wanted: Any) -> None:
    deadline = time.monotonic() + GONE_WITHIN_SEC
    while (found := look()) != wanted:
        assert time.monotonic() < deadline, f"{found}, not {wanted}"
        await asyncio.sleep(0.05)


async def test_abuse_gets_its_verdict_and_leaves_nothing(way: Way) -> None:
    await way.begin()

    for _ in range(2):
        await once(way)
        await way.as_before()


@pytest.mark.slow
@pytest.mark.timeout(480)
async def test_abuse_a_hundred_times_in_a_row_leaves_nothing(way: Way) -> None:
    await way.begin()

    for _ in range(100):
        await once(way)
        await way.as_before()


async def test_a_neighbour_runs_while_a_program_forks_without_end(way: Way) -> None:
    running = await way.runtime.start(program(way, "fork_bomb", wall_sec=60.0))
    await asyncio.sleep(0.3)

    source = "import subprocess; print(subprocess.check_output(['/bin/echo', 'here']))"
    neighbour = await run(way.runtime, way.script("neighbour", source, Limits(wall_sec=60)))

    assert neighbour.out == "b'here\\n'\n"
    await running.kill()
    assert (await finish(running)).ending.verdict is Verdict.KILLED
