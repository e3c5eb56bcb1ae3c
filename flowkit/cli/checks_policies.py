"""What the doctor says of policies for code: which bind, and whether a worker on this machine serves what they ask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from flowkit.cli.checks import Finding, fail, ok, warn
from flowkit.clock import SystemClock
from flowkit.code_policies import read_code_policies
from flowkit.config import CommonSettings, WorkerConfig
from flowkit.coordinator.flows import Flows
from flowkit.coordinator.graphs import Graphs
from flowkit.core.code_policy import NUMBERS, CodeRule, policies_in
from flowkit.errors import ConfigError, FlowKitError
from flowkit.ports import Store
from flowkit.sandbox.levels import HINTS, Report
from flowkit.sandbox.runtime import Level
from flowkit.worker.program_setup import level_by

SUBJECT: Final = "policies"
MOST_FLOWS: Final = 200
"""Of so many flows the graphs are looked at."""
GRAPHS: Final = "the `policy` in the graph of flow {}"


class Served:
    """How far a worker on this machine, with these settings, shuts code in."""

    def __init__(self, report: Report, cfg: WorkerConfig) -> None:
        """Raises `ConfigError` where `code_level` is no level."""
        self.level = level_by(report, cfg)
        self._refused = report.refused
        self._cfg = cfg

    def __contains__(self, level: str) -> bool:
        return not level or (self.level is not None and self.level.name >= level)

    def __str__(self) -> str:
        return "runs no code" if self.level is None else f"runs code at {self.level.name}"

    def what_to_do(self, wanted: Level) -> str:
        """So that it serves this level, too."""
        if wanted in self._refused:
            return f"{HINTS[wanted]}; or serve the role code on a machine that gives {wanted.name}"
        if self._cfg.code_level:
            return f"code_level is {self._cfg.code_level}: leave it empty, or say {wanted.name}"
        return "set code_trusted (FLOWKIT_CODE_TRUSTED=1) if you trust the code"


def of_policies(cfg: CommonSettings, here: Served) -> Iterator[Finding]:
    """Those of an operator: of all code, of tenants and of flows."""
    try:
        rules = read_code_policies(cfg.code_policy).rules
    except ConfigError as error:
        yield fail(SUBJECT, str(error), "no coordinator and no worker starts with this code_policy")
        return
    if not rules:
        yield ok(SUBJECT, "an operator has none: code gets what its graph asks for (code_policy)")
    for rule in rules:
        yield _of(rule, here)


async def of_graphs(store: Store, here: Served) -> list[Finding]:
    """Those that the graphs of the usual tenant's flows say of themselves: of each, the version that its name means."""
    clock = SystemClock()
    flows = Flows(store=store, graphs=Graphs(store, clock), clock=clock)
    found: list[Finding] = []
    try:
        page = await flows.list(limit=MOST_FLOWS)
        for flow in page.flows:
            name = f"{flow.name}@{flow.default}"
            graph = (await flows.get(name)).graph
            found += [_of(CodeRule(GRAPHS.format(name), said), here) for said in policies_in(graph)]
    except FlowKitError as error:
        return [*found, warn(SUBJECT, f"those of flows' graphs cannot be read: {error}")]
    if page.cursor is not None:
        found.append(warn(SUBJECT, f"the graphs of the first {MOST_FLOWS} flows were looked at, and there are more"))
    return found


def _of(rule: CodeRule, here: Served) -> Finding:
    said = f"{rule.origin}: {in_words(rule)}"
    if rule.level in here:
        return ok(SUBJECT, said)
    waits = f"{said}; a worker here {here}, so that code waits for another worker"
    return warn(SUBJECT, waits, here.what_to_do(Level[rule.level]))


def in_words(rule: CodeRule) -> str:
    """What a policy allows."""
    said = [f"{rule.level} at least"] if rule.level else []
    said += [f"at most {rule.said[key]:g} {noun}" for key, noun in NUMBERS.items() if rule.said.get(key) is not None]
    said += [f"{what} {rule.allowed(what)}" for what in ("network", "secrets") if rule.said.get(what) is not None]
    if rule.said.get("on_leak"):
        said.append(f"on_leak {rule.said['on_leak']}")
    return ", ".join(said) or "it bounds nothing"
