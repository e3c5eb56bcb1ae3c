"""One task, and one event, as text."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from flowkit.cli.board import Board, error_text, skip_text
from flowkit.cli.console import clean, one_line, put, put_json
from flowkit.cli.times import show_clock, show_seconds, show_time
from flowkit.cli.tree import put_tree
from flowkit.coordinator.views import TaskView
from flowkit.coordinator.watch import TaskEvent

LONGEST_VALUE = 160


def put_task(view: TaskView, board: Board) -> None:
    """What `tasks show` shows: the task, its nodes, its error or output."""
    now = time.time()
    put(f"task {view.task_id}{f'  {one_line(view.name)}' if view.name else ''}  {view.status}")
    for title, value in _facts(view, now):
        if value:
            put(f"  {title:<10}  {value}")
    put(f"nodes: {board.counts()}")
    put_tree(board, now)
    if view.error is not None:
        node = view.error.get("node_id")
        put(f"error{f' at node {clean(repr(node))}' if node else ''}: {error_text(view.error)}")
    for name, node_view in view.nodes.items():
        if node_view.error is not None and node_view.error.get("traceback"):
            put(f"traceback of node {clean(repr(name))}, attempt {node_view.attempts}:")
            put(_indented(clean(node_view.error["traceback"])))
    if view.status == "finished":
        put("output:")
        put_json(view.output)


def _facts(view: TaskView, now: float) -> list[tuple[str, str]]:
    took = show_seconds((view.ended_at if view.ended_at is not None else now) - view.created_at)
    return [
        ("flow", view.flow),
        ("created", f"{show_time(view.created_at)} by {clean(view.principal)}"),
        ("ended", f"{show_time(view.ended_at)}, after {took}" if view.ended_at is not None else ""),
        ("age", took if view.ended_at is None else ""),
        ("generation", str(view.generation) if view.generation else ""),
        ("priority", str(view.priority) if view.priority else ""),
        ("labels", ", ".join(one_line(f"{name}={value}") for name, value in sorted(view.labels.items()))),
        ("params", brief(view.params) if view.params else ""),
        ("reason", one_line(view.reason)),
    ]


def put_event(event: TaskEvent) -> None:
    """One transition on one line, at once: somebody waits for it."""
    what = clean(event.node_id) if event.node_id else "(task)"
    attempt = f" attempt {event.attempt}" if event.attempt > 1 else ""
    put(f"{show_clock(event.at)}  #{event.seq:<4} {what:<16}  {event.to_state:<9}  {event.type}{attempt}{_data(event)}")
    sys.stdout.flush()


def _data(event: TaskEvent) -> str:
    data = event.data
    match event.type:
        case "leased":
            return f" to {clean(data.get('worker', ''))}"
        case "succeeded":
            return f" in {show_seconds(data.get('run_sec'))}: {brief(data.get('output'))}"
        case "skipped":
            return f": {one_line(skip_text(data.get('reason', ''), data.get('cause', '')))}"
        case "request":
            return f" {data.get('kind')}{'' if data.get('accepted') else ': refused, ' + one_line(data.get('why', ''))}"
        case "restarted":
            return f": generation {data.get('generation')}"
    reason = error_text(data.get("error")) or one_line(data.get("why") or data.get("reason") or "")
    again = data.get("retry_at")
    later = f"; again in {show_seconds(again - event.at)}" if again is not None and again > event.at else ""
    return f": {reason}{later}" if reason else ""


def brief(value: Any) -> str:
    """A value as JSON on one line, cut where it is long."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=lambda other: f"({len(other)} bytes)")
    except (TypeError, ValueError):
        text = str(value)
    return one_line(text, LONGEST_VALUE)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.rstrip().splitlines())
