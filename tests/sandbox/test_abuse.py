"""Programs that mean harm get the right verdict, do none to the worker, and leave nothing, however often they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from flowkit.sandbox.bubblewrap import BubblewrapRuntime
from flowkit.sandbox.landlock import LandlockRuntime
from flowkit.sandbox.runtime import Ending, Limits, Program, Running, Verdict
from tests.sandbox.hostile import WHOLE
from tests.sandbox.leftovers import counted
from tests.sandbox.programs import finish, run, script

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


def program(name: str, *, wall_sec: float) -> Program:
    if name in WHOLE:
        hostile = WHOLE[name]
        limits = Limits(
            memory_mb=hostile.limits.memory_mb, pids=hostile.limits.pids,
            wall_sec=wall_sec if EXPECTED[name] is Verdict.WALL else 60,
        )  # fmt: skip
        return script(hostile.source, limits=limits)
    return script(DISK if name == "disk_filler" else OUTPUT, limits=Limits(disk_mb=8, wall_sec=60))


async def end(name: str, running: Running) -> Ending:
    if name == "ignore_the_request_to_end":
        await running.stdout.readline()
        running.terminate()
    if name == "a_gigabyte_of_output":
        await running.stdout.readexactly(MOST_OUTPUT)
        await running.kill()
    return (await finish(running)).ending


@pytest.fixture(params=[BubblewrapRuntime, LandlockRuntime], ids=["L3", "L2"])
async def runtime(request: pytest.FixtureRequest) -> AsyncIterator[Walled]:
    made = request.param()
    yield made
    await made.close()


async def once(runtime: Walled, *, wall_sec: float = 1.5) -> None:
    running = await asyncio.gather(*(runtime.start(program(name, wall_sec=wall_sec)) for name in EXPECTED))
    endings = await asyncio.gather(*map(end, EXPECTED, running))
    expected = dict(EXPECTED)
    if "memory" not in runtime.counted:
        expected["memory_bomb"] = Verdict.EXITED
    assert {name: ending.verdict for name, ending in zip(EXPECTED, endings, strict=True)} == expected


async def nothing_more_than(before: dict[str, set[str]]) -> None:
    deadline = time.monotonic() + GONE_WITHIN_SEC
    while True:
        more = {name: found - before[name] for name, found in counted().items() if found - before[name]}
        if not more:
            return
        assert time.monotonic() < deadline, more
        await asyncio.sleep(0.05)


async def test_abuse_gets_its_verdict_and_leaves_nothing(runtime: Walled) -> None:
    await warmed_up(runtime)
    before = counted()

    for _ in range(2):
        await once(runtime)

    await nothing_more_than(before)


@pytest.mark.slow
async def test_abuse_a_hundred_times_in_a_row_leaves_nothing(runtime: Walled) -> None:
    await warmed_up(runtime)
    before = counted()

    for _ in range(100):
        await once(runtime)
        await nothing_more_than(before)


async def test_a_neighbour_runs_while_a_program_forks_without_end(runtime: Walled) -> None:
    running = await runtime.start(program("fork_bomb", wall_sec=60.0))
    await asyncio.sleep(0.3)

    neighbour = await run(runtime, script("import subprocess; print(subprocess.check_output(['/bin/echo', 'here']))"))

    assert neighbour.out == "b'here\\n'\n"
    await running.kill()
    assert (await finish(running)).ending.verdict is Verdict.KILLED


async def warmed_up(runtime: Walled) -> None:
    """What is made once stays: threads, a child watcher, the runtime's own folders."""
    await asyncio.gather(run(runtime, script("pass")), run(runtime, script("pass")))
    await asyncio.to_thread(int)
