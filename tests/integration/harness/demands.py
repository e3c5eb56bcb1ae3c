"""What a run must show, each demand beside what was measured: all of them are judged, then any that was missed fails
the test."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.integration.harness.verdict import Recovery, Verdict

AT_LEAST = 20
WORKER_SEC = 2.0
"""How much longer than the TTL a dead worker's nodes may stand still."""
COORDINATOR_SEC = 8.0
QUEUE_SEC = 2.0
"""What was held up while a coordinator was missing comes all at once, and waits for room: of few kills, the p99 is the
one that waited longest."""
MANY = 20


@dataclass(frozen=True, slots=True)
class Demand:
    """`evidence`: a few of the cases that broke it."""

    what: str
    measured: Any
    limit: str
    met: bool
    evidence: Sequence[object] = ()

    def __str__(self) -> str:
        shown = "".join(f"\n      {item}" for item in self.evidence[:5])
        return f"{'ok  ' if self.met else 'MISS'} {self.what:<58} {self.measured!s:>12}   {self.limit}{shown}"


def none(what: str, found: Collection[object]) -> Demand:
    return Demand(what, len(found), "0", not found, [*found])


def exactly(what: str, measured: int, wanted: int) -> Demand:
    return Demand(what, measured, f"{wanted}", measured == wanted)


def at_most(what: str, measured: float, limit: float, said: str = "") -> Demand:
    return Demand(what, measured, f"<= {limit:g} {said}".rstrip(), measured <= limit)


def at_least(what: str, measured: float, limit: float) -> Demand:
    return Demand(what, measured, f">= {limit:g}", measured >= limit)


def of_kills(verdict: Verdict, plan: Mapping[str, int], slack: float = 1.0) -> list[Demand]:
    """`plan`: how many faults of each kind there had to be. `slack`: how many times as long as promised a recovery may
    take, where the machine is not ours alone."""
    kinds = verdict.kinds()
    hit, late = verdict.hit(), verdict.on_its_way() | verdict.stood_still()
    found = [exactly(f"faults: {kind}", kinds[kind], wanted) for kind, wanted in plan.items()]
    found += [
        at_least("attempts that ran when a fault struck, the fewest", verdict.fewest_running(), AT_LEAST),
        *of_promises(verdict),
        at_most("re-executions", len(verdict.reruns()), len(hit | late),
                f"attempts running at the faults on workers, {len(late)} of them about to begin or to report"),
        none("re-executions of attempts that no fault hit", verdict.unexcused()),
    ]  # fmt: skip
    limit, owner_sec = slack * (verdict.ttl_sec + WORKER_SEC), slack * COORDINATOR_SEC
    for kind in ("worker_kill", "worker_stop"):
        if kind in plan:
            found += recovered(f"{kind}: what ran there runs again", verdict.of_workers(kind)[0], limit)
    for kind in ("coordinator_kill", "coordinator_stop"):
        if kind in plan:
            partitions, tasks = verdict.of_coordinators(kind)
            found += recovered(f"{kind}: its partitions go on", partitions, owner_sec)
            queue = 0.0 if plan[kind] >= MANY else QUEUE_SEC
            found += recovered(f"{kind}: its tasks go on", tasks, owner_sec + queue)
    return found


def of_outage(verdict: Verdict, unfinished: Sequence[str], killed: int) -> list[Demand]:
    return [
        at_least("attempts that ran when the outage began", verdict.fewest_running(), AT_LEAST),
        none("long attempts that did not finish", unfinished),
        exactly("attempts killed", killed, 0),
        none("attempts that did not end by themselves", [run for run in verdict.ledger.runs if run.how != "done"]),
        none("re-executions", verdict.reruns()),
        *of_promises(verdict),
    ]


def of_promises(verdict: Verdict) -> list[Demand]:
    return [
        none("tasks lost", verdict.lost()),
        none("tasks with a wrong end", verdict.wrong),
        none("results applied twice", verdict.applied_twice()),
        none("promises broken, by the independent checker", verdict.violations()),
        none("limits of which more was in use than there is", over_limits(verdict)),
        none("processes that ended, loops that failed by themselves", verdict.complaints),
    ]


def of_load(verdict: Verdict, ended: Mapping[str, int]) -> list[Demand]:
    """That the kills met all that a graph can say. `ended`: how many tasks of each kind."""
    return [
        at_least("tasks that ended of each kind, the fewest", min(ended.values()), 1),
        at_least("limits that were used up, if only for a moment", used_up(verdict), 1),
        at_least("outputs that were kept, and not run for", verdict.from_cache(), 1),
    ]


def over_limits(verdict: Verdict) -> list[str]:
    return [f"{key}: {used} of {most}" for key, (used, most) in verdict.held().items() if used > most]


def used_up(verdict: Verdict) -> int:
    return sum(used == most for used, most in verdict.held().values())


def recovered(what: str, recovery: Recovery, limit: float) -> list[Demand]:
    """A percentile of nothing proves nothing."""
    return [
        at_least(f"{what}, cases", len(recovery.seconds), 1),
        at_most(f"{what}, p99 s", round(recovery.at(0.99), 2), limit),
    ]


# ------------------------------------------------------------------------------------------ saying so


def report(name: str, verdict: Verdict, demands: Sequence[Demand], more: Mapping[str, Any]) -> str:
    """The table, and where the machine stands. A JSON line goes to the file that FLOWKIT_REPORT names."""
    machine = {
        "cpus": os.cpu_count(),
        "load": [round(n, 1) for n in os.getloadavg()],
        "python": platform.python_version(),
    }
    figures = {**verdict.figures(), **more}
    judged = [{"what": d.what, "measured": d.measured, "limit": d.limit, "met": d.met} for d in demands]
    if path := os.environ.get("FLOWKIT_REPORT"):
        with open(path, "a") as file:
            line = {"report": name, **figures, "demands": judged, "machine": machine}
            file.write(json.dumps(line, default=str) + "\n")
    rows = [f"     {what:<58} {value}" for what, value in flat(figures)]
    return "\n".join(["", f"{name}, on {machine}", *map(str, demands), *rows, ""])


def flat(figures: Mapping[str, Any], under: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in figures.items():
        if isinstance(value, Mapping) and any(isinstance(inner, Mapping) for inner in value.values()):
            found += flat(value, f"{under}{name} ")
        else:
            found.append((f"{under}{name}", value))
    return found
