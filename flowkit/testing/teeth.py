"""Takes each guard away in turn, and says who noticed: which checks, with which faults, after how many seeds."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from flowkit.testing.guards import GUARDS, HARMLESS, find
from flowkit.testing.runner import run_seeds

MOST_SEEDS = 3000
MOST_HARMLESS = 300
"""Of a guard whose absence breaks no promise, so many show enough."""


@dataclass(frozen=True, slots=True)
class Bite:
    """What came of taking a guard away, and its seconds with it. `seeds` were run, the last of which broke the promises
    `kinds`; none if nobody noticed."""

    guard: str
    mode: str
    without: tuple[str, ...]
    directed: tuple[str, ...]
    seeds: int
    kinds: tuple[str, ...]

    @property
    def command(self) -> str:
        """What shows the seed that noticed."""
        options = "".join(f" --without {name}" for name in self.without)
        options += "".join(f" --directed {fault}" for fault in self.directed)
        return f"python -m flowkit.testing trace {self.seeds - 1} --mode {self.mode}{options}"


def bite(name: str, most: int = MOST_SEEDS) -> Bite:
    """Run seeds from 0 on without this guard, until one breaks a promise. Raises `ValueError` if it does so with all
    guards as well."""
    guard = find(name)
    most = min(most, MOST_HARMLESS) if name in HARMLESS else most
    without = (name, *guard.seconds)
    tally = run_seeds(range(most), guard.mode, without=without, directed=guard.directed, until_bad=True)
    for seed in tally.bad_seeds:
        if run_seeds([seed], guard.mode, directed=guard.directed).bad:
            raise ValueError(f"seed {seed} breaks promises with all guards, too: see to that first")
    return Bite(name, guard.mode, without, guard.directed, tally.seeds, tuple(sorted(tally.bad)))


def bite_all(names: Iterable[str], most: int, jobs: int, on_bite: Callable[[Bite], None]) -> list[Bite]:
    """The same for many, several at a time."""
    found = []
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawned) as pool:
        for one in pool.map(partial(bite, most=most), names):
            on_bite(one)
            found.append(one)
    return found


def read(path: Path) -> dict[str, Bite]:
    rows = json.loads(path.read_text()) if path.exists() else []
    return {row["guard"]: _of(row) for row in rows}


def write(path: Path, bites: Mapping[str, Bite]) -> None:
    """In the order of the table, so that a change is easy to see."""
    rows = [json.dumps(asdict(bites[name])) for name in GUARDS if name in bites]
    path.write_text("[\n  " + ",\n  ".join(rows) + "\n]\n")


def _of(row: dict[str, object]) -> Bite:
    return Bite(**{name: tuple(item) if isinstance(item, list) else item for name, item in row.items()})  # type: ignore[arg-type]
