"""A graph as a Mermaid flowchart, for documents and terminals."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from flowkit.core.graph import SUCCESS, Edge, FanIn, Graph

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


def to_mermaid(graph: Graph, states: Mapping[str, str] | None = None) -> str:
    """The flowchart's text; `states` by node id colours the nodes. Ids are safe whatever they are."""
    states = states or {}
    # Names of our own: an id such as `end` or `a.b` means something to Mermaid.
    names = {node_id: f"n{number}" for number, node_id in enumerate(graph.nodes)}
    lines = ["flowchart TD"]

    for node_id, node in graph.nodes.items():
        parts = [node_id, node.type, _fan_in(node.fan_in), states.get(node_id, "")]
        label = "<br/>".join(_safe(part) for part in parts if part)
        style = f":::{states[node_id]}" if states.get(node_id) in STYLES else ""
        lines.append(f'    {names[node_id]}["{label}"]{style}')

    for node_id in graph.nodes:
        lines += [_arrow(edge, names) for edge in graph.incoming[node_id]]
        lines += [f"    {names[source]} -. reads .-> {names[node_id]}" for source in graph.reads[node_id]]

    used = {states[node_id] for node_id in graph.nodes if states.get(node_id) in STYLES}
    lines += [f"    classDef {state} {STYLES[state]}" for state in STYLES if state in used]
    return "\n".join(lines) + "\n"


def _fan_in(fan_in: FanIn) -> str:
    return "" if fan_in.need is None else f"starts on {fan_in.need}"


def _arrow(edge: Edge, names: Mapping[str, str]) -> str:
    source, target = names[edge.source], names[edge.target]
    if edge.lenient:
        return f"    {source} -. reads .-> {target}"
    if edge.on == SUCCESS:
        return f"    {source} --> {target}"
    return f"    {source} -- {edge.on} --> {target}"


def _safe(text: str) -> str:
    return UNSAFE.sub(lambda found: f"#{ord(found[0])};", text[:200])
