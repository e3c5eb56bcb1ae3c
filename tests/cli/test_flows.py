"""`flowkit flows`: graphs with a name, and `flowkit run --flow`, on a file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowkit.core.graph_diff import Change, EdgeChange, GraphDiff, NodeChange
from tests.cli.conftest import Cli, node

DB = ("--db", "flow.db")
TIME = re.compile(r"(\d{4}-)?\d\d-\d\d \d\d:\d\d:\d\d")


@pytest.fixture
def put(cli: Cli, folder: Path) -> Callable[..., str]:
    """Puts a graph of these nodes as a version of `etl`; what was printed."""

    def put(*nodes: dict[str, Any], options: tuple[str, ...] = (), **more: Any) -> str:
        (folder / "etl.json").write_text(json.dumps({"nodes": list(nodes), **more}))
        ran = cli("flows", "put", "etl", "etl.json", *options, *DB)
        assert (ran.code, ran.err) == (0, "")
        return ran.out

    return put


def greet(name: str) -> dict[str, Any]:
    return node("a", "greet", inputs={"name": name})


def test_a_graph_is_put_under_a_name_and_counted(cli: Cli, put: Callable[..., str]) -> None:
    assert put(greet("Ada")) == "etl@1\n"
    assert put(greet("Bob"), options=("--tag", "prod", "--note", "why not")) == "etl@2\n"
    assert put(greet("Bob")) == "etl@2\n"
    assert cli("flows", "put", "etl", "hello.json", *DB, "--json").json == {"name": "etl", "version": 3}


def test_flows_are_listed(cli: Cli, put: Callable[..., str]) -> None:
    put(greet("Ada"), options=("--tag", "default", "--tag", "old"))
    put(greet("Bob"), options=("--note", "a note"))
    cli("flows", "put", "zoo", "hello.json", *DB)

    lines = [TIME.sub("TIME", line).split() for line in cli("flows", "list", *DB).out.splitlines()]

    assert lines == [
        ["NAME", "NEWEST", "DEFAULT", "CHANGED", "TAGS", "NOTE"],
        ["etl", "2", "1", "TIME", "old=1", "a", "note"],
        ["zoo", "1", "1", "TIME"],
    ]
    first = cli("flows", "list", *DB, "--limit", "1")
    assert "there are more: --cursor etl" in first.err
    page = cli("flows", "list", *DB, "--cursor", "etl", "--json").json
    assert [flow["name"] for flow in page["flows"]] == ["zoo"]
    assert page["cursor"] is None
    assert cli("flows", "list", *DB, "--cursor", "zoo").err == "flowkit: no flows behind that cursor\n"


def test_versions_are_listed(cli: Cli, put: Callable[..., str]) -> None:
    for name in ("Ada", "Bob", "Cy"):
        put(greet(name), options=("--note", f"for {name}"))
    cli("flows", "tag", "etl@2", "default", "prod", *DB)

    lines = [TIME.sub("TIME", line).split() for line in cli("flows", "versions", "etl", *DB).out.splitlines()]

    assert lines == [
        ["VERSION", "CREATED", "BY", "TAGS", "NOTE"],
        ["3", "TIME", "local", "latest", "for", "Cy"],
        ["2", "TIME", "local", "default,prod", "for", "Bob"],
        ["1", "TIME", "local", "for", "Ada"],
    ]
    assert "there are more: --cursor 2" in cli("flows", "versions", "etl", *DB, "--limit", "2").err
    page = cli("flows", "versions", "etl", *DB, "--cursor", "2", "--json").json
    assert [one["version"] for one in page["versions"]] == [1]


def test_a_version_is_shown_with_its_graph(cli: Cli, put: Callable[..., str], folder: Path) -> None:
    put(greet("Ada"), options=("--tag", "prod", "--note", "a note"))
    put(greet("Bob"))

    shown = cli("flows", "show", "etl@prod", *DB).out

    facts, graph = shown.split("{", 1)
    assert TIME.sub("TIME", facts) == (
        "flow etl@1\n  created  TIME by local\n  tags     prod\n  note     a note\n"
        "  graph    1 node, 0 edges, roles: greet\n"
    )
    assert json.loads("{" + graph)["nodes"][0]["inputs"] == {"name": "Ada"}
    assert cli("flows", "show", "etl", *DB, "--graph").json["nodes"][0]["inputs"] == {"name": "Bob"}
    view = cli("flows", "show", "etl@1", *DB, "--json").json
    assert (view["version"], view["tags"], view["note"]) == (1, ["prod"], "a note")
    (folder / "again.json").write_text(cli("flows", "show", "etl@1", *DB, "--graph").out)
    assert cli("flows", "put", "copy", "again.json", *DB).out == "copy@1\n"


def test_tags_are_moved_and_taken_off(cli: Cli, put: Callable[..., str]) -> None:
    put(greet("Ada"))
    put(greet("Bob"))
    assert cli("flows", "tag", "etl@1", "default", "prod", *DB).out == "etl@1\n"
    assert cli("flows", "tag", "etl@latest", "prod", *DB, "--json").json == {"name": "etl", "version": 2}
    assert cli("flows", "show", "etl", *DB, "--json").json["version"] == 1
    assert cli("flows", "untag", "etl", "default", *DB).out == ""
    assert cli("flows", "show", "etl", *DB, "--json").json["version"] == 2
    again = cli("flows", "untag", "etl", "default", *DB)
    assert (again.code, again.err) == (2, "flowkit: flow 'etl' has no tag 'default' [E_USAGE]\n")


def test_a_difference_is_printed_by_node_edge_and_key(cli: Cli, put: Callable[..., str]) -> None:
    put(greet("Ada"), node("old", "x"), node("c", "x", "a"), name="one")
    put(
        node("a", "greet", inputs={"name": "Bob"}, timeout_sec=5),
        node("new", "x", "a"),
        node("c", "x"),
        edges=[{"from": "a", "to": "c", "on": "failure"}],
        name="two",
    )

    assert cli("flows", "diff", "etl@1", "etl@2", *DB).out == (
        "etl@1 -> etl@2\n"
        "+ node new\n"
        "- node old\n"
        "~ node a\n"
        '    ~ inputs.name: "Ada" -> "Bob"\n'
        "    + timeout_sec: 5\n"
        "+ edge a -> new\n"
        "~ edge a -> c\n"
        '    ~ on: "success" -> "failure"\n'
        '~ the graph\'s name: "one" -> "two"\n'
    )
    told = cli("flows", "diff", "etl@1", "etl@2", *DB, "--json").json
    assert told["nodes_added"] == ["new"]
    assert told["edges_added"] == [["a", "new"]]
    assert told["nodes_changed"][0]["node_id"] == "a"
    assert cli("flows", "diff", "etl@2", "etl", *DB).out == "etl@2 and etl@2 are the same graph\n"


def test_a_difference_in_order_alone_says_so(cli: Cli, put: Callable[..., str]) -> None:
    put(greet("Ada"), node("b", "x"))
    put(node("b", "x"), greet("Ada"))
    assert cli("flows", "diff", "etl@1", "etl@2", *DB).out == "etl@1 and etl@2 differ only in the order of things\n"


def test_a_stranger_s_text_does_not_steer_the_terminal(cli: Cli, put: Callable[..., str]) -> None:
    put(greet("Ada"))
    put(greet("\x1b[2J"), options=("--note", "\x1b[31mred"))
    for words in (("show", "etl"), ("versions", "etl"), ("list",), ("diff", "etl@1", "etl@2")):
        assert "\x1b" not in cli("flows", *words, *DB).out


def test_a_graph_is_validated_without_a_database(cli: Cli, write: Callable[..., Path]) -> None:
    assert cli("flows", "validate", "hello.json").out == "ok: 2 nodes, 1 edge, roles: greet, shout\n"
    assert cli("flows", "validate", "hello.json", "--json").json == {"ok": True, "problems": []}
    wrong = write(node("a", "x", "b"))
    ran = cli("flows", "validate", wrong)
    assert (ran.code, ran.out) == (2, "")
    assert "E_PARENT_UNKNOWN at nodes[0].depends_on[0]" in ran.err
    machine = cli("flows", "validate", wrong, "--json")
    assert (machine.code, machine.json["ok"]) == (2, False)
    assert [problem["code"] for problem in machine.json["problems"]] == ["E_PARENT_UNKNOWN"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("show", "elt"), 1, "there is no flow 'elt' (did you mean 'etl'?) [E_FLOW_UNKNOWN]"),
        (("show", "etl@7"), 1, "flow 'etl' has no version 7: its newest is 1 [E_FLOW_UNKNOWN]"),
        (("show", "e t l"), 2, "'e t l' is no name of a flow"),
        (("put", "etl@2", "hello.json"), 2, "'etl@2' names a version of a flow; name the flow: 'etl' [E_FLOW_NAME]"),
        (("put", "etl", "hello.json", "--tag", "latest"), 2, "'latest' is the newest version, always"),
        (("put", "etl", "nothing.json"), 2, "cannot read nothing.json"),
        (("tag", "etl", "prod"), 2, "say which version of it: etl@3, etl@latest, or etl@ and another of its tags"),
        (("tag", "etl@1", "3"), 2, "the tag '3' would read as a version"),
        (("versions", "etl", "--cursor", "x"), 2, "--cursor: 'x' is not what `flows versions` printed"),
        (("diff", "etl@1", "etl@2"), 1, "flow 'etl' has no version 2"),
    ],
)
def test_what_cannot_be_done_is_said(
    words: tuple[str, ...], code: int, said: str, cli: Cli, put: Callable[..., str]
) -> None:
    put(greet("Ada"))
    ran = cli("flows", *words, *DB)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err


def test_only_put_makes_a_file(cli: Cli, folder: Path) -> None:
    ran = cli("flows", "list", "--db", "typo.db")
    assert ran.code == 2
    assert "there is no file typo.db; --db names the SQLite file or the MongoDB where the flows are" in ran.err
    assert not (folder / "typo.db").exists()


# Running them.


def test_a_flow_is_run_and_its_task_says_which_version(cli: Cli, put: Callable[..., str]) -> None:
    put(greet("Ada"))
    put(greet("Bob"), options=("--tag", "prod"))
    put(greet("Cy"))

    outputs = [
        cli("run", "--flow", flow, "--handlers", "app", *DB, "--quiet").json["text"]
        for flow in ("etl", "etl@1", "etl@prod")
    ]

    assert outputs == ["hello Cy", "hello Ada", "hello Bob"]
    tasks = cli("tasks", "list", *DB, "--json").json["tasks"]
    assert [task["flow"] for task in tasks] == ["etl@2", "etl@1", "etl@3"]
    assert "etl@2" in cli("tasks", "list", *DB, "--flow", "etl@prod").out
    assert re.search(r"^  flow        etl@2$", cli("tasks", "show", "last", *DB).out, re.MULTILINE)


def test_a_flow_is_left_to_others_to_run(cli: Cli, put: Callable[..., str]) -> None:
    put(greet("Ada"))
    first = cli("run", "--flow", "etl", *DB, "--detach", "--idempotency-key", "k").out
    put(greet("Bob"))
    assert cli("run", "--flow", "etl", *DB, "--detach", "--idempotency-key", "k").out == first
    assert cli("tasks", "list", *DB, "--json").json["tasks"][0]["flow"] == "etl@1"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--flow", "elt"), 1, "there is no flow 'elt' (did you mean 'etl'?)"),
        (("--flow", "odd"), 2, "E_NO_HANDLER at nodes[0].type: no handler for 'nobody'"),
    ],
)
def test_a_flow_that_cannot_be_run_makes_no_task(
    words: tuple[str, ...], code: int, said: str, cli: Cli, put: Callable[..., str], write: Callable[..., Path]
) -> None:
    put(greet("Ada"))
    cli("flows", "put", "odd", write(node("a", "nobody")), *DB)
    ran = cli("run", *words, "--handlers", "app", *DB)
    assert (ran.code, ran.out) == (code, "")
    assert said in ran.err
    assert cli("tasks", "list", *DB, "--json").json["tasks"] == []


def test_a_difference_is_worded_the_same_for_every_kind() -> None:
    from flowkit.cli.flows import lines_of

    diff = GraphDiff(
        "a@1",
        "b@1",
        same=False,
        nodes_changed=(NodeChange("n", (Change("meta", "removed", old={"x": 1}),)),),
        edges_removed=(("n", "m"),),
        edges_changed=(EdgeChange("n", "k", (Change("meta", "added", new=None),)),),
        changes=(Change("fail_fast", "removed", old=True),),
    )
    assert list(lines_of(diff)) == [
        "a@1 -> b@1",
        "~ node n",
        '    - meta: {"x": 1}',
        "- edge n -> m",
        "~ edge n -> k",
        "    + meta: null",
        "- the graph's fail_fast: true",
    ]
