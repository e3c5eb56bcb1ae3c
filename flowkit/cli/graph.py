"""`flowkit graph` and `flowkit schema`: what can be said of graphs without running one."""

from __future__ import annotations

from argparse import Namespace

from flowkit import cli
from flowkit.cli.console import clean, put, put_json
from flowkit.cli.loading import load_graph
from flowkit.cli.roles import roles_needed
from flowkit.core.graph import Graph


def main(args: Namespace) -> int:
    if args.command == "schema":
        from flowkit.core.schema import graph_schema

        put_json(graph_schema())
        return cli.FINISHED

    from flowkit.core.dialect import parse_graph

    graph = parse_graph(load_graph(args.graph))
    if args.check:
        put(f"ok: {clean(graph.name) + ': ' if graph.name else ''}{size_of(graph)}")
    else:
        from flowkit.core.mermaid import to_mermaid

        put(to_mermaid(graph).rstrip())
    return cli.FINISHED


def size_of(graph: Graph) -> str:
    """How many nodes and edges it has, and which roles it needs."""
    nodes, edges = len(graph.nodes), sum(map(len, graph.incoming.values())) + sum(map(len, graph.reads.values()))
    roles = sorted(roles_needed(graph))
    counted = f"{nodes} node{'s' * (nodes != 1)}, {edges} edge{'s' * (edges != 1)}"
    return f"{counted}, roles: {', '.join(roles) or 'none'}"
