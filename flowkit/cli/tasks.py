"""`flowkit tasks`: lists, shows, explains and watches tasks as a client, beside whatever coordinates them."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Awaitable, Callable
from dataclasses import fields
from typing import Any

from flowkit.cli import settings
from flowkit.cli.asking import ask, warn_if_nobody_is_there
from flowkit.cli.board import Board
from flowkit.cli.console import UsageError, clean, one_line, put, put_json, say, table
from flowkit.cli.fleet import roll_call, with_fleet
from flowkit.cli.kin import Kin, find_kin, put_kin
from flowkit.cli.last import task_id_of
from flowkit.cli.show import put_event, put_task
from flowkit.cli.steering import STEERING
from flowkit.cli.task_logs import task_logs
from flowkit.cli.times import read_time, show_seconds, show_short_time
from flowkit.client import Client
from flowkit.coordinator.watch import TaskEvent
from flowkit.core.derived import base_of, group_of
from flowkit.errors import did_you_mean
from flowkit.ports import Head

HEAD = (
    "task_id", "status", "name", "labels", "priority", "tenant", "principal", "created_at", "updated_at", "ended_at",
    "error", "flow", "parent", "parent_node", "parent_attempt", "depth",
)  # fmt: skip
STATUSES = ("queued", "running", "paused", "cancelling", "finished", "failed", "cancelled")


def main(args: Namespace) -> int:
    if args.verb == "list":
        _check_statuses(args.status)
    return ask(args, _act, "tasks")


async def _act(client: Client, args: Namespace) -> None:
    if "task" in args:
        args.task = await task_id_of(client, args.task)
    await VERBS[args.verb](client, args)


# -------------------------------------------------------------------------------------------------- reading


async def _list(client: Client, args: Namespace) -> None:
    page = await client.list_tasks(
        status=args.status or None, labels=settings.pairs(args.label, "--label"), name=args.name,
        since=read_time(args.since, time.time()) if args.since else None, flow=args.flow,
        parent=await task_id_of(client, args.parent) if args.parent else "", limit=args.limit,
        cursor=_cursor(args.cursor),
    )  # fmt: skip
    if args.json:
        heads = [{name: getattr(head, name) for name in HEAD} for head in page.heads]
        put_json({"tasks": heads, "cursor": page.cursor})
        return
    if not page.heads:
        asked = args.status or args.label or args.name or args.since or args.flow or args.parent
        say("no tasks" + (" like that" if asked else ""))
        return
    now = time.time()
    table(("ID", "STATUS", "NAME", "CREATED", "TOOK", "LABELS"), [_head_row(head, now) for head in page.heads])
    if page.cursor is not None:
        say(f"there are more: --cursor {page.cursor}")


def _head_row(head: Head, now: float) -> tuple[str, ...]:
    took = show_seconds((head.ended_at or now) - head.created_at)
    labels = ",".join(f"{name}={value}" for name, value in sorted(head.labels.items()))
    return head.task_id, head.status, head.flow or head.name or "-", show_short_time(head.created_at, now), took, labels


async def _show(client: Client, args: Namespace) -> None:
    view = await client.get_task(args.task)
    kin = await find_kin(client, args.task) if args.tree else Kin()
    if args.json:
        whole = {field.name: getattr(view, field.name) for field in fields(view)}
        put_json({**whole, "children": kin.nested(args.task)} if args.tree else view)
        return
    board = Board(await client.get_graph(view))
    board.sync(view)
    put_task(view, board)
    if args.tree:
        put_kin(kin, args.task)
    waiting = [request.kind for request in await client.api.store.read_requests(args.task) if not request.applied]
    if client.backend.embedded and waiting and not await client.coordinated():
        say(f"asked, and nobody has acted on it yet: {', '.join(waiting)}")
    if waiting or view.ended_at is None:
        await warn_if_nobody_is_there(client)


async def _explain(client: Client, args: Namespace) -> None:
    view = await client.get_task(args.task)
    reasons = await client.explain(args.task)
    if not client.backend.embedded and any(reason.code == "ready" for reason in reasons):
        workers = await roll_call(client.backend.bus, client.topics)
        graph = await client.get_graph(view)
        reasons = with_fleet(reasons, graph, workers, client.code_policies.on(view.tenant, view.flow, graph))
    if args.json:
        put_json([{"node_id": r.node_id, "code": r.code, "message": r.message} for r in reasons])
        return
    for reason in reasons:
        put(f"{clean(reason.code):<12} {one_line(reason.message)}")
    if not reasons:
        put(f"nothing waits: the task is {view.status}")
    if view.ended_at is None:
        await warn_if_nobody_is_there(client)


async def _watch(client: Client, args: Namespace) -> None:
    view = await client.get_task(args.task)
    if view.ended_at is None:
        await warn_if_nobody_is_there(client)
    if args.json:
        async for event in client.watch(args.task, args.since):
            put_json(event, indent=None)
        return
    board = Board(await client.get_graph(view))
    async for event in client.watch(args.task):  # from the beginning: the rows count all that happened
        board.apply(event)
        if event.seq > args.since and (args.items or _worth_a_line(event)):
            put_event(event, _counts(board, event))


def _worth_a_line(event: TaskEvent) -> bool:
    """Items and runs are counted in the lines of their node, and told of one by one only where one goes wrong."""
    return not group_of(event.node_id) or event.type in ("failed", "lost", "node_failed")


def _counts(board: Board, event: TaskEvent) -> str:
    row = board.rows.get(event.node_id)
    told = row.folded() if row is not None and row.ended and event.node_id == base_of(event.node_id) else ""
    return f"; {told}" if told else ""


def _check_statuses(given: list[str]) -> None:
    for status in given:
        if status not in STATUSES:
            raise UsageError(f"--status: no status {status!r}{did_you_mean(status, STATUSES)}: {', '.join(STATUSES)}")


def _cursor(text: str | None) -> str | None:
    if text is not None:
        try:
            float(text.partition("/")[0])
        except ValueError:
            raise UsageError(f"--cursor: {text!r} is not what `tasks list` printed") from None
    return text


VERBS: dict[str, Callable[[Client, Namespace], Awaitable[Any]]] = {
    "list": _list,
    "show": _show,
    "explain": _explain,
    "watch": _watch,
    "logs": task_logs,
    **STEERING,
}
