"""`python -m bench`: measure FlowKit, and the floor beneath it, and print a table."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

from bench.measure import Measure
from bench.processes import exit_code_of
from bench.report import print_tables, write_json
from bench.stage import ClusterStage, EmbeddedStage, Stage
from bench.workloads import ALL, FULL, MAPS, QUICK, SIMPLE


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--backend", choices=["embedded", "kafka-mongo"], default="kafka-mongo")
    parser.add_argument("--only", default=",".join(ALL), help="workloads, e.g. W1,W4b (default: all)")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each; medians are told (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--quick", action="store_true", help="small sizes: a look, not a measurement")
    parser.add_argument("--nap-sec", type=float, help="how long W6's tasks wait")
    parser.add_argument("--no-floor", action="store_true", help="FlowKit only")
    parser.add_argument("--profile", choices=["coordinator", "worker", "embedded"],
                        help="profile it in the first run of each workload: bench-PROCESS-WORKLOAD.pstats")  # fmt: skip
    parser.add_argument("--profile-dir", type=Path, default=Path(), metavar="FOLDER")
    found = parser.parse_args()
    found.only = [name.strip() for name in found.only.split(",") if name.strip()]
    if unknown := [name for name in found.only if name not in ALL]:
        parser.error(f"no workload {', '.join(unknown)}; known are {', '.join(ALL)}")
    return found


async def bench(given: argparse.Namespace) -> None:
    sizes = QUICK if given.quick else FULL
    if given.nap_sec is not None:
        sizes = dataclasses.replace(sizes, nap_sec=given.nap_sec)
    cluster = given.backend == "kafka-mongo"
    with_floor = cluster and not given.no_floor and any(name in SIMPLE for name in given.only)
    stage: Stage = ClusterStage(floor=with_floor) if cluster else EmbeddedStage()
    async with stage:
        measure = Measure(stage, sizes, repeat=given.repeat, profile=given.profile, folder=given.profile_dir)
        await measure.warm_up()
        for name in ALL:
            if name not in given.only:
                continue
            print(f"{name} ...", file=sys.stderr, flush=True)
            if name == "W5":
                await measure.graphs()
            elif name == "W6":
                await measure.naps()
            elif name in MAPS:
                await measure.maps(name)
            else:
                await measure.simple(name)
    print_tables(measure.runs, given.backend, quick=given.quick, profiled=bool(given.profile))
    if given.json is not None:
        write_json(given.json, measure.runs, given.backend, quick=given.quick, profiled=bool(given.profile))


if __name__ == "__main__":
    raise SystemExit(exit_code_of(bench(options())))
