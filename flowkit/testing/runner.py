"""Runs many seeds, on several cores if asked, and says what was injected, what it cost, and what went wrong."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields

from flowkit.testing.faults import INJECTED
from flowkit.testing.guards import removed
from flowkit.testing.world import Report

MOST_SHOWN = 3


@dataclass(slots=True)
class Tally:
    """What many seeds came to. `bad` holds the violations: kind -> [(seed, detail)]."""

    mode: str
    without: list[str]
    directed: list[str]
    seeds: int = 0
    seconds: float = 0.0
    steps: int = 0
    runs: int = 0
    needed: int = 0
    most_runs: int = 0
    virtual_sec: float = 0.0
    counts: Counter[str] = field(default_factory=Counter)
    recover: list[float] = field(default_factory=list)
    bad: defaultdict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))

    @property
    def faults(self) -> int:
        """How many faults were injected: planned ones, and those that befell single messages, reads and writes."""
        return sum(self.counts[name] for name in INJECTED)

    @property
    def bad_seeds(self) -> set[int]:
        return {seed for found in self.bad.values() for seed, _ in found}

    def add(self, report: Report) -> None:
        self.seeds += 1
        self.steps += report.steps
        self.runs += report.runs
        self.needed += report.needed
        self.most_runs = max(self.most_runs, report.most_runs)
        self.virtual_sec += report.virtual_sec
        self.counts.update(report.counts)
        self.recover.append(report.recover_sec)
        for violation in report.violations:
            self.bad[violation.kind].append((report.seed, f"{violation.task_id[:8]} {violation.detail}"))

    def merge(self, other: Tally) -> None:
        self.seeds += other.seeds
        self.seconds = max(self.seconds, other.seconds)
        self.steps += other.steps
        self.runs += other.runs
        self.needed += other.needed
        self.most_runs = max(self.most_runs, other.most_runs)
        self.virtual_sec += other.virtual_sec
        self.counts.update(other.counts)
        self.recover += other.recover
        for kind, found in other.bad.items():
            self.bad[kind] += found


def run_seeds(
    seeds: Iterable[int],
    mode: str = "chaos",
    *,
    without: Sequence[str] = (),
    directed: Sequence[str] = (),
    budget_sec: float | None = None,
    until_bad: bool = False,
    on_report: Callable[[Report], None] | None = None,
) -> Tally:
    """Simulate the seeds, one after the other, in this process; no further seed once `budget_sec` are spent, or once
    one broke a promise, if `until_bad`."""
    from flowkit.testing.play import simulate

    tally = Tally(mode, list(without), list(directed))
    began = time.perf_counter()
    with removed(without) as in_store:
        for seed in seeds:
            try:
                report = simulate(seed, mode, without=in_store, directed=directed)
            except Exception as error:  # the world itself failed: that is a finding as well
                last = traceback.format_exception(error)[-3:]
                tally.bad["world_failed"].append((seed, " ".join("".join(last).split())))
                tally.seeds += 1
            else:
                tally.add(report)
                if on_report is not None:
                    on_report(report)
            gc.collect()
            if (until_bad and tally.bad) or (budget_sec is not None and time.perf_counter() - began > budget_sec):
                break
    tally.seconds = time.perf_counter() - began
    return tally


def run_in_processes(
    first: int,
    last: int,
    mode: str = "chaos",
    *,
    without: Sequence[str] = (),
    directed: Sequence[str] = (),
    jobs: int | None = None,
) -> Tally:
    """The same, in several processes with a fixed hash seed each: what fails here replays everywhere."""
    jobs = jobs or min(os.cpu_count() or 1, max(1, (last - first) // 10))
    began = time.perf_counter()
    children = []
    for job in range(jobs):
        command = [sys.executable, "-m", "flowkit.testing", "run", "--json", "--jobs", "1", "--mode", mode]
        command += ["--seeds", f"{first + job}:{last}:{jobs}"]
        command += [part for name in without for part in ("--without", name)]
        command += [part for name in directed for part in ("--directed", name)]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        children.append(subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True))
    total = Tally(mode, list(without), list(directed))
    for child in children:
        output, _ = child.communicate()
        if child.returncode not in (0, 1):
            raise RuntimeError(f"{child.args!r} ended with {child.returncode}")
        total.merge(from_json(output))
    total.seconds = time.perf_counter() - began
    return total


def to_json(tally: Tally) -> str:
    return json.dumps({item.name: getattr(tally, item.name) for item in fields(tally)})


def from_json(text: str) -> Tally:
    row = json.loads(text)
    bad = row.pop("bad")
    tally = Tally(**{**row, "counts": Counter(row["counts"])})
    for kind, found in bad.items():
        tally.bad[kind] += [(seed, detail) for seed, detail in found]
    return tally


def describe(tally: Tally) -> str:
    """The tally for people."""
    count = max(1, tally.seeds)
    faults = {name: n for name, n in sorted(tally.counts.items())}
    planned = sum(n for name, n in faults.items() if name.startswith("F_"))
    injected = tally.faults / count
    recover = sorted(tally.recover) or [0.0]
    lines = [
        f"{tally.seeds} seeds, mode {tally.mode}" + _listed("without", tally.without) + _listed("with", tally.directed),
        f"  {tally.seeds / max(tally.seconds, 1e-9):.1f} seeds/s, {tally.steps // count} callbacks and "
        f"{tally.virtual_sec / count:.0f} virtual seconds per seed",
        f"  {tally.runs / max(1, tally.needed):.3f} runs per needed run, {tally.runs} in all, at most "
        f"{tally.most_runs} of one node",
        f"  recovered within {recover[len(recover) // 2]:.0f} s (median), {recover[-1]:.0f} s (longest)",
        f"  {injected:.2f} faults per seed, {planned / count:.2f} of them planned:",
    ]
    lines += [f"    {name:28s} {n:7d}  {n / count:8.2f}" for name, n in faults.items()]
    if not tally.bad:
        lines.append("  no violations")
    for kind, found in sorted(tally.bad.items(), key=lambda item: -len(item[1])):
        seeds = sorted({seed for seed, _ in found})
        lines.append(f"  {kind}: in {len(seeds)} seeds ({100 * len(seeds) / count:.1f} %)")
        shown: set[int] = set()
        for seed, detail in found:
            if seed not in shown and len(shown) < MOST_SHOWN:
                shown.add(seed)
                lines += [f"      {detail[:400]}", f"      replay: {replay(seed, tally)}"]
    return "\n".join(lines)


def _listed(word: str, names: Sequence[str]) -> str:
    return f", {word} {', '.join(names)}" if names else ""


def replay(seed: int, tally: Tally) -> str:
    """The command that shows a seed's history."""
    options = "".join(f" --without {name}" for name in tally.without)
    options += "".join(f" --directed {name}" for name in tally.directed)
    return f"python -m flowkit.testing trace {seed} --mode {tally.mode}{options}"
