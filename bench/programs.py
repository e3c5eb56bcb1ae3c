"""`python -m bench.programs`: what starting a node's program costs, through a whole engine in this process.

A Python node that does nothing, at L3, runs `--starts` times warm (its environment's zygote is there) and as often cold
(it is not), each in turn with the same node as a handler; told are the medians, and what the program adds. Then so many
run at a time as pay. CPU is that of this process, of the zygote, of the programs with their first processes, and of
the whole machine, which has the kernel's own work and whatever else runs on it. The loop is that of `flowkit worker`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import program_stages
from bench.counters import TICKS
from flowkit import Embedded, WorkerConfig, loop
from flowkit.sandbox.bubblewrap import BubblewrapRuntime

CODE = {"nodes": [{"node_id": "n", "type": "code", "code": {"source": "def main(inputs):\n    return None\n"}}]}
HANDLER = {"nodes": [{"node_id": "n", "type": "nothing"}]}
AT_ONCE = (1, 2, 4, 8)
WAIT_SEC = 120.0
SETTLE_SEC = 0.5
TARGET_WARM_MS, TARGET_COLD_MS, TARGET_RATE = 12.0, 120.0, 200.0


async def nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Starts:
    """Milliseconds from `submit` until the result is known. `adds_ms` is the difference of the medians."""

    program_ms: float
    program_p99_ms: float
    handler_ms: float
    handler_p99_ms: float
    adds_ms: float


@dataclass(frozen=True, slots=True)
class Rate:
    """Programs a second with so many at a time, and the milliseconds of CPU for each, user and system."""

    at_once: int
    per_second: float
    cpu_ms: Mapping[str, tuple[float, float]]

    @property
    def total_ms(self) -> float:
        return sum(sum(pair) for name, pair in self.cpu_ms.items() if name != "machine")


class Stand:
    """An engine with one worker, and the means to look at its sandboxes."""

    def __init__(self, slots: int) -> None:
        self._cfg = WorkerConfig(code_level="L3", slots=slots)
        self.engine = Embedded(handlers={"nothing": nothing}, worker_cfg=self._cfg)

    async def __aenter__(self) -> Stand:
        await self.engine.start()
        for graph in (HANDLER, CODE, CODE, CODE):
            await self.took(graph)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.engine.stop()

    @property
    def runtime(self) -> BubblewrapRuntime:
        assert self.engine.worker is not None
        programs = self.engine.worker._programs
        assert programs is not None
        assert isinstance(programs._runtime, BubblewrapRuntime)
        return programs._runtime

    async def took(self, graph: dict[str, Any]) -> float:
        """Milliseconds from the submission to the result."""
        began = time.perf_counter()
        result = await (await self.engine.submit(graph)).wait(timeout=WAIT_SEC)
        if result.status != "finished":
            raise SystemExit(f"the measurement failed: a task {result.status}: {result.error}")
        return 1000 * (time.perf_counter() - began)


async def starts(stand: Stand, count: int, *, cold: bool) -> Starts:
    programs, handlers = [], []
    for _ in range(count):
        handlers.append(await stand.took(HANDLER))
        if cold:
            await stand.runtime.cool()
        programs.append(await stand.took(CODE))
        await _until_ready(stand)  # what is made ready behind a program belongs to no start
    own, other = statistics.median(programs), statistics.median(handlers)
    return Starts(own, _p99(programs), other, _p99(handlers), own - other)


async def _until_ready(stand: Stand) -> None:
    for begun in stand.runtime._zygotes._zygotes.values():
        filling = (await begun)._filling
        if filling is not None:
            await asyncio.wait([filling])


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]


async def rate(count: int, at_once: int) -> Rate:
    """So many tasks are created in one go, for a worker with so many slots."""
    async with Stand(at_once) as stand:
        before, began = cpu(), time.perf_counter()
        ids = await stand.engine.coordinator.create_tasks([{"graph": CODE}] * count)
        results = await asyncio.gather(*(stand.engine.wait_task(one, timeout=WAIT_SEC) for one in ids))
        seconds = time.perf_counter() - began
        await asyncio.sleep(SETTLE_SEC)  # what is tidied up behind the programs belongs to them
        after = cpu()
    if {result.status for result in results} != {"finished"}:
        raise SystemExit(f"the measurement failed: tasks have { ({result.status for result in results}) }")
    each = {
        name: (1000 * (after[name][0] - before[name][0]) / count, 1000 * (after[name][1] - before[name][1]) / count)
        for name in after
    }
    return Rate(at_once, count / seconds, each)


def cpu() -> dict[str, tuple[float, float]]:
    """Seconds in user and system mode until now: of this process, of those below it that live, and of what those have
    reaped, which are the programs and their first processes."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    living, reaped = [0.0, 0.0], [0.0, 0.0]
    for pid in _descendants():
        try:
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        for at in (0, 1):
            living[at] += int(words[11 + at]) / TICKS
            reaped[at] += int(words[13 + at]) / TICKS
    user, nice, system, _, _, irq, soft = map(int, Path("/proc/stat").read_text().split()[1:8])
    return {
        "this process": (own.ru_utime, own.ru_stime),
        "zygote": (living[0], living[1]),
        "programs": (reaped[0], reaped[1]),
        "machine": ((user + nice) / TICKS, (system + irq + soft) / TICKS),
    }


def _descendants() -> list[int]:
    found = [os.getpid()]
    for pid in found:
        try:
            found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except OSError:
            continue
    return found[1:]


# ---------------------------------------------------------------------------------------------- what is told


def show(warm: Starts, cold: Starts, rates: list[Rate]) -> None:
    print(f"load of the machine (1, 5, 15 minutes): {', '.join(f'{one:.1f}' for one in os.getloadavg())}\n")
    print(f"| {'ms':6} | program p50 | p99 | handler p50 | p99 | the program adds | wanted |\n{'|---' * 7}|")
    for name, one, most in (("warm", warm, TARGET_WARM_MS), ("cold", cold, TARGET_COLD_MS)):
        print(f"| {name} | {one.program_ms:.1f} | {one.program_p99_ms:.1f} | {one.handler_ms:.1f} | "
              f"{one.handler_p99_ms:.1f} | {one.adds_ms:.1f} | {most:g} |")  # fmt: skip
    print(f"\n| at a time | programs/s (wanted: {TARGET_RATE:g}) | CPU ms each, all of ours | this process, "
          f"user + system | zygote | programs | the whole machine |\n{'|---' * 7}|")  # fmt: skip
    for run in rates:
        parts = " | ".join(f"{user:.2f} + {system:.2f}" for user, system in run.cpu_ms.values())
        print(f"| {run.at_once} | {run.per_second:.0f} | {run.total_ms:.2f} | {parts} |")


async def measure(given: argparse.Namespace) -> dict[str, Any]:
    async with Stand(1) as stand:
        warm = await starts(stand, given.starts, cold=False)
        cold = await starts(stand, given.starts, cold=True)
    rates = [await rate(given.programs, at_once) for at_once in AT_ONCE]
    show(warm, cold, rates)
    stages = await program_stages.measure(min(given.starts, 100))
    program_stages.show(stages)
    return {
        "warm": asdict(warm), "cold": asdict(cold), "rates": [asdict(one) for one in rates],
        "stages": stages, "load": os.getloadavg(), "python": sys.version, "kernel": os.uname().release,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.programs", description=__doc__)
    parser.add_argument("--starts", type=int, default=200, help="of each kind, one at a time (default: 200)")
    parser.add_argument("--programs", type=int, default=400, help="for each rate (default: 400)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    given = parser.parse_args()
    found = loop.run(measure(given))
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
