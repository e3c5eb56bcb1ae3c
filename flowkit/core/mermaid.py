"""A graph as a Mermaid flowchart, for documents and terminals: sub-graphs as boxes, conditions on their arrows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from flowkit.core.dialect import parse_graph
from flowkit.core.graph import SUCCESS, Edge, Graph, Node

STYLES: Final = {
    "pending": "fill:#f6f8fa,stroke:#8c959f,color:#24292f",
    "ready": "fill:#ddf4ff,stroke:#54aeff,color:#0a3069",
    "running": "fill:#54aeff,stroke:#0969da,color:#0a3069",
    "waiting": "fill:#fff8c5,stroke:#bf8700,color:#4d2d00",
    "finished": "fill:#dafbe1,stroke:#2da44e,color:#044f1e",
    "failed": "fill:#ffebe9,stroke:#cf222e,color:#82071e",
    "skipped": "fill:#ffffff,stroke:#8c959f,color:#57606a,stroke-dasharray:4",
    "cancelled": "fill:#eaeef2,stroke:#57606a,color:#24292f,stroke-dasharray:2",
}
UNSAFE: Final = re.compile(r"[^A-Za-z0-9_. :-]")
LONGEST: Final = 200


def to_mermaid(graph: Graph, states: Mapping[str, str] | None = None) -> str:
    """The flowchart's text; `states` by node id colours the nodes. Ids are safe whatever they are."""
    states = states or {}
    lines = ["flowchart TD", *_whole(graph, states, "n", "    ")]
    used = {states[node_id] for node_id in graph.nodes if states.get(node_id) in STYLES}
    lines += [f"    classDef {state} {STYLES[state]}" for state in STYLES if state in used]
    return "\n".join(lines) + "\n"


def _whole(graph: Graph, states: Mapping[str, str], prefix: str, indent: str) -> Iterator[str]:
    # Names of our own: an id such as `end` or `a.b` means something to Mermaid.
    names = {node_id: f"{prefix}{number}" for number, node_id in enumerate(graph.nodes)}
    for node_id, node in graph.nodes.items():
        yield from _node(node, names[node_id], states.get(node_id, ""), indent)
    for node_id, node in graph.nodes.items():
        name = names[node_id]
        for edge in graph.incoming[node_id]:
            yield f"{indent}{names[edge.source]} {_arrow(edge)} {name}"
        for source in graph.reads[node_id]:
            yield f"{indent}{names[source]} -. reads .-> {name}"
        if node.compensate is not None:
            yield f"{indent}{name} -. undone by .-> {name}u"


def _node(node: Node, name: str, state: str, indent: str) -> Iterator[str]:
    label = "<br/>".join(_safe(part) for part in (node.node_id, *_about(node), state) if part)
    coloured = state in STYLES
    if node.child is not None:
        yield f'{indent}subgraph {name}["{label}"]'
        yield from _whole(parse_graph(dict(node.child)), {}, f"{name}_", indent + "    ")
        yield f"{indent}end"
        if coloured:
            yield f"{indent}class {name} {state}"
    else:
        left, right = _shape(node)
        yield f'{indent}{name}{left}"{label}"{right}{f":::{state}" if coloured else ""}'
    if node.compensate is not None:
        yield f'{indent}{name}u["{_safe(node.compensate.type)}"]'


def _shape(node: Node) -> tuple[str, str]:
    """Double sides for what runs several times, round ones for what waits without a worker."""
    if node.foreach is not None or node.repeat is not None:
        return "[[", "]]"
    return ("([", "])") if node.type in ("sleep", "signal", "end") else ("[", "]")


def _about(node: Node) -> Iterator[str]:
    """What there is to say about a node beside its id."""
    yield node.flow or node.fn or node.type
    if node.fan_in.need is not None:
        yield f"starts on {node.fan_in.need}"
    if node.when is not None:
        yield f"when {node.when.text}"
    if node.foreach is not None:
        need, most = node.foreach.need, node.foreach.most
        yield "for each item" + (f", {most} at a time" if most else "") + (f", until {need} finished" if need else "")
    if node.repeat is not None:
        yield f"until {node.repeat.until.text}"


def _arrow(edge: Edge) -> str:
    if edge.lenient:
        return "-. reads .->"
    said = [edge.on] if edge.on != SUCCESS else []
    if edge.when is not None:
        said.append(f"when {edge.when.text}")
    if edge.otherwise:
        said.append("otherwise")
    if not said:
        return "-->"
    if said == [edge.on]:
        return f"-- {edge.on} -->"
    return f'-- "{_safe(", ".join(said))}" -->'


def _safe(text: str) -> str:
    return UNSAFE.sub(lambda found: f"#{ord(found[0])};", text[:LONGEST])
