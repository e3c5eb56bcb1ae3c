"""Two trees of FlowKit in one run: `python -m bench.pairs OTHER_TREE` plays the same workloads with both, in turn.

A machine becomes faster and slower by more than what is looked for, within minutes; so each tree has servers and
processes of its own, all of them up from the beginning, and run after run one of each is timed, in an order that is
drawn anew each time. What is told are medians, and the median of the pairs' ratios: above 1, this tree is faster.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from bench.measure import RUN_SEC, WARM_UP, at_quantile
from bench.stage import FLOWKIT, ClusterStage, EmbeddedStage, Stage
from bench.workloads import FULL, QUICK, SIMPLE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HERE: Final = Path(__file__).resolve().parents[1]
START_SEC: Final = 240.0
REST_SEC: Final = 0.6
"""Between two runs: what the last one left to do is done."""
SETTLE_SEC: Final = 12.0


class Side:
    """One tree, with all that it needs, in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.runs: dict[str, list[Mapping[str, Any]]] = {}

    async def play(self, workload: str) -> None:
        await asyncio.sleep(REST_SEC)
        assert self._process.stdin is not None
        self._process.stdin.write(workload.encode() + b"\n")
        self.runs.setdefault(workload, []).append(await self.hear(RUN_SEC))

    async def hear(self, timeout: float) -> Mapping[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(timeout):
            line = await self._process.stdout.readline()
        if not line:
            raise SystemExit("a side has ended; what it said is above")
        said: Mapping[str, Any] = json.loads(line)
        return said

    def seconds(self, workload: str) -> list[float]:
        return [run["seconds"] for run in self.runs[workload]]


@asynccontextmanager
async def side(tree: Path, backend: str) -> AsyncIterator[Side]:
    """This module, importing everything from that tree."""
    command = [sys.executable, "-P", str(Path(__file__).resolve()), "--serve", backend]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, stdin=-1, stdout=-1, limit=2**24
    )
    try:
        found = Side(process)
        await found.hear(START_SEC)
        yield found
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(60.0):
                await process.wait()
        except TimeoutError:
            process.kill()
            raise


async def serve(backend: str) -> None:
    """Play the workloads that standard input names, and say what each took. All that this module imports comes from the
    other tree then: it must be what older ones have, too."""
    stage: Stage = EmbeddedStage() if backend == "embedded" else ClusterStage(floor=False)
    async with stage:
        driver = stage.drivers[FLOWKIT]
        for workload in WARM_UP:
            await driver.do("run", workload=workload, sizes=msgspec.to_builtins(QUICK), timeout=RUN_SEC)
        print("{}", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            before = await stage.meter.read()
            sizes = msgspec.to_builtins(FULL)
            answer = await driver.do("run", workload=line.strip(), sizes=sizes, timeout=RUN_SEC)
            cpu = (await stage.meter.read()).since(before).cpu
            print(json.dumps({"seconds": answer["seconds"], "hops": answer["hops"], "cpu": cpu}), flush=True)


async def compare(given: argparse.Namespace) -> None:
    async with AsyncExitStack() as stack:
        trees = {"other": given.other, "this": HERE}
        sides = {name: await stack.enter_async_context(side(tree, given.backend)) for name, tree in trees.items()}
        await asyncio.sleep(SETTLE_SEC)
        for turn in range(given.turns):
            print(f"turn {turn + 1} of {given.turns} ...", file=sys.stderr, flush=True)
            for workload in given.only:
                for one in random.sample(list(sides.values()), len(sides)):
                    await one.play(workload)
    for workload in given.only:
        for name, one in sides.items():
            print(f"{workload} {name:5} {_told(one, workload)}")
        pairs = zip(sides["other"].seconds(workload), sides["this"].seconds(workload), strict=True)
        print(f"{workload} this tree is {statistics.median(a / b for a, b in pairs):.2f} times as fast as the other")
    print("load at the end:", *(f"{load:.2f}" for load in os.getloadavg()))


def _told(one: Side, workload: str) -> str:
    seconds = one.seconds(workload)
    told = f"{1000 * statistics.median(seconds):.0f} ms ({1000 * min(seconds):.0f} - {1000 * max(seconds):.0f})"
    if hops := [hop for run in one.runs[workload] for hop in run["hops"]]:
        told += f", hops {1000 * at_quantile(hops, 0.5):.2f} ms, p99 {1000 * at_quantile(hops, 0.99):.2f}"
    cpus = [run["cpu"] for run in one.runs[workload]]
    spent = {name: statistics.median(cpu[name] for cpu in cpus) for name in cpus[0]}
    return f"{told}; CPU seconds: " + ", ".join(f"{name} {sec:.2f}" for name, sec in spent.items())


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.pairs", description=__doc__)
    parser.add_argument("other", type=Path, nargs="?", help="the other tree")
    parser.add_argument("--backend", choices=["embedded", "kafka-mongo"], default="kafka-mongo")
    parser.add_argument("--only", default="W1,W2,W3,W4b", help="workloads (default: W1,W2,W3,W4b)")
    parser.add_argument("--turns", type=int, default=24, help="runs of each on each side (default: 24)")
    parser.add_argument("--serve", choices=["embedded", "kafka-mongo"], help=argparse.SUPPRESS)
    found = parser.parse_args()
    found.only = [name.strip() for name in found.only.split(",") if name.strip()]
    if found.serve is None and found.other is None:
        parser.error("which tree? python -m bench.pairs ../flowkit-of-before")
    if unknown := [name for name in found.only if name not in SIMPLE]:
        parser.error(f"no workload {', '.join(unknown)} here; known are {', '.join(SIMPLE)}")
    if found.serve is None and not (found.other / "bench" / "stage.py").is_file():
        parser.error(f"{found.other} is no tree of FlowKit: it has no bench/stage.py")
    return found


if __name__ == "__main__":
    GIVEN = options()
    asyncio.run(serve(GIVEN.serve) if GIVEN.serve else compare(GIVEN))
