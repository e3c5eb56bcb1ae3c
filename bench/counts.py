"""`python -m bench.counts`: the gate of CI. Fails when a node costs more messages, documents or round trips than it
may.

Counts, not times: they are the same on a slow machine.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

from bench.measure import Measure
from bench.processes import BenchFailed
from bench.stage import ClusterStage
from bench.summary import summarise
from bench.targets import COUNTS, Verdict, judge
from bench.workloads import FULL

SIZES = replace(FULL, items=2000, children=300)
TRIES = 3
"""The leanest of so many runs counts: what a slow machine adds, a head written twice, a sweep, is not the node's."""


async def count() -> list[Verdict]:
    async with ClusterStage(floor=False) as stage:
        measure = Measure(stage, SIZES, repeat=TRIES)
        await measure.warm_up()
        for name in ("W2", "W3", "W4a", "W4b", "W8", "W9"):
            await measure.simple(name)
    return judge(summarise(measure.runs, pick=min), "kafka-mongo", COUNTS)


def main() -> int:
    try:
        verdicts = asyncio.run(count())
    except BenchFailed as error:
        print(f"the count failed: {error}", file=sys.stderr)
        return 1
    for one in verdicts:
        print(f"{'ok  ' if one.met else 'FAIL'} {one.workload:4} {one.measured:7.3f} {one.figure} ({one.wanted})")
    return 0 if all(one.met for one in verdicts) else 1


if __name__ == "__main__":
    raise SystemExit(main())
