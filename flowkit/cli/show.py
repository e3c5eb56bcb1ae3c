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
from flowkit.core.derived import base_of

LONGEST_VALUE = 160
MOST_OF_ITEMS = 3
MB = 1024 * 1024


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
    _put_tracebacks(view)
    _put_usages(view)
    if view.status == "finished":
        put("output:")
        put_json(view.output)


def _put_tracebacks(view: TaskView) -> None:
    """Those of all nodes; of their items and runs only the first few."""
    left, more = MOST_OF_ITEMS, 0
    for name, node in view.nodes.items():
        if node.error is None or not node.error.get("traceback") or node.error.get("item"):
            continue  # what a map says of its first failed item, that item says itself
        if base_of(name) != name:
            left, more = left - 1, more + (left <= 0)
            if left < 0:
                continue
        put(f"traceback of node {clean(repr(name))}, attempt {node.attempts}:")
        put(_indented(clean(node.error["traceback"])))
    if more:
        put(f"and {more:,} more items with a traceback: --json has all of them")


def _put_usages(view: TaskView) -> None:
    """What programs have used; of items and runs only the first few."""
    left = MOST_OF_ITEMS
    for name, node in view.nodes.items():
        if node.usage is None:
            continue
        if base_of(name) != name:
            left -= 1
            if left < 0:
                continue
        put(f"program of node {clean(repr(name))}, attempt {node.attempts}: {one_line(usage_text(node.usage))}")


def usage_text(usage: dict[str, Any]) -> str:
    """`finished at L3 in 0.12 s, CPU 0.05 s, peak 12 MiB`, and the bytes that it read, wrote, received and sent."""
    parts = [f"{usage.get('verdict')} at {usage.get('level')} in {show_seconds(usage.get('wall_sec', 0.0))}"]
    parts.append(brief_usage(usage))
    for word, name in (("read", "read"), ("wrote", "written"), ("received", "received"), ("sent", "sent")):
        if size := usage.get(f"{name}_bytes"):
            parts.append(f"{word} {size_text(size)}")
    return ", ".join(parts)


def brief_usage(usage: dict[str, Any]) -> str:
    """`CPU 0.05 s, peak 12 MiB`."""
    peak = usage.get("peak_memory_bytes")
    cpu = f"CPU {show_seconds(usage.get('cpu_sec', 0.0))}"
    return f"{cpu}, peak {peak / MB:,.0f} MiB" if peak else cpu


def size_text(size: int) -> str:
    """`0`, `312 KiB`, `12.4 MiB`."""
    if size < MB:
        return f"{size / 1024:,.0f} KiB" if size >= 1024 else f"{size} B" if size else "0"
    return f"{size / MB:,.1f} MiB"


def _facts(view: TaskView, now: float) -> list[tuple[str, str]]:
    took = show_seconds((view.ended_at if view.ended_at is not None else now) - view.created_at)
    return [
        ("flow", view.flow),
        ("created", f"{show_time(view.created_at)} by {clean(view.principal)}"),
        ("ended", f"{show_time(view.ended_at)}, after {took}" if view.ended_at is not None else ""),
        ("age", took if view.ended_at is None else ""),
        ("deadline", show_time(view.deadline)),
        ("generation", str(view.generation) if view.generation else ""),
        ("priority", str(view.priority) if view.priority else ""),
        ("labels", ", ".join(one_line(f"{name}={value}") for name, value in sorted(view.labels.items()))),
        ("params", brief(view.params) if view.params else ""),
        ("reason", one_line(view.reason)),
    ]


def put_event(event: TaskEvent, more: str = "") -> None:
    """One transition on one line, with `more` at its end, at once: somebody waits for it."""
    what = clean(event.node_id) if event.node_id else "(task)"
    attempt = f" attempt {event.attempt}" if event.attempt > 1 else ""
    said = f"{event.type}{attempt}{_data(event)}{more}"
    put(f"{show_clock(event.at)}  #{event.seq:<4} {what:<16}  {event.to_state:<9}  {said}")
    sys.stdout.flush()


def _data(event: TaskEvent) -> str:
    data = event.data
    match event.type:
        case "leased":
            return f" to {clean(data.get('worker', ''))}"
        case "succeeded":
            took = f" in {show_seconds(data['run_sec'])}" if data.get("run_sec") else ""
            return f"{took}: {brief(data.get('output'))}"
        case "skipped":
            return f": {one_line(skip_text(data.get('reason', ''), data.get('cause', '')))}"
        case "request":
            return f" {data.get('kind')}{'' if data.get('accepted') else ': refused, ' + one_line(data.get('why', ''))}"
        case "restarted":
            return f": generation {data.get('generation')}"
        case "streamed":
            return (
                f": {data.get('consumed'):,} of {data.get('produced'):,} batches of {clean(repr(data.get('source')))}"
            )
        case "expanded":
            return f": {data.get('count'):,} items"
        case "repeated":
            return f": run {data.get('n')}{_later(data.get('at'), event.at)}"
        case "waiting" if data.get("signal"):
            return f" for signal {clean(repr(data['signal']))}"
        case "waiting":
            return f": until {show_time(data.get('until'))}"
        case "signal":
            return f" {clean(repr(data.get('name')))}: {brief(data.get('payload'))}"
        case "child":
            return f": task {clean(data.get('task_id', ''))}"
        case "function" | "node_finished":
            return f": {brief(data.get('output'))}"
        case "routed":
            return f" to {one_line(', '.join(data.get('taken', ())) or 'none')}"
        case "undo":
            return f": {one_line(', '.join(data.get('nodes', ())))}"
    reason = error_text(data.get("error")) or one_line(data.get("why") or data.get("reason") or "")
    later = _later(data.get("retry_at"), event.at, "again ")
    return f": {reason}{later}" if reason else ""


def _later(at: float | None, now: float, what: str = "") -> str:
    return f"; {what}in {show_seconds(at - now)}" if at is not None and at > now else ""


def brief(value: Any) -> str:
    """A value as JSON on one line, cut where it is long."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=lambda other: f"({len(other)} bytes)")
    except (TypeError, ValueError):
        text = str(value)
    return one_line(text, LONGEST_VALUE)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.rstrip().splitlines())
