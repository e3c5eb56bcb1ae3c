"""`flowkit trace`: what happened to a task, and where its time went."""

from __future__ import annotations

import dataclasses
import time
from argparse import Namespace
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flowkit.cli.asking import ask
from flowkit.cli.console import UsageError, clean, one_line, put, put_json, table
from flowkit.cli.last import task_id_of
from flowkit.cli.show import brief, brief_usage, size_text, usage_text
from flowkit.cli.times import read_span, read_time, show_seconds, show_short_time, show_time
from flowkit.client import Client
from flowkit.errors import did_you_mean
from flowkit.trace.analysis import Row
from flowkit.trace.resources import Resources
from flowkit.trace.task_trace import AttemptTrace, TaskTrace

WIDTH = 48
MOST_ROWS = 200
MARKS = {"waiting": ".", "queued": "-", "running": "#", "backoff": "~", "open": "="}
LEGEND = ". waiting for a worker or a limit   - queued by the worker   # running   ~ before another try   = no worker"


def main(args: Namespace) -> int:
    return ask(args, _act, "tasks")


async def _act(client: Client, args: Namespace) -> None:
    for name in ("task", "other"):
        if getattr(args, name, None):
            setattr(args, name, await task_id_of(client, getattr(args, name)))
    await VERBS[args.verb](client, args)


# -------------------------------------------------------------------------------------------------- one task


async def _show(client: Client, args: Namespace) -> None:
    trace = await client.traces.show(args.task)
    if args.node:
        await _show_node(client, trace, args)
        return
    if args.json:
        put_json({"task": trace, "path": trace.path})
        return
    took = show_seconds(trace.last_at - trace.accepted_at)
    put(f"task {trace.task_id}{f'  {one_line(trace.name)}' if trace.name else ''}  {trace.status}")
    put(f"  created {show_time(trace.accepted_at)}, {took}, {len(trace.attempts):,} attempts")
    put(f"  path    {one_line(' > '.join(trace.path), 2000) or 'nothing has begun'}")
    shown = trace.attempts[: args.limit]
    programs = any(attempt.record.usage is not None for attempt in shown)
    used = ("CPU", "MEMORY") if programs else ()
    table(
        ("NODE", "ATTEMPT", "OUTCOME", "WAITED", "QUEUED", "RAN", *used, "WORKER", "WHY"),
        (_with_usage(attempt) if programs else _attempt_cells(attempt) for attempt in shown),
    )
    _say_more(len(trace.attempts), args.limit)


async def _show_node(client: Client, trace: TaskTrace, args: Namespace) -> None:
    node = trace.nodes.get(args.node)
    if node is None:
        raise UsageError(f"the task has no node {args.node!r}{did_you_mean(args.node, trace.nodes)}")
    values = await client.traces.values(args.task, args.node)
    if args.json:
        found = [{"node": name, "attempt": attempt, "values": one} for (name, attempt), one in values.items()]
        put_json({"node": node, "values": found})
        return
    reason = f"  {one_line(node.reason)}" if node.reason else ""
    put(f"node {clean(node.node)}  {clean(node.type)}  {node.state}{reason}")
    if node.because:
        put(f"  began after  {clean(node.because)}")
    if node.taken is not None:
        put(f"  took         {one_line(', '.join(node.taken)) or 'no edge'}")
    for attempt in node.attempts:
        one = values.get((node.node, attempt.attempt))
        cells = dict(zip(("waited", "queued", "ran", "worker", "why"), _attempt_cells(attempt)[3:], strict=True))
        put(f"attempt {attempt.attempt}  {attempt.record.outcome}")
        for name, value in cells.items():
            if value:
                put(f"  {name:<9}  {value}")
        if attempt.record.usage is not None:
            put(f"  program    {one_line(usage_text(attempt.record.usage))}")
        if one is not None:
            put(f"  inputs     {one_line(one.note) if one.note else brief(one.inputs)}")
            if attempt.record.outcome == "succeeded":
                put(f"  output     {brief(one.output)}")
        if attempt.error is not None and attempt.error.get("traceback"):
            put("    " + clean(attempt.error["traceback"]).rstrip().replace("\n", "\n    "))


async def _waterfall(client: Client, args: Namespace) -> None:
    rows = await client.traces.waterfall(args.task)
    if args.json:
        put_json(rows)
        return
    end = max((row.spans[-1].end for row in rows), default=0.0)
    width = max((len(_name(row)) for row in rows[: args.limit]), default=0)
    for row in rows[: args.limit]:
        seconds = show_seconds(row.spans[-1].end - row.spans[0].start)
        used = "" if row.usage is None else f"  {one_line(brief_usage(row.usage))}"
        put(f"{clean(_name(row)):<{width}}  |{_bar(row, end):<{WIDTH}}|  {seconds:>9}  {row.state}{used}")
    put(f"{'':<{width}}   0{show_seconds(end):>{WIDTH - 1}}")
    put(LEGEND)
    _say_more(len(rows), args.limit)


async def _critical_path(client: Client, args: Namespace) -> None:
    path = await client.traces.critical_path(args.task)
    if args.json:
        put_json(path)
        return
    put(f"{show_seconds(path.seconds)} in all, {show_seconds(path.before)} before the first node could begin")
    table(
        ("NODE", "FROM", "TOOK", "SHARE", "WAITED", "QUEUED", "RAN", "BACKOFF", "OTHER"),
        (
            (
                clean(step.node), show_seconds(step.start), show_seconds(step.seconds),
                f"{step.seconds / path.seconds:.0%}" if path.seconds else "",
                *(show_seconds(part) for part in (step.waiting, step.queued, step.running, step.backoff, step.other)),
            )
            for step in path.steps
        ),
    )  # fmt: skip


async def _bottlenecks(client: Client, args: Namespace) -> None:
    found = await client.traces.bottlenecks(args.task, args.limit)
    if args.json:
        put_json(found)
        return
    table(
        ("WHAT", "NODE", "SECONDS", "ON THE CRITICAL PATH", "HINT"),
        ((one.what, clean(one.node), show_seconds(one.seconds), show_seconds(one.critical), one_line(one.hint))
         for one in found),
    )  # fmt: skip


async def _compare(client: Client, args: Namespace) -> None:
    found = await client.traces.compare(args.task, args.other)
    if args.json:
        put_json(found)
        return
    for label, pair in (
        ("status", found.status),
        ("took", tuple(map(show_seconds, found.seconds))),
        ("ran on the critical path", tuple(map(show_seconds, found.critical))),
    ):
        put(f"{label}: {pair[0]} and {pair[1]}")
    graph = "the same" if found.same_graph else "another"
    put(f"graph: {graph}; params that differ: {', '.join(found.params) or 'none'}")
    table(
        ("NODE", "FIRST RAN", "SECOND RAN", "SLOWER BY", "DIFFERS"),
        (
            (
                clean(each.node), show_seconds(each.first.running if each.first else None),
                show_seconds(each.second.running if each.second else None),
                f"{'-' if each.slower < 0 else ''}{show_seconds(abs(each.slower))}",
                one_line(f"{_side(each.first)} -> {_side(each.second)}") if each.differs else "",
            )
            for each in found.nodes[: args.limit]
        ),
    )  # fmt: skip
    _say_more(len(found.nodes), args.limit)


# -------------------------------------------------------------------------------------------------- many tasks


async def _slowest(client: Client, args: Namespace) -> None:
    if args.task:
        await _slowest_of(client, args)
        return
    since = read_time(args.since, time.time()) if args.since else None
    with _usage():
        found = await client.traces.slowest(flow=args.flow, node=args.node, since=since, limit=args.limit, by=args.by)
    if args.json:
        put_json(found)
        return
    now = time.time()
    programs = any(one.usage is not None for one in found)
    table(
        ("RAN", *(("CPU", "MEMORY") if programs else ()), "FLOW", "NODE", "OUTCOME", "ENDED", "TASK", "ATTEMPT"),
        ((show_seconds(one.run_sec), *(_usage_cells(one.cpu_sec, one.memory_bytes) if programs else ()),
          clean(one.flow), clean(one.node), one.outcome, show_short_time(one.ended_at, now), one.task_id,
          str(one.attempt)) for one in found),
    )  # fmt: skip


async def _slowest_of(client: Client, args: Namespace) -> None:
    found = await client.traces.slowest_of(args.task, args.limit, by=args.by)
    if args.json:
        put_json(found)
        return
    programs = any(one.resources is not None for one in found)
    used = ("CPU", "MEMORY", "FILES", "NETWORK") if programs else ()
    table(
        ("NODE", "ROLE", "RAN", "LONGEST", *used, "WAITED", "QUEUED", "ATTEMPTS", "FAILED"),
        ((clean(one.node), clean(one.role), *map(show_seconds, (one.running, one.longest)),
          *(_resource_cells(one.resources) if programs else ()), *map(show_seconds, (one.waiting, one.queued)),
          str(one.attempts), str(one.failed)) for one in found),
    )  # fmt: skip


async def _history(client: Client, args: Namespace) -> None:
    since = read_time(args.since, time.time()) if args.since else None
    bucket = read_span(args.bucket)
    with _usage():
        points = await client.traces.history(flow=args.flow, node=args.node, since=since, bucket_sec=bucket)
    if args.json:
        put_json([{**dataclasses.asdict(point), "failure_rate": point.failure_rate} for point in points])
        return
    now = time.time()
    table(
        ("FLOW", "NODE", "FROM", "ATTEMPTS", "FAILED", "P50", "P95"),
        ((clean(one.flow), clean(one.node), show_short_time(one.start, now), f"{one.count:,}",
          f"{one.failure_rate:.1%}", show_seconds(one.p50), show_seconds(one.p95)) for one in points[: args.limit]),
    )  # fmt: skip
    _say_more(len(points), args.limit)


# -------------------------------------------------------------------------------------------------- how


@contextmanager
def _usage() -> Iterator[None]:
    """What a question is refused for is what was typed."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from None


def _attempt_cells(attempt: AttemptTrace) -> tuple[str, ...]:
    record = attempt.record
    why = record.code
    if attempt.error is not None and attempt.error.get("message"):
        why = f"{why}: {attempt.error['message']}"
    return (
        clean(record.node), str(record.attempt), record.outcome, show_seconds(record.waited_sec),
        show_seconds(record.queued_sec) if attempt.ended else "", show_seconds(record.run_sec) if attempt.ended else "",
        clean(record.worker or attempt.child), one_line(why, 80),
    )  # fmt: skip


def _with_usage(attempt: AttemptTrace) -> tuple[str, ...]:
    cells = _attempt_cells(attempt)
    return (*cells[:6], *_usage_cells(attempt.record.cpu_sec, attempt.record.memory_bytes), *cells[6:])


def _usage_cells(cpu_sec: float | None, memory: int | None) -> tuple[str, str]:
    """Of an attempt that ran no program nothing is known: threads and coroutines share their worker's."""
    return "" if cpu_sec is None else show_seconds(cpu_sec), "" if not memory else size_text(memory)


def _resource_cells(resources: Resources | None) -> tuple[str, ...]:
    if resources is None:
        return ("", "", "", "")
    files = resources.read_bytes + resources.written_bytes
    network = resources.received_bytes + resources.sent_bytes
    return (*_usage_cells(resources.cpu_sec, resources.peak_memory_bytes), size_text(files), size_text(network))


def _name(row: Row) -> str:
    return f"{row.node} ({row.attempt})" if row.attempt > 1 else row.node


def _bar(row: Row, end: float) -> str:
    """The row's spans as characters: of each place the span that is there at its middle."""
    scale = end / WIDTH if end else 1.0
    bar = [" "] * WIDTH
    for span in row.spans:
        first, last = int(span.start / scale), max(int(span.start / scale) + 1, round(span.end / scale))
        for place in range(min(first, WIDTH - 1), min(last, WIDTH)):
            bar[place] = MARKS[span.what]
    return "".join(bar).rstrip()


def _side(side: Any) -> str:
    if side is None:
        return "not there"
    states = ", ".join(f"{count} {state}" for state, count in side.states.items())
    codes = f" ({', '.join(side.codes)})" if side.codes else ""
    return f"{states} in {side.attempts} attempt{'s' * (side.attempts != 1)}{codes}"


def _say_more(count: int, limit: int) -> None:
    if count > limit:
        put(f"and {count - limit:,} more: --limit, or --json for all of them")


VERBS: dict[str, Callable[[Client, Namespace], Awaitable[Any]]] = {
    "show": _show,
    "waterfall": _waterfall,
    "critical-path": _critical_path,
    "bottlenecks": _bottlenecks,
    "slowest": _slowest,
    "history": _history,
    "compare": _compare,
}
