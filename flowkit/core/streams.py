"""What streams mean for a task: whom a first batch starts, who is told that a partner has ended, what a job says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flowkit.core import facts as f
from flowkit.core.effects import Tell
from flowkit.core.graph import SUCCESS, Graph, Node
from flowkit.core.lifecycle import told_to_end
from flowkit.core.model import Task
from flowkit.core.node_run import ENDED_NODE, NodeRun, NodeState
from flowkit.core.readiness import Start, verdict
from flowkit.core.stream import ALONE


def partners(graph: Graph, name: str) -> Iterable[str]:
    """The nodes that a node reads batches of, and those that read its own."""
    node = graph.nodes[name]
    if node.stream is not None:
        yield from node.stream.sources
    yield from graph.stream_readers.get(name, ())


def lost_source(task: Task, name: str, run: NodeRun) -> bool:
    """Whether a node that has started can no longer be what it started as: a stream that it needs is broken. One that
    was told to end before that ends as what it was told."""
    node = task.graph.nodes.get(name)
    if node is None or node.stream is None or run.state in ENDED_NODE or not run.broken or told_to_end(run):
        return False
    if run.state is NodeState.PENDING and not run.due:
        return False
    return verdict(task, node, run) is Start.SKIP


def news(task: Task, recorded: Iterable[f.Fact]) -> Iterable[Tell]:
    """Whom these facts concern: the running partners of nodes that have ended."""
    for fact in recorded:
        match fact:
            case (
                f.AttemptSucceeded()
                | f.AttemptFailed()
                | f.NodeFailed()
                | f.NodeFinished()
                | f.NodeSkipped()
                | f.NodeCancelled()
                | f.LeaseLost()
            ):
                if fact.node not in task.graph.nodes or task.runs[fact.node].state not in ENDED_NODE:
                    continue
                for partner in partners(task.graph, fact.node):
                    yield from tell(task, partner)


def tell(task: Task, name: str) -> Iterable[Tell]:
    """The order to tell a running attempt which of its partners have ended; nothing where none has."""
    lease = task.runs[name].lease
    if lease is None or lease.cancelling:
        return
    over = tuple(one for one in partners(task.graph, name) if task.runs[one].state in ENDED_NODE)
    if over:
        yield Tell(name, task.runs[name].attempt, lease.token, lease.worker, lease.incarnation, over)


def job(task: Task, node: Node) -> dict[str, Any] | None:
    """What the worker must know of a node's streams; None where it has nothing to do with any."""
    graph, name = task.graph, node.node_id
    said = node.stream or ALONE
    readers = graph.stream_readers.get(name, ())
    awaited = name in graph.starters
    if not (readers or awaited or said.is_reader):
        return None
    sources = said.sources if said.is_reader else ()
    return {
        "reads": [[parameter, list(names)] for parameter, names in said.reads],
        "sources": [[source, task.runs[source].born, _ahead(graph, source)] for source in sources],
        "adapter": said.adapter,
        "args": dict(said.args),
        "readers": [[reader, starts_early(graph, name, reader)] for reader in readers],
        "awaited": awaited,
        "limits": [said.max_batches, said.max_bytes, said.spill_bytes],
        "over": [one for one in (*sources, *readers) if task.runs[one].state in ENDED_NODE],
    }


def _ahead(graph: Graph, source: str) -> int:
    return (graph.nodes[source].stream or ALONE).max_batches


def starts_early(graph: Graph, source: str, reader: str) -> bool:
    """Whether a reader runs while its source does."""
    if reader not in graph.starters.get(source, ()):
        return False
    return any(edge.source == source and edge.on == SUCCESS for edge in graph.incoming[reader])
