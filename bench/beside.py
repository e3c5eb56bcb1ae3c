"""`python -m bench.beside`: chains beside a large graph, and what their hops are made of.

W5's last part alone, on a real Kafka and MongoDB: the coordinator and the worker note when the node of a chain passes
each place on its way (`hop_notes.py`). With `--stretches` also what holds their loops up meanwhile; they run on
asyncio's own loop then, which is slower.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from bench import hop_stages, notes, stretches
from bench.counters import Counts
from bench.measure import RUN_SEC, SETTLE_SEC, WARM_UP, at_quantile
from bench.processes import BenchFailed, exit_code_of
from bench.report import machine
from bench.stage import FLOWKIT, ClusterStage
from bench.workloads import FULL, QUICK

NOTES, STRETCHES = "BENCH_NOTES", "BENCH_STRETCHES"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.beside", description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=100_000, help="of the large graph (default: 100000)")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--stretches", action="store_true", help="what holds the loops up, too")
    parser.add_argument("--bare", action="store_true", help="no notes: the figures only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every hop's stages there")
    return parser.parse_args()


async def bench(given: argparse.Namespace, folder: Path) -> None:
    if not given.bare:
        os.environ[NOTES] = str(folder)
    if given.stretches:
        os.environ[STRETCHES] = str(folder)
    sizes: dict[str, Any] = msgspec.to_builtins(FULL)
    found: list[hop_stages.Hop] = []
    threads: dict[int, notes.Thread] = {}
    async with ClusterStage(floor=False) as stage:
        driver = stage.drivers[FLOWKIT]
        for name in WARM_UP * 2:
            await driver.do("run", workload=name, sizes=msgspec.to_builtins(QUICK), timeout=RUN_SEC)
        await driver.do("run", workload="W3", sizes=sizes, timeout=RUN_SEC)
        for _ in range(given.repeat):
            await asyncio.sleep(SETTLE_SEC)
            before, began = await stage.meter.read(), time.monotonic()
            answer = await driver.do("graph-beside", size=given.nodes, sizes=sizes, timeout=RUN_SEC)
            ended, counts = time.monotonic(), (await stage.meter.read()).since(before)
            print(_figures(given.nodes, answer, counts), flush=True)
            if not given.bare:
                passed, threads = notes.read(folder)
                hops, lost = hop_stages.hops_in(passed, began, ended)
                found += hops
                if lost:
                    print(f"{lost} hops were not seen at every place", file=sys.stderr)
    print(machine(), f"load now: {os.getloadavg()[0]:.1f}", sep="; ")
    if not given.bare:
        if len(found) < 100:
            raise BenchFailed(f"only {len(found)} hops were seen: the graph is too small")
        print("", *hop_stages.table(found, threads, stretches.read(folder)), sep="\n")
    if given.json is not None:
        rows = [[hop.stage_ms(stage) for stage in hop_stages.STAGES] for hop in found]
        given.json.write_bytes(msgspec.json.encode(rows))


def _figures(nodes: int, answer: dict[str, Any], counts: Counts) -> str:
    hops = [1000 * hop for hop in answer["hops"]]
    cpu = ", ".join(f"{name} {seconds:.2f}" for name, seconds in counts.cpu.items())
    quantiles = ", ".join(f"p{int(100 * q)} {at_quantile(hops, q):.1f}" for q in (0.5, 0.9, 0.98, 0.99))
    return (
        f"{nodes / answer['seconds']:,.0f} nodes/s beside {len(answer['beside'])} chains; ms per hop: "
        f"mean {statistics.fmean(hops):.1f}, {quantiles}, at most {max(hops):.1f}; CPU seconds: {cpu}; "
        f"others' cores {counts.others:.2f}"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as FOLDER:
        raise SystemExit(exit_code_of(bench(options(), Path(FOLDER))))
