"""What this machine gives to programs of nodes: the levels at which they can be shut in, and what bounds them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flowkit.cli.checks import Finding, ok, warn
from flowkit.sandbox.landlock import INSTEAD_OF_HOME
from flowkit.sandbox.levels import HINTS, PYTHON_AT_L2, Fact, Report
from flowkit.sandbox.runtime import Level

GROUP = "cgroup."


def of_sandbox(report: Report) -> Iterator[Finding]:
    """What came of trying each level by starting a program at it."""
    yield from of_levels(report)
    yield of_groups(report.facts)


def of_levels(report: Report) -> Iterable[Finding]:
    given = [level.name for level in sorted(Level, reverse=True) if level not in report.refused]
    if not report.refused:
        there = ", ".join(fact.says for fact in report.facts if fact.name in ("user", "seccomp", "landlock"))
        yield ok("sandbox", f"programs can be run at {', '.join(given)} ({there})")
    for level, why in report.refused.items():
        yield warn("sandbox", f"no program can be run at {level.name}: {why}", HINTS[level])
    for fact in report.facts:
        if fact.name == PYTHON_AT_L2 and not fact.there and Level.L2 not in report.refused:
            yield warn("sandbox", f"no Python program can be run at L2: {fact.says}", INSTEAD_OF_HOME)


def of_groups(facts: Iterable[Fact]) -> Finding:
    """Control groups: what is not counted in one is bounded by less."""
    groups = [fact for fact in facts if fact.name.startswith(GROUP)]
    missing = [fact for fact in groups if not fact.there]
    if not missing:
        return ok("cgroups", f"programs are bounded by {', '.join(fact.name.removeprefix(GROUP) for fact in groups)}")
    said = "; ".join(f"{fact.name.removeprefix(GROUP)}: {fact.says}" for fact in missing)
    return warn("cgroups", said, "run the worker as root, or delegate a group to it (systemd: Delegate=yes)")
