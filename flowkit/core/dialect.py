"""Reads what users write as a graph, old forms included, or says everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

from flowkit.core import code, legacy, limits, policies, starts
from flowkit.core.expr import Expression
from flowkit.core.graph import BUILT_INS, MISSING, SUCCESS, Budget, Edge, Graph, Node, Reference
from flowkit.core.keys import EDGE, GRAPH, NODE
from flowkit.core.kinds import EXTENSION, Door, Key
from flowkit.core.lane import anchors, lanes
from flowkit.core.moments import read_moment
from flowkit.core.problems import Place, Problems, Unheard, shown
from flowkit.core.stream import FIRST_BATCH, Streaming, streaming, with_parents
from flowkit.core.stream_rules import StreamRules
from flowkit.core.template import Template, TemplateReader
from flowkit.core.topology import Some, Topology
from flowkit.core.values import Copier

SCHEMA_VERSION: Final = "2"
NO_TEMPLATE: Final = Template(MISSING)
RECORDS: Final = frozenset({"repeat", "cache", "compensate", "io"})
"""Keys whose records hold templates or expressions."""
SAID_BY_EDGES: Final = frozenset({"depends_on", "routing"})
PLAIN: Final = frozenset({"node_id", "type", "inputs", "depends_on", "meta"})
DEEPEST: Final = 16
"""So many graphs may stand one inside the other."""

N = TypeVar("N")


@dataclass(frozen=True, slots=True)
class Reading(Generic[N]):
    """A graph without problems: what its keys say, its nodes as they were kept, and which waits for which."""

    fields: dict[str, Any]
    nodes: list[N]
    topology: Topology


def parse_graph(raw: object, *, accepted: bool = False) -> Graph:
    """The graph that `raw` (decoded JSON) describes; it shares nothing with `raw`. One that was `accepted` is not asked
    again whether it makes sense, for the version that accepted it may have asked for less; only whether it can be read.

    Raises `GraphError` with all problems.
    """
    reading = _read(raw, _node, accepted)
    return _graph(reading.fields, reading.nodes, reading.topology)


def normalise(raw: object) -> dict[str, Any]:
    """The form that is stored: JSON of today's dialect, where `edges` says who waits for whom.

    It means what `raw` means, and normalising it changes nothing. Raises `GraphError` with all problems.
    """
    reading = _read(raw, _node_text)
    return _graph_text(reading.fields, reading.nodes, reading.topology)


def read_graph(raw: object, *, accepted: bool = False) -> tuple[Graph, dict[str, Any]]:
    """`parse_graph` and `normalise` in one reading."""
    reading = _read(raw, _node_and_text, accepted)
    nodes, texts = [node for node, _ in reading.nodes], [text for _, text in reading.nodes]
    return _graph(reading.fields, nodes, reading.topology), _graph_text(reading.fields, texts, reading.topology)


def _graph(fields: dict[str, Any], read: list[Node], topology: Topology) -> Graph:
    nodes = {node.node_id: node for node in read}
    for node in read:
        if node.fan_in is not policies.ALL and node.node_id not in topology.incoming:
            nodes[node.node_id] = replace(node, fan_in=policies.ALL)  # a root starts whatever its fan-in says
    stream_readers, starters = _streams(nodes, topology)
    output = fields.get("output", NO_TEMPLATE)
    roots = tuple(name for name in nodes if not (name in topology.incoming or name in topology.reads))

    return Graph(
        nodes=nodes,
        incoming=_for_all(nodes, topology.incoming),
        outgoing=_for_all(nodes, topology.outgoing),
        reads=_for_all(nodes, topology.reads),
        readers=_for_all(nodes, topology.readers),
        leaves=tuple(name for name in nodes if not (name in topology.outgoing or name in topology.readers)),
        name=fields.get("name", ""),
        fail_fast=fields.get("fail_fast", False),
        timeout_sec=fields.get("timeout_sec"),
        output=output.value,
        output_references=output.references,
        roots=roots,
        root_lanes=lanes(nodes[name] for name in roots),
        hurried=any(n.timeouts.queued_sec is not None or n.timeouts.total_sec is not None for n in nodes.values())
        or not all(nodes[name].plain for name in roots)
        or any(node.deadline is not None for node in nodes.values()),
        choices=frozenset(edge.source for edge in topology.declared.values() if edge.conditional),
        signals=_signals(nodes),
        compensates=any(node.compensate is not None for node in nodes.values()),
        budget=Budget(**budget) if (budget := _own(fields.get("budget", {}))) else None,
        limited=any(map(limits.limited, read)),
        meta=fields.get("meta", {}),
        anchors=anchors(read),
        stream_readers=stream_readers,
        starters=starters,
        deadline=None if "deadline" not in fields else read_moment(fields["deadline"]),
        deadlines=tuple(name for name, node in nodes.items() if node.deadline is not None),
        policy=fields.get("policy"),
    )


def _streams(nodes: dict[str, Node], topology: Topology) -> tuple[dict[str, tuple[str, ...]], ...]:
    """Who reads whose batches, and whom a first batch may start. Nodes that name no source are told theirs."""
    readers: dict[str, tuple[str, ...]] = {}
    starters: dict[str, tuple[str, ...]] = {}
    for name, node in nodes.items():
        if node.stream is None or not (node.stream.is_reader or node.stream.first_batch):
            continue
        parents = (edge.source for edge in topology.incoming.get(name, ()) if edge.on == SUCCESS)
        stream: Streaming = with_parents(node.stream, parents)
        nodes[name] = replace(node, stream=stream)
        for source in stream.sources:
            if stream.is_reader:
                readers[source] = (*readers.get(source, ()), name)
            if stream.first_batch:
                starters[source] = (*starters.get(source, ()), name)
    return readers, starters


def _signals(nodes: dict[str, Node]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for name, node in nodes.items():
        if node.type == "signal":
            wanted = starts.signal_of(node)
            found[wanted] = (*found.get(wanted, ()), name)
    return found


def _own(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if not name.startswith(EXTENSION)}


def _graph_text(fields: dict[str, Any], nodes: list[dict[str, Any]], topology: Topology) -> dict[str, Any]:
    more = {(text.source, text.target): text.more for text in fields.get("edges", ()) if text.more}
    edges = [_edge_text(edge, more.get(pair)) for pair, edge in topology.declared.items()]
    return _ordered(fields | {"schema_version": SCHEMA_VERSION, "nodes": nodes, "edges": edges}, GRAPH.keys)


# Reading.


def _read(raw: object, keep: Callable[[dict[str, Any]], N], accepted: bool = False) -> Reading[N]:
    problems = Problems()
    reading = _read_at(raw, keep, "", problems, Unheard() if accepted else problems, 1)
    problems.raise_any()
    assert reading is not None
    return reading


def _read_at(raw: object, keep: Callable[[dict[str, Any]], N], base: Place, problems: Problems,
             sense: Problems, depth: int) -> Reading[N] | None:  # fmt: skip
    """Read the graph that stands at `base`, inside `depth - 1` others; None after noting what is wrong with it. `sense`
    is told of what can be read and means nothing."""
    before = len(problems)
    if not isinstance(raw, dict):
        text = isinstance(raw, str) and raw.lstrip().startswith("{")
        hint = "; it is the text of one: json.loads(text) reads it" if text else ""
        problems.stop("E_TYPE", base or "graph", f"a graph is an object with `nodes`; found {shown(raw)}{hint}")
    texts = _node_texts(raw, base, problems)
    index = _index(texts, base, problems)
    topology = Topology(index, problems, base)

    def subgraph(value: object, place: Place) -> Any:
        if depth == DEEPEST:
            problems.stop("E_DEPTH", place, f"graphs stand more than {DEEPEST} deep inside each other; use flows")
        inside = _read_at(value, _node_text, place, problems, sense, depth + 1)
        # One with problems is there all the same: that the node has a graph is not another problem.
        return {} if inside is None else _graph_text(inside.fields, inside.nodes, inside.topology)

    door = Door(problems, Copier(problems), TemplateReader(index, problems), subgraph)
    fields = GRAPH.read({name: value for name, value in raw.items() if name != "nodes"}, base, door)
    topology.add_edges(fields.get("edges", ()))
    early = topology.add_early(fields.pop("edges_ex", ()))
    if "output" in fields and fields["output"].streams:
        say = "`$stream` is for a node's inputs; an output is read by `$from`"
        sense.add("E_TEMPLATE", (base, "output"), say)
    if "output" in fields:
        code.check_elsewhere({(base, "output"): fields["output"]}, sense)
    nodes = _read_nodes(texts, keep, topology, door, sense, base, early)
    return None if len(problems) > before else Reading(fields, nodes, topology)


def _node_texts(raw: dict[Any, Any], base: Place, problems: Problems) -> list[Any]:
    texts = raw.get("nodes")
    if texts is not None and not isinstance(texts, list | tuple):
        problems.add("E_TYPE", (base, "nodes"), f"expected a list of nodes, found {shown(texts)}")
    elif not texts:
        problems.add("E_EMPTY", (base, "nodes"), 'a graph needs a node, such as {"node_id": "a", "type": "greet"}')
    return list(texts) if isinstance(texts, list | tuple) else []


def _index(texts: list[Any], base: Place, problems: Problems) -> dict[str, int]:
    # Ids that break the rules are known too: that they are used is not another problem.
    index: dict[str, int] = {}
    for number, text in enumerate(texts):
        name = text.get("node_id") if isinstance(text, dict) else None
        if not isinstance(name, str):
            continue
        first = index.setdefault(name, number)
        if first != number:
            say = f"{shown(name)} is the id of nodes[{first}] too; give each node its own"
            problems.add("E_NODE_DUPLICATE_ID", (((base, "nodes"), number), "node_id"), say)
    return index


def _read_nodes(texts: list[Any], keep: Callable[[dict[str, Any]], N], topology: Topology, door: Door,
                sense: Problems, base: Place, early: Container[str] = ()) -> list[N]:  # fmt: skip
    nodes: list[N] = []
    references: dict[str, tuple[Reference, ...]] = {}
    counts: list[tuple[str, int, Place]] = []
    rules = StreamRules()

    for number, text in enumerate(texts):
        place: Place = ((base, "nodes"), number)
        fields = NODE.read(text, place, door)
        if fields is MISSING:
            continue
        if fields.get("node_id") in early:
            fields["start_when"] = FIRST_BATCH
        if not PLAIN.issuperset(fields):
            legacy.modernise(fields, place, door.problems)
        _check_sense(fields, place, sense)
        if "node_id" in fields:
            _declare(fields, place, topology, rules)
            if PLAIN.issuperset(fields):
                read = fields["inputs"].references if "inputs" in fields else ()
            else:
                read = starts.references(fields)
            if read:
                references[fields["node_id"]] = read
            if isinstance(fields.get("fan_in"), dict) and "count" in fields["fan_in"]:
                counts.append((fields["node_id"], fields["fan_in"]["count"], (place, "fan_in")))
        if not door.problems:
            nodes.append(keep(fields))

    topology.connect(references)
    rules.check(topology, sense)
    for name, need, place in counts:
        topology.check_count(name, need, place, sense)
    return nodes


def _check_sense(fields: dict[str, Any], place: Place, problems: Problems) -> None:
    if not PLAIN.issuperset(fields):
        policies.check(fields, place, problems)
    if fields.get("type") in BUILT_INS or not PLAIN.issuperset(fields) or _uses(fields):
        starts.check(fields, place, problems)
        code.check(fields, place, problems)
        code.check_elsewhere(_templates(fields, place), problems)


def _streams_in(fields: dict[str, Any]) -> bool:
    return "inputs" in fields and bool(fields["inputs"].streams)


def _uses(fields: dict[str, Any]) -> bool:
    return "inputs" in fields and bool(fields["inputs"].uses or fields["inputs"].secrets)


def _templates(fields: dict[str, Any], place: Place) -> dict[Place, Template]:
    """Those of a node that are not its inputs."""
    found = {
        (place, "foreach"): fields.get("foreach"),
        ((place, "io"), "fn_args"): fields.get("io", {}).get("fn_args"),
        ((place, "compensate"), "inputs"): fields.get("compensate", {}).get("inputs"),
    }
    return {where: template for where, template in found.items() if template is not None}


def _declare(fields: dict[str, Any], place: Place, topology: Topology, rules: StreamRules) -> None:
    if "routing" in fields:
        topology.add_routing(fields["node_id"], fields["routing"], (place, "routing"))
    if "depends_on" in fields:
        topology.add_parents(fields["node_id"], fields["depends_on"], (place, "depends_on"))
    if "sticky" in fields:
        _check_sticky(fields["sticky"], (place, "sticky"), topology)
    if "sticky" in fields.get("compensate", ()):
        _check_sticky(fields["compensate"]["sticky"], ((place, "compensate"), "sticky"), topology)
    if PLAIN.issuperset(fields) and fields.get("type") not in BUILT_INS and not _streams_in(fields):
        return
    stream = streaming(fields)
    rules.note(fields, stream, place)
    if stream is not None:
        said = (place, "inputs") if stream.reads else (((place, "io"), "input_args"), "from_nodes")
        topology.add_parents(fields["node_id"], list(stream.sources), said)


def _check_sticky(sticky: Any, place: Place, topology: Topology) -> None:
    if isinstance(sticky, dict) and "node" in sticky:
        topology.check_known("E_STICKY_UNKNOWN", sticky["node"], (place, "node"))


# What was read, as a graph.


def _node(fields: dict[str, Any]) -> Node:
    template = fields.get("inputs", NO_TEMPLATE)
    basis = fields["node_id"], fields["type"], template.value, template.constant, template.references
    plain = PLAIN.issuperset(fields) and not template.streams and fields["type"] not in BUILT_INS
    return Node(*basis) if plain else starts.finished(Node(*basis, **policies.of(fields)), fields)


def _for_all(nodes: dict[str, Node], some: Some) -> dict[str, tuple[Any, ...]]:
    every: dict[str, tuple[Any, ...]] = dict.fromkeys(nodes, ())
    every.update(some)
    for name, items in some.items():
        if type(items) is list:
            every[name] = tuple(items)
    return every


# What was read, as JSON.


def _node_text(fields: dict[str, Any]) -> dict[str, Any]:
    return _ordered(fields, NODE.keys)


def _node_and_text(fields: dict[str, Any]) -> tuple[Node, dict[str, Any]]:
    return _node(fields), _node_text(fields)


def _edge_text(edge: Edge, more: dict[str, Any] | None) -> Any:
    if edge.on == SUCCESS and not more:
        return [edge.source, edge.target]
    return _ordered({"from": edge.source, "to": edge.target, "on": edge.on, **(more or {})}, EDGE.keys)


def _ordered(fields: dict[str, Any], keys: Mapping[str, Key]) -> dict[str, Any]:
    known = {name: _plain(fields[name]) for name in keys if name in fields and name not in SAID_BY_EDGES}
    for name in RECORDS.intersection(known):
        known[name] = _record_text(known[name])
    if len(known) == len(fields):
        return known
    return known | {name: value for name, value in fields.items() if name.startswith(EXTENSION)}


def _plain(value: Any) -> Any:
    if isinstance(value, Template):
        return value.value
    if isinstance(value, Expression):
        return value.text
    return value


def _record_text(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in fields.items()}
