"""What the doctor says of policies for code: which bind, and whether this machine serves what they ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flowkit.adapters.memory_store import MemoryStore
from flowkit.cli import checks_policies
from flowkit.cli.checks_policies import Served, in_words, of_graphs, of_policies
from flowkit.clock import SystemClock
from flowkit.config import CoordinatorConfig, WorkerConfig
from flowkit.coordinator.flows import Flows
from flowkit.coordinator.graphs import Graphs
from flowkit.core.code_policy import CodeRule
from flowkit.errors import ConfigError
from flowkit.sandbox.levels import Report
from flowkit.sandbox.runtime import Level
from tests.cli.conftest import Cli
from tests.cli.test_doctor import lines

ALL = Report(())
ONLY_L2 = Report((), {Level.L3: "bubblewrap is not installed"})
NONE = Report((), {Level.L3: "bubblewrap is not installed", Level.L2: "no Landlock"})
THREE = {
    "every": {"level": "L2", "memory_mb": 2048, "wall_sec": 90},
    "tenants": {"acme": {"level": "L3", "network": ["*.example.com:443"], "secrets": "none"}},
    "flows": {"etl-*": {"network": "none", "on_leak": "fail"}},
}


def served(report: Report, **settings: Any) -> Served:
    return Served(report, WorkerConfig(**settings))


def looked_at(policy: Any, here: Served) -> list[tuple[str, str, str]]:
    text = policy if isinstance(policy, str) else json.dumps(policy)
    return [(one.level, one.message, one.hint) for one in of_policies(CoordinatorConfig(code_policy=text), here)]


def test_every_policy_is_told_with_what_it_allows() -> None:
    assert looked_at(THREE, served(ALL)) == [
        ("ok", "the policy of all code: L2 at least, at most 2048 MiB of memory, at most 90 seconds", ""),
        ("ok", "the policy of tenant 'acme': L3 at least, network only *.example.com:443, secrets none", ""),
        ("ok", "the policy of flow 'etl-*': network none, on_leak fail", ""),
    ]


def test_a_level_that_this_machine_does_not_give_is_told_with_what_to_do() -> None:
    every, tenant, flow = looked_at(THREE, served(ONLY_L2))

    assert (every[0], flow[0]) == ("ok", "ok")
    assert tenant[0] == "warn"
    assert tenant[1].endswith("; a worker here runs code at L2, so that code waits for another worker")
    assert tenant[2].startswith("install bubblewrap")
    assert tenant[2].endswith("or serve the role code on a machine that gives L3")


def test_a_level_that_the_settings_of_workers_give_away_is_told() -> None:
    _, tenant, _ = looked_at(THREE, served(ALL, code_level="L2"))

    assert tenant[0] == "warn"
    assert tenant[2] == "code_level is L2: leave it empty, or say L3"


@pytest.mark.parametrize(
    ("report", "settings", "level"),
    [
        (ALL, {}, Level.L3),
        (ONLY_L2, {}, Level.L2),
        (ALL, {"code_level": "L2"}, Level.L2),
        (NONE, {}, None),
        (NONE, {"code_trusted": True}, Level.L1),
        (ALL, {"code_level": "L1"}, None),
        (ONLY_L2, {"code_level": "L3", "code_trusted": True}, None),
    ],
)
def test_what_a_worker_here_serves_follows_from_the_machine_and_its_settings(
    report: Report, settings: dict[str, Any], level: Level | None
) -> None:
    assert served(report, **settings).level is level


def test_where_no_code_is_run_only_policies_that_ask_for_a_level_warn() -> None:
    found = looked_at(THREE, served(NONE))

    assert [level for level, _, _ in found] == ["warn", "warn", "ok"]
    assert "a worker here runs no code" in found[0][1]
    (trusted,) = looked_at({"every": {"level": "L1"}}, served(NONE))
    assert (trusted[0], trusted[2][:16]) == ("warn", "set code_trusted")


def test_no_policy_is_told_and_one_that_cannot_be_read_fails() -> None:
    assert looked_at("", served(ALL))[0][:2] == (
        "ok", "an operator has none: code gets what its graph asks for (code_policy)",
    )  # fmt: skip

    (broken,) = looked_at('{"tenant": {}}', served(ALL))
    assert broken[0] == "FAIL"
    assert "did you mean 'tenants'?" in broken[1]
    with pytest.raises(ConfigError, match="code_level is one of L1, L2, L3"):
        served(ALL, code_level="L4")


def test_a_policy_that_says_nothing_bounds_nothing() -> None:
    assert in_words(CodeRule("mine", {})) == "it bounds nothing"


# What graphs say of themselves.


def graph(level: str, *inner: dict[str, Any]) -> dict[str, Any]:
    code = {"node_id": "c", "type": "code", "code": {"source": "def main(inputs): ..."}}
    inside = [{"node_id": f"in{n}", "type": "task", "graph": one} for n, one in enumerate(inner)]
    return {"nodes": [code, *inside], **({"policy": {"level": level}} if level else {})}


async def put(store: MemoryStore, **graphs: dict[str, Any]) -> None:
    flows = Flows(store=store, graphs=Graphs(store), clock=SystemClock())
    for name, one in graphs.items():
        await flows.put(name, one)


async def test_the_policies_of_flows_graphs_are_told_also_of_those_inside() -> None:
    store = MemoryStore()
    await put(store, plain=graph(""), load=graph("L2"), ship=graph("L2", graph("L3"), graph("L2")))

    found = await of_graphs(store, served(ONLY_L2))

    assert [(one.level, one.message.split(";")[0]) for one in found] == [
        ("ok", "the `policy` in the graph of flow load@1: L2 at least"),
        ("ok", "the `policy` in the graph of flow ship@1: L2 at least"),
        ("warn", "the `policy` in the graph of flow ship@1: L3 at least"),
    ]


async def test_of_a_flow_the_version_counts_that_its_name_means() -> None:
    store = MemoryStore()
    await put(store, load=graph("L3"))
    await put(store, load=graph(""))

    assert await of_graphs(store, served(ONLY_L2)) == []

    await Flows(store=store, graphs=Graphs(store), clock=SystemClock()).tag("load", 1, "default")
    assert [one.level for one in await of_graphs(store, served(ONLY_L2))] == ["warn"]


async def test_that_not_all_flows_were_looked_at_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    await put(store, a=graph("L2"), b=graph("L2"))
    monkeypatch.setattr(checks_policies, "MOST_FLOWS", 1)

    _, more = await of_graphs(store, served(ALL))

    assert (more.level, more.message) == ("warn", "the graphs of the first 1 flows were looked at, and there are more")


def test_the_doctor_shows_them(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "flow.json").write_text(json.dumps(graph("L2")))
    (folder / "policy.json").write_text(json.dumps({"every": {"memory_mb": 512}}))
    monkeypatch.setenv("FLOWKIT_CODE_POLICY", "policy.json")
    cli("flows", "put", "etl", "flow.json", "--db", "flow.db")

    ran = cli("doctor", "--db", "flow.db", "--set", "code_level=L1")

    told = [line for line in ran.out.splitlines() if "policies: " in line]
    assert ran.code == 0
    assert told[0] == "ok    policies: the policy of all code: at most 512 MiB of memory"
    assert told[1].startswith("warn  policies: the `policy` in the graph of flow etl@1: L2 at least; a worker here")
    assert told[1].endswith("code_level is L1: leave it empty, or say L2")
    assert lines(ran.out)["environments"][0] == "ok"
