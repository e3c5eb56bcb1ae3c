"""Histories of tasks as their commits, written by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from flowkit.core import facts as f
from flowkit.core.dialect import parse_graph
from flowkit.core.payload import Payload
from flowkit.ports import Commit, Head
from flowkit.trace.task_trace import Recorded, TaskTrace, read_trace, read_values
from flowkit.wire.facts import body_of, encode_facts

ACCEPTED = 1000.0


def recorded(raw: dict[str, Any], *commits: tuple[float, Sequence[f.Fact]], task_id: str = "t", params: Any = None,
             editions: dict[str, dict[str, Any]] | None = None, **head: Any) -> Recorded:  # fmt: skip
    """A task's history; the times of its commits count from when it was accepted."""
    found = [
        Commit(
            task_id,
            seq,
            f"c.{seq}",
            f"c.{seq - 1}" if seq > 1 else "",
            ACCEPTED + at,
            "c",
            body_of(encode_facts(facts)),
        )
        for seq, (at, facts) in enumerate(commits, 1)
    ]
    front = Head(task_id, 0, "g", json.dumps(params or {}), created_at=ACCEPTED, **head)
    graphs = {ref: parse_graph(graph) for ref, graph in (editions or {}).items()}
    return Recorded(front, parse_graph(raw), graphs, found)


def trace_of(history: Recorded) -> TaskTrace:
    return finish(read_trace(history))


def values_of(history: Recorded, node: str, attempt: int | None = None) -> Any:
    return finish(read_values(history, node, attempt))


def finish(work: Any) -> Any:
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def leased(node: str, attempt: int = 1, worker: str = "w1") -> f.AttemptLeased:
    return f.AttemptLeased(node, attempt, f"k-{node}-{attempt}", worker, "i", 1.0)


def succeeded(node: str, run_sec: float, output: Any = None, attempt: int = 1,
              usage: f.Usage | None = None) -> f.AttemptSucceeded:  # fmt: skip
    return f.AttemptSucceeded(node, attempt, f"k-{node}-{attempt}", Payload(output), run_sec=run_sec, usage=usage)


def failed(
    node: str, run_sec: float, attempt: int = 1, retry_at: float | None = None, code: str = "boom"
) -> f.AttemptFailed:
    at = None if retry_at is None else ACCEPTED + retry_at
    return f.AttemptFailed(node, attempt, f"k-{node}-{attempt}", {"code": code, "message": "no"}, at, run_sec=run_sec)
