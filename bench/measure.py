"""Plays workloads on a stage and takes the figures of each run."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from bench.counters import Counts, messages, rss_mb
from bench.processes import BenchFailed
from bench.stage import FLOOR, FLOWKIT, Stage
from bench.workloads import QUICK, Sizes, Workload, blocks, simple

SETTLE_SEC = 1.5
"""After a run, until its last events, heads and offsets are written: they belong to its cost."""

RUN_SEC = 120.0
MAP_SEC = 600.0
MAP_SETTLE_SEC = 5.0
WRITTEN_RUNS, WRITTEN = 5, "W3 before W8"
"""Before each run of W8 so many of W3: its nodes are written down, and a machine's speed changes within minutes."""
NAP_SETTLE_SEC = 3.0
NAP_SPARE_SEC = 2.0
WARM_UP = ("W1", "W2", "W3", "W4b")


@dataclass(slots=True)
class Run:
    """One measured run. `rate` is units per second; `hops` seconds; `counts` what it cost, by process, topic and kind;
    `more` what only this workload has."""

    workload: str
    what: str
    side: str
    unit: str
    units: int
    nodes: int
    seconds: float
    create_seconds: float
    hops: list[float]
    counts: Counts
    messages: int
    trouble: dict[str, int]
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        return self.units / self.seconds

    def hop_ms(self, quantile: float) -> float | None:
        return None if not self.hops else 1000 * at_quantile(self.hops, quantile)

    @property
    def mean_hop_ms(self) -> float | None:
        return None if not self.hops else 1000 * statistics.fmean(self.hops)


def at_quantile(values: Sequence[float], quantile: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]


class Measure:
    """All runs of one invocation. `profile` names the process to profile, `folder` where the profiles go."""

    def __init__(self, stage: Stage, sizes: Sizes, *, repeat: int, profile: str | None = None,
                 folder: Path | None = None) -> None:  # fmt: skip
        self._stage = stage
        self._sizes = sizes
        self._repeat = repeat
        self._profile = profile
        self._folder = (folder or Path()).resolve()
        self.runs: list[Run] = []
        self._peak = 0.0

    async def warm_up(self) -> None:
        """Everything that is slow only the first time: imports, metadata, JIT of the broker, caches."""
        for _ in range(2):
            for side, driver in self._stage.drivers.items():
                for name in WARM_UP:
                    await driver.do("run", workload=name, sizes=_plain(QUICK), timeout=RUN_SEC)
                await asyncio.sleep(SETTLE_SEC if side == FLOWKIT else 0)

    async def simple(self, name: str) -> None:
        """FlowKit and the floor in turns, so that both see the same machine."""
        for turn in range(self._repeat):
            for side in self._stage.drivers:
                sizes = _plain(self._sizes)
                await self._run(side, simple(name, self._sizes), "run", turn, workload=name, sizes=sizes)

    async def graphs(self) -> None:
        """W5. Small graphs are run more often, so that each repetition takes about as long."""
        largest = max(self._sizes.graphs)
        for turn in range(self._repeat):
            for size in self._sizes.graphs:
                work = blocks(size)
                for _ in range(max(1, min(5, largest // (10 * size)))):
                    await self._run(FLOWKIT, work, "graph", turn, size=size, label=f"W5 {size}")
            await self._run(
                FLOWKIT, blocks(largest), "graph-beside", turn, size=largest, sizes=_plain(self._sizes),
                label=f"W5 {largest}+W2",
            )  # fmt: skip
        most = await self._stage.meter.largest_document(self._stage.database)
        for run in self.runs:
            if run.workload.startswith("W5"):
                run.more["largest_document"] = most

    async def naps(self) -> None:
        """W6, once: CPU and memory while nobody does anything but wait, and how late each wakes."""
        sizes, driver, worker = self._sizes, self._stage.drivers[FLOWKIT], self._stage.worker
        loop = asyncio.get_running_loop()
        first = await self._stage.meter.read()
        began = loop.time()
        await driver.do("nap", sizes=_plain(sizes), timeout=RUN_SEC)
        created = loop.time()
        while (state := await worker.do("naps"))["waiting"] < sizes.naps:
            if loop.time() - began > sizes.nap_sec:
                raise BenchFailed(f"W6: only {state['waiting']} of {sizes.naps} tasks wait when the first are due")
            await asyncio.sleep(0.25)

        await asyncio.sleep(min(NAP_SETTLE_SEC, state["first_due_in"] / 4))
        quiet = (await worker.do("naps"))["first_due_in"] - min(NAP_SPARE_SEC, sizes.nap_sec / 6)
        if quiet < 1.0:
            raise BenchFailed("W6: the machine is too slow: no quiet time before the first wake-up; raise nap_sec")
        asleep, from_ = await self._stage.meter.read(), loop.time()
        await asyncio.sleep(quiet)
        rest, window = await self._stage.meter.read(), loop.time() - from_

        late = await driver.do("awake", timeout=sizes.nap_sec + RUN_SEC)
        if any(one < 0 for one in late):
            raise BenchFailed("W6: a task woke before its time")
        seconds = loop.time() - began
        await asyncio.sleep(SETTLE_SEC)
        work_name = f"{sizes.naps} tasks that wait {sizes.nap_sec:g} s"
        after = await self._stage.meter.read()
        counts = after.since(first)
        more = {
            "quiet_sec": window,
            "cpu_percent": {n: 100 * s / window for n, s in rest.since(asleep).cpu.items()},
            "memory_growth_mb": {n: mb - asleep.rss[n] for n, mb in rest.rss.items()},
            "late_sec": {"p50": at_quantile(late, 0.5), "p99": at_quantile(late, 0.99), "max": max(late)},
        }
        self.runs.append(
            Run("W6", work_name, FLOWKIT, "tasks", sizes.naps, sizes.naps, seconds, created - began, [], counts,
                messages(counts, self._stage.prefix), {}, more)
        )  # fmt: skip

    async def maps(self, name: str) -> None:
        """W8 and W9: as they are, W8 with W3 before it; and how much memory each item takes, and what each further run
        leaves behind: after the first the process has what it keeps for the next, buffers and free lists."""
        work, first, peaks = simple(name, self._sizes), 0.0, 0.0
        rests: list[float] = []
        for turn in range(self._repeat):
            if name == "W8":
                await self._written(turn)
            if turn == 0:
                first = await self._at_rest()
            watch = asyncio.create_task(self._highest())
            try:
                run = await self._run(FLOWKIT, work, "run", turn, workload=name, sizes=_plain(self._sizes))
            finally:
                watch.cancel()
            await asyncio.sleep(MAP_SETTLE_SEC)
            peaks = max(peaks, self._peak)
            rests.append(await self._at_rest())
            run.more["peak_bytes_per_item"] = (peaks - first) * 2**20 / work.items
            if turn:
                run.more["left_bytes_per_item"] = (rests[-1] - rests[0]) * 2**20 / (turn * work.items)

    async def _written(self, turn: int) -> None:
        for _ in range(WRITTEN_RUNS):
            work, sizes = simple("W3", self._sizes), _plain(self._sizes)
            await self._run(FLOWKIT, work, "run", turn, workload="W3", sizes=sizes, label=WRITTEN)

    async def _at_rest(self) -> float:
        """MB of the process that drives, when it holds only what it needs."""
        await self._stage.drivers[FLOWKIT].do("trim")
        return self._driver_mb()

    async def _highest(self) -> None:
        self._peak = 0.0
        while True:
            self._peak = max(self._peak, self._driver_mb())
            await asyncio.sleep(0.05)

    def _driver_mb(self) -> float:
        return rss_mb(self._stage.drivers[FLOWKIT].pid)

    async def _run(self, side: str, work: Workload, command: str, turn: int, *, label: str = "",
                   **arguments: Any) -> Run:  # fmt: skip
        name = label or work.name
        profiled = side == FLOWKIT and self._profile in self._stage.children and turn == 0
        before = await self._stage.meter.read()
        if profiled:
            await self._stage.children[str(self._profile)].do("profile")
        timeout = MAP_SEC if work.items else RUN_SEC
        answer = await self._stage.drivers[side].do(command, timeout=timeout, **arguments)
        if profiled:
            to = self._folder / f"bench-{self._profile}-{name.replace(' ', '-')}.pstats"
            await self._stage.children[str(self._profile)].do("profile", to=str(to))
        await asyncio.sleep(SETTLE_SEC)
        counts = (await self._stage.meter.read()).since(before)

        dead = sum(n for topic, n in counts.kafka.items() if topic.endswith("dead.v1"))
        if dead:
            raise BenchFailed(f"{name}: {dead} messages went to dead.v1")
        run = Run(
            name, work.what, side, work.unit, work.units, work.nodes, answer["seconds"], answer["create_seconds"],
            answer["hops"], counts, messages(counts, self._stage.prefix), answer["trouble"],
        )  # fmt: skip
        if answer["beside"]:
            run.more |= {"chains_beside": len(answer["beside"]), "slowest_chain_ms": 1000 * max(answer["beside"])}
        self.runs.append(run)
        return run


def _plain(sizes: Sizes) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(sizes)
    return plain


__all__ = ["FLOOR", "FLOWKIT", "Measure", "Run", "at_quantile"]
