"""`flowkit graph` and `flowkit schema`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flowkit.core.schema import graph_schema
from tests.cli.conftest import Cli, node

DRAWN = """\
flowchart TD
    n0["hi<br/>greet"]
    n1["loud<br/>shout"]
    n0 --> n1
"""


@pytest.mark.parametrize("option", [[], ["--mermaid"]])
def test_a_graph_is_drawn(option: list[str], cli: Cli) -> None:
    ran = cli("graph", "hello.json", *option)

    assert (ran.code, ran.out, ran.err) == (0, DRAWN, "")


def test_a_graph_is_checked(cli: Cli, write: Callable[..., Path]) -> None:
    assert cli("graph", "hello.json", "--check").out == "ok: hello: 2 nodes, 1 edge, roles: greet, shout\n"
    one = write(node("a", "x"))
    assert cli("graph", one, "--check").out == "ok: 1 node, 0 edges, roles: x\n"


def test_everything_that_is_wrong_is_said_with_code_place_and_nearest_name(
    cli: Cli, write: Callable[..., Path]
) -> None:
    graph = write({"node_id": "a", "tpe": "x"}, node("b", "y", "aa"), node("b", "y"))

    ran = cli("graph", graph, "--check")

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines()[0] == "flowkit: the graph has 4 problems:"
    assert "  E_KEY_UNKNOWN at nodes[0].tpe: a node has no key 'tpe' (did you mean 'type'?)" in ran.err
    assert "  E_PARENT_UNKNOWN at nodes[1].depends_on[0]: no node has the id 'aa' (did you mean 'a'?)" in ran.err
    assert "  E_NODE_DUPLICATE_ID at nodes[2].node_id" in ran.err


def test_the_schema_is_printed(cli: Cli) -> None:
    assert cli("schema").json == graph_schema()
