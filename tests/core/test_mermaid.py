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

LINE = re.compile(
    r'flowchart TD|    n\d+\["[A-Za-z0-9_. :#;/<>-]*"\](:::[a-z]+)?'
    r"|    n\d+ (-->|-- (failure|end) -->|-\. reads \.->) n\d+|    classDef [a-z]+ [a-z0-9#:,-]+"
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
