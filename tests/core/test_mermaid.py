"""The flowchart of a graph."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flowkit.core.dialect import parse_graph
from flowkit.core.graph import Graph, Node
from flowkit.core.mermaid import to_mermaid
from tests.core.graphs import graph, node, valid_graphs

LABEL = r'"[A-Za-z0-9_. :#;/<>-]*"'
NAME = r"n\d+(_\d+)*u?"
LINE = re.compile(
    rf"flowchart TD|    ( {{4}})*{NAME}(\[{LABEL}\]|\[\[{LABEL}\]\]|\(\[{LABEL}\]\))(:::[a-z]+)?"
    rf"|    ( {{4}})*{NAME} (-->|-- (failure|end|{LABEL}) -->|-\. (reads|undone by) \.->) {NAME}"
    rf"|    ( {{4}})*(subgraph {NAME}\[{LABEL}\]|end)|    class {NAME} [a-z]+|    classDef [a-z]+ [a-z0-9#:,-]+"
)


def test_nodes_edges_and_states_are_drawn() -> None:
    read = parse_graph(
        graph(
            node("list"),
            node("load", depends_on=["list"]),
            node("end", fan_in="any", inputs={"x": {"$from": "list"}}),
            edges=[{"from": "load", "to": "end", "on": "failure"}],
        )
    )

    assert to_mermaid(read, {"list": "finished", "load": "odd", "nobody": "failed"}) == (
        "flowchart TD\n"
        '    n0["list<br/>work<br/>finished"]:::finished\n'
        '    n1["load<br/>work<br/>odd"]\n'
        '    n2["end<br/>work<br/>starts on 1"]\n'
        "    n0 --> n1\n"
        "    n1 -- failure --> n2\n"
        "    n0 -. reads .-> n2\n"
        "    classDef finished fill:#dafbe1,stroke:#2da44e,color:#044f1e\n"
    )


def test_conditions_maps_graphs_and_what_undoes_are_drawn() -> None:
    read = parse_graph(
        graph(
            node("load", foreach=[1, 2], max_parallel=4, gather="any"),
            node("poll", depends_on=["load"], repeat={"until": "output > 1"}),
            node(
                "calc",
                type="task",
                graph=graph(node("a"), node("b", depends_on=["a"], type="sleep", inputs={"seconds": 1})),
            ),
            node("pay", when="params.pay", compensate={"type": "refund"}),
            node("mail", type="task", flow="mail@3"),
            node("count", type="coordinator_fn", io={"fn": "vars.incr", "fn_args": {"key": "n"}}),
            edges=[
                ["poll", "calc"],
                {"from": "calc", "to": "pay", "when": 'output == "]"'},
                {"from": "calc", "to": "mail", "otherwise": True},
                {"from": "pay", "to": "mail", "on": "failure", "when": "true"},
            ],
        )
    )

    drawn = to_mermaid(read, {"calc": "running"})

    assert drawn == (
        "flowchart TD\n"
        '    n0[["load<br/>work<br/>for each item#44; 4 at a time#44; until 1 finished"]]\n'
        '    n1[["poll<br/>work<br/>until output #62; 1"]]\n'
        '    subgraph n2["calc<br/>task<br/>running"]\n'
        '        n2_0["a<br/>work"]\n'
        '        n2_1(["b<br/>sleep"])\n'
        "        n2_0 --> n2_1\n"
        "    end\n"
        "    class n2 running\n"
        '    n3["pay<br/>work<br/>when params.pay"]\n'
        '    n3u["refund"]\n'
        '    n4["mail<br/>mail#64;3"]\n'
        '    n5["count<br/>vars.incr"]\n'
        "    n0 --> n1\n"
        "    n1 --> n2\n"
        '    n2 -- "when output #61;#61; #34;#93;#34;" --> n3\n'
        "    n3 -. undone by .-> n3u\n"
        '    n2 -- "otherwise" --> n4\n'
        '    n3 -- "failure#44; when true" --> n4\n'
        "    classDef running fill:#54aeff,stroke:#0969da,color:#0a3069\n"
    )
    assert all(LINE.fullmatch(line) for line in drawn.splitlines())


def bare(*names: str) -> Graph:
    none: dict[str, Any] = dict.fromkeys(names, ())
    return Graph({name: Node(name, name) for name in names}, none, none, none, none, leaves=names)


def test_no_name_breaks_out_of_its_label() -> None:
    drawn = to_mermaid(bare('"]; click n0 "javascript:alert(1)"', "<script>", "a\nb"), {"a\nb": '"<b>'})

    assert all(LINE.fullmatch(line) for line in drawn.splitlines())
    assert "<script" not in drawn
    assert "#60;script#62;" in drawn


@given(st.lists(st.text(), unique=True), st.text())
def test_any_names_give_only_lines_that_are_known(names: list[str], state: str) -> None:
    drawn = to_mermaid(bare(*names), dict.fromkeys(names, state))

    assert all(LINE.fullmatch(line) for line in drawn.removesuffix("\n").split("\n"))


@given(valid_graphs())
def test_every_edge_and_read_is_drawn_once(raw: Any) -> None:
    read = parse_graph(raw)

    lines = to_mermaid(read).splitlines()

    arrows = sum(len(edges) for edges in read.incoming.values()) + sum(map(len, read.reads.values()))
    assert len(lines) == 1 + len(read.nodes) + arrows
    assert all(LINE.fullmatch(line) for line in lines)
