"""Items, runs of a repetition, child tasks and what is undone, as they are shown; and what steers them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowkit.cli.board import Board
from flowkit.cli.fleet import _says_more, with_fleet
from flowkit.cli.roles import check_roles, node_of, roles_needed
from flowkit.coordinator.views import NodeView, Reason, TaskView
from flowkit.core.dialect import parse_graph
from flowkit.embedded import Embedded
from flowkit.errors import GraphError
from flowkit.wire.messages import Heartbeat, Hello
from tests.cli.conftest import Cli, node
from tests.cli.test_board import event
from tests.cli.test_tasks import DB, asked, ran, settled

LOAD = {"node_id": "load", "type": "greet", "foreach": ["Ada", "Bob"]}
MAP = [LOAD, node("last", "fail", "load")]
POLL = node("poll", "note", repeat={"until": "output == 'ran'"}, inputs={"path": "runs.txt"})
CHILD = {"name": "inner", "nodes": [node("in", "note", inputs={"path": "runs.txt"})]}


def board(*nodes: dict[str, Any]) -> Board:
    return Board(parse_graph({"nodes": list(nodes)}))


def view(status: str, *nodes: NodeView) -> TaskView:
    views = {node.node_id: node for node in nodes}
    return TaskView("t", status, "", "", "", None, None, "", {}, {}, 0, 1, 0.0, None, 1, "g", views)


# The board.


def test_items_are_folded_into_the_row_of_their_map() -> None:
    on = board(*MAP)

    on.apply(event("expanded", "load", "running", at=10.0, count=2))
    on.apply(event("leased", "load[0]", "running"))
    on.apply(event("succeeded", "load[0]", "finished"))
    on.apply(event("leased", "load[1]", "running"))

    assert list(on.rows) == ["load", "last"]
    assert on.rows["load"].folded() == "2 items: 1 running, 1 finished"
    assert on.rows["load"].seconds(11.5) == 1.5
    assert on.counts() == "1 running, 1 pending"


def test_an_item_that_failed_is_told_of_by_itself() -> None:
    on = board(*MAP)

    told = on.apply(event("failed", "load[1]", "failed", error={"code": "E", "message": "no"}, retry_at=None))

    assert told is not None
    assert (told.node_id, told.state, told.reason) == ("load[1]", "failed", "E: no")
    assert on.apply(event("failed", "load[1]", "failed", error={"code": "E"}, retry_at=None)) is None


def test_runs_are_counted_and_those_of_an_item_are_the_items_affair() -> None:
    on = board(POLL, {**LOAD, "repeat": {"until": "true"}})

    on.apply(event("repeated", "poll", "running", at=10.0, n=1))
    on.apply(event("leased", "poll#1", "running"))
    on.apply(event("leased", "load[0]#1", "running"))

    assert on.rows["poll"].folded() == "1 run: 1 running"
    assert on.rows["load"].folded() == ""


def test_what_undoes_has_a_row_behind_what_it_undoes() -> None:
    on = board({**LOAD, "compensate": {"type": "greet"}}, node("last", "fail", "load"))
    on.apply(event("leased", "load[1]/compensate", "running"))
    on.apply(event("succeeded", "load[1]/compensate", "finished"))
    on.apply(event("leased", "load[0]/compensate", "running"))

    row = on.rows["load/compensate"]

    assert list(on.rows) == ["load", "load/compensate", "last"]
    assert (row.state, row.depth, row.folded()) == ("running", 1, "2 undone: 1 running, 1 finished")


def test_a_view_brings_items_and_forgets_those_that_are_no_more() -> None:
    on = board(*MAP)
    on.apply(event("leased", "load[7]", "running"))
    on.apply(event("leased", "last/compensate", "running"))

    on.sync(view("running", NodeView("load", "greet", "running", size=5), NodeView("load[0]", "greet", "finished")))

    assert on.rows["load"].folded() == "5 items: 1 finished"
    assert list(on.rows) == ["load", "last"]


def test_a_map_of_nothing_says_so() -> None:
    on = board(*MAP)
    on.apply(event("expanded", "load", "running", count=0))
    assert on.rows["load"].folded() == "0 items"


# Roles.

NESTED = parse_graph(
    {
        "nodes": [
            {"node_id": "calc", "type": "task", "graph": CHILD},
            {"node_id": "ask", "type": "signal"},
            node("pay", "charge", compensate={"type": "refund"}),
        ]
    }
)


def test_the_roles_of_a_graph_are_those_of_the_graphs_in_it_and_of_what_undoes() -> None:
    assert roles_needed(NESTED) == {"note", "charge", "refund"}
    nodes = [node_of(NESTED, name) for name in ("pay", "pay[3]", "pay/compensate", "ask/compensate", "x")]
    assert [node and node.type for node in nodes] == ["charge", "charge", "refund", None, None]


def test_a_client_says_which_labels_no_worker_has() -> None:
    asks = {"zone": ["eu", "us"]}
    graph = parse_graph({"nodes": [node("a", "greet", worker_labels=asks), node("b", "greet", foreach=[1])]})
    reasons = [Reason("a", "ready", "a"), Reason("b[0]", "ready", "b"), Reason("x", "ready", "x")]
    workers: dict[str, Hello | Heartbeat] = {
        "w1": Hello("w1", "i", ["greet"], 1, 0.0, {"zon": "eu"}),
        "w2": Hello("w2", "i", ["greet"], 1, 0.0, {"zone": "eu"}, draining=True),
    }

    assert with_fleet(reasons, graph, workers) == [
        Reason("a", "no_worker", "node 'a' waits: no live worker that serves 'greet' has the labels zone=eu or us; "
               "the nearest, 'w1', has no label 'zone' (did you mean 'zon'?)"),
        *reasons[1:],
    ]  # fmt: skip
    workers["w3"] = Hello("w3", "i", ["greet"], 1, 0.0, {"zone": "us"})
    assert with_fleet(reasons, graph, workers) == reasons


def test_a_role_that_nobody_serves_is_found_wherever_it_stands() -> None:
    with pytest.raises(GraphError) as refused:
        check_roles(NESTED, {"charge": None}, [])
    assert [(problem.code, problem.place) for problem in refused.value.problems] == [
        ("E_NO_HANDLER", "nodes[0].graph.nodes[0].type"), ("E_NO_HANDLER", "nodes[2].compensate.type"),
    ]  # fmt: skip


# What is shown.

SHOWN = """\
nodes: 1 failed, 1 finished
  load     finished   SECONDS  2 items: 2 finished
  └─ last  failed     SECONDS  ValueError: no such column
"""
WATCHED = """\
CLOCK  #1    (task)            running    created
CLOCK  #1    load              running    expanded: 2 items
"""


def test_a_map_is_shown_in_one_line(cli: Cli, write: Callable[..., Path]) -> None:
    task_id = ran(cli, write(*MAP))

    assert SHOWN in settled(cli("tasks", "show", task_id, *DB).out)
    assert cli("tasks", "show", task_id, *DB, "--json").json["nodes"]["load[1]"]["state"] == "finished"


def test_items_are_watched_by_their_counts_or_one_by_one(cli: Cli, write: Callable[..., Path]) -> None:
    task_id = ran(cli, write(*MAP))

    counted = settled(cli("tasks", "watch", task_id, *DB).out)
    each = settled(cli("tasks", "watch", task_id, *DB, "--items").out)

    assert counted.startswith(WATCHED)
    assert "load              finished   gathered; 2 items: 2 finished\n" in counted
    assert "load[1]" not in counted
    assert each.count("load[1]") == 2


def test_a_run_says_which_items_failed_and_counts_the_others(cli: Cli, write: Callable[..., Path]) -> None:
    said = cli(
        "run", write({**LOAD, "foreach": ["Ada", 5], "type": "shout", "retry_policy": {"max": 1}}), "--handlers", "app"
    ).err

    assert "  load[1]       failed     AttributeError: " in said
    assert "2 items: 1 failed, 1 finished  item_failed: 1 of 2 items failed" in said
    assert "load[0]  " not in said


def test_children_are_shown_as_a_tree(cli: Cli, write: Callable[..., Path]) -> None:
    outer = {"nodes": [{"node_id": "deep", "type": "task", "graph": CHILD}]}
    each = {"node_id": "each", "type": "task", "foreach": [1, 2], "inputs": {"i": {"$item": ""}}, "graph": outer}
    task_id = ran(cli, write(each))

    shown = settled(cli("tasks", "show", task_id, *DB, "--tree").out)
    nested = cli("tasks", "show", task_id, *DB, "--tree", "--json").json["children"]

    lines = [line.split()[:-3] for line in shown.partition("child tasks: 4\n")[2].splitlines()[:4]]
    (one, two) = (line[1] for line in lines if len(line) == 2)  # both were created in one moment
    assert {one, two} == {"each[0]", "each[1]"}
    assert lines == [["├─", one], ["│", "└─", "deep", "(inner)"], ["└─", two], ["└─", "deep", "(inner)"]]
    assert sorted(head["parent_node"] for head in nested) == ["each[0]", "each[1]"]
    assert [child["parent_node"] for child in nested[0]["children"]] == ["deep"]


def test_a_task_without_children_says_so(cli: Cli) -> None:
    task_id = ran(cli, "hello.json", "-p", "name=Ada")
    assert "child tasks: none\n" in cli("tasks", "show", task_id, *DB, "--tree").out


# Steering.


def test_a_plan_says_what_a_restart_would_do(cli: Cli, write: Callable[..., Path]) -> None:
    task_id = ran(cli, write(*MAP, node("more", "note", inputs={"path": "runs.txt"})))
    edited = write(LOAD, node("new", "greet", inputs={"name": "Cy"}))

    assert cli("tasks", "restart", task_id, *DB, "--failed-only", "--plan").out == (
        "kept        load, more\nruns again  last\n"
    )
    assert cli("tasks", "restart", task_id, *DB, "--from", "load[1]", "--plan").out == (
        "kept        more\nruns again  last, load, load[1]\n"
    )
    assert cli("tasks", "restart", task_id, *DB, "--graph", edited, "--plan", "--json").json == {
        "kept": ["load"], "runs_again": [], "is_new": ["new"], "is_removed": ["last", "more"],
    }  # fmt: skip
    refused = cli("tasks", "restart", task_id, *DB, "--from", "lod", "--plan")
    assert (refused.code, refused.out) == (1, "")
    assert "cannot be restarted: it has no node 'lod' (did you mean 'load'?)" in refused.err


def test_a_heartbeat_does_not_make_a_roll_call_forget_a_hello() -> None:
    hello = Hello("w", "i", ["work"], 1, 5.0, lease_ttl_sec=30.0)

    assert _says_more(hello, Heartbeat("w", "i", ["work"], 1, 6.0))
    assert not _says_more(hello, Heartbeat("w", "i", ["work"], 1, 6.0, draining=True))
    assert not _says_more(hello, Heartbeat("w", "j", ["work"], 1, 6.0))
    assert not _says_more(hello, hello)
    assert not _says_more(None, hello)


def test_a_plan_says_what_becomes_of_children(cli: Cli, write: Callable[..., Path]) -> None:
    inside = {"nodes": [node("in", "note", inputs={"path": "runs.txt"}), node("bad", "fail", "in")]}
    task_id = ran(cli, write(node("each", "task", graph=inside, foreach=[1, 2], inputs={})))

    told = cli("tasks", "restart", task_id, *DB, "--failed-only", "--plan").out
    assert re.sub(r"task \S+", "task T", told) == (
        "runs again  each, each[0], each[1]\n"
        "goes on     each[0], task T\n  runs again  bad\n  kept        in\n"
        "goes on     each[1], task T\n  runs again  bad\n  kept        in\n"
    )
    as_json = cli("tasks", "restart", task_id, *DB, "--failed-only", "--plan", "--json").json
    assert [(one["node_id"], one["fate"], one["runs_again"], one["kept"]) for one in as_json["children"]] == [
        (name, "goes on", ["bad"], ["in"]) for name in ("each[0]", "each[1]")
    ]
    assert as_json["more_children"] == 0


def test_a_deadline_is_a_moment_or_so_long_from_now(cli: Cli, write: Callable[..., Path]) -> None:
    raw = write(node("in", "note", inputs={"path": "runs.txt"}))
    late = cli("run", raw, "--handlers", "app", *DB, "--deadline", "2020-01-01T00:00:00Z")
    assert late.code == 2
    assert "E_DEADLINE at deadline: 2020-01-01T00:00:00Z has passed" in late.err
    wrong = cli("run", raw, "--handlers", "app", *DB, "--deadline", "soon")
    assert wrong.code == 2
    assert "or say 30m, 2h, 7d from now" in wrong.err
    task_id = ran(cli, raw, "--deadline", "2h")
    assert re.search(r"^ +deadline +2\d{3}-", cli("tasks", "show", task_id, *DB).out, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (("--param", "name=Bob"), "HELLO BOB!"),
        (("--input", 'hi={"name": "Cy"}'), "HELLO CY!"),
        (("--graph", "edited.json"), {"text": "hello Ada"}),
    ],
)
def test_a_restart_may_bring_something_new(words: tuple[str, ...], output: Any, cli: Cli, folder: Path) -> None:
    task_id = ran(cli, "hello.json", "-p", "name=Ada")
    (folder / "edited.json").write_text(json.dumps({"nodes": [{"node_id": "hallo", "type": "greet"}]}))
    cli("tasks", "restart", task_id, *DB, *words)

    ended = cli("run", "--resume", task_id, "--handlers", "app", *DB, "--quiet")

    assert (ended.code, ended.json) == (0, output)
    assert cli("tasks", "show", task_id, *DB).code == 0


def test_what_is_no_json_is_refused(cli: Cli) -> None:
    task_id = ran(cli, "hello.json", "-p", "name=Ada")
    for words in (("restart", task_id, "--input", "hi={"), ("signal", task_id, "x", "--payload", "{")):
        answer = cli("tasks", words[0], *words[1:], *DB)
        assert answer.code == 2
        assert "is not JSON" in answer.err


ASK = {"node_id": "ask", "type": "signal", "inputs": {"name": "go", "schema": {"type": "object"}}}


def test_a_signal_is_kept_until_somebody_coordinates(cli: Cli, write: Callable[..., Path]) -> None:
    cli("run", write(ASK), *DB, "--detach")

    refused = cli("tasks", "signal", "last", "go", "--payload", "5", *DB)
    written = cli("tasks", "signal", "last", "go", "--payload", '{"ok": true}', *DB)
    ended = cli("run", "--resume", "last", *DB, "--quiet")

    assert (refused.code, written.code) == (2, 0)
    assert 'the payload does not fit: E_PAYLOAD at payload: 5 is not of type "object"' in refused.err
    assert "the request to signal task" in written.out
    assert (ended.code, ended.json) == (0, {"ok": True})


def test_a_node_is_paused_and_resumed(cli: Cli, write: Callable[..., Path]) -> None:
    task_id = cli("run", write(ASK, node("b", "greet", "ask")), *DB, "--detach").out.strip()
    cli("tasks", "pause", task_id, "--node", "b", *DB)

    async def held() -> list[str]:
        async with Embedded("flow.db") as engine, asyncio.timeout(60):
            task = engine.task(task_id)
            while True:
                reasons = await task.explain()
                if any(reason.code == "paused" for reason in reasons):
                    return [reason.node_id for reason in reasons if reason.code == "paused"]
                await asyncio.sleep(0.02)

    assert asyncio.run(held()) == ["b"]
    wrong = cli("tasks", "resume", task_id, "--node", "c", *DB)
    assert wrong.code == 2
    assert "has no node 'c'" in wrong.err
    assert cli("tasks", "resume", task_id, "--node", "b", *DB).code == 0
    kinds = asked(lambda client: client.backend.store.read_requests(task_id))
    assert [request.kind for request in kinds] == ["pause", "resume"]
