"""`python -m bench.idle`: what processes take that have nothing to do, in percent of a core.

A coordinator and a worker on a real Kafka and MongoDB (`--backend embedded`: one process on a file), after a few tasks,
with nothing to do any more. The CPU is the scheduler's own account, in nanoseconds, for steps of 10 ms say little.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
from pathlib import Path

import msgspec

from bench.measure import RUN_SEC
from bench.processes import exit_code_of
from bench.stage import FLOWKIT, ClusterStage, EmbeddedStage, Stage
from bench.workloads import QUICK

QUIET_SEC = 15.0
"""Until what follows a task is done: it is counted some ten seconds after its end."""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.idle", description=__doc__.partition("\n")[0])
    parser.add_argument("--backend", choices=("cluster", "embedded"), default="cluster")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each look (default: 10)")
    parser.add_argument("--repeat", type=int, default=3)
    return parser.parse_args()


async def bench(given: argparse.Namespace) -> None:
    stage: Stage = EmbeddedStage() if given.backend == "embedded" else ClusterStage(floor=False)
    async with stage:
        for name in ("W1", "W2"):
            await stage.drivers[FLOWKIT].do("run", workload=name, sizes=msgspec.to_builtins(QUICK), timeout=RUN_SEC)
        pids = {name: child.pid for name, child in stage.children.items()}
        print(", ".join(f"{name}: pid {pid}" for name, pid in pids.items()), flush=True)
        await asyncio.sleep(QUIET_SEC)
        looks: list[dict[str, float]] = []
        for _ in range(given.repeat):
            before = {name: ran_sec(pid) for name, pid in pids.items()}
            await asyncio.sleep(given.seconds)
            looks.append({n: 100 * (ran_sec(pid) - before[n]) / given.seconds for n, pid in pids.items()})
        for name in pids:
            values = sorted(look[name] for look in looks)
            print(f"{name}: {statistics.median(values):.2f} % of a core ({values[0]:.2f} - {values[-1]:.2f})")
        print(f"load now: {os.getloadavg()[0]:.1f}")


def ran_sec(pid: int) -> float:
    """How long a process has been on a core, with all its threads."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


if __name__ == "__main__":
    raise SystemExit(exit_code_of(bench(options())))
