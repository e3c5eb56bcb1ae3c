"""`flowkit tasks`: reads and steers tasks as a client, beside whatever coordinates them."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from flowkit.cli import settings
from flowkit.cli.asking import ask
from flowkit.cli.board import Board
from flowkit.cli.console import UsageError, clean, one_line, put, put_json, say, table
from flowkit.cli.fleet import roll_call, with_fleet
from flowkit.cli.last import task_id_of
from flowkit.cli.show import put_event, put_task
from flowkit.cli.times import read_time, show_seconds, show_short_time
from flowkit.client import Client
from flowkit.errors import TaskNotFound, did_you_mean
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
    if args.json:
        put_json(view)
        return
    board = Board(await client.get_graph(view))
    board.sync(view)
    put_task(view, board)
    waiting = [request.kind for request in await client.api.store.read_requests(args.task) if not request.applied]
    if client.backend.embedded and waiting and not await client.coordinated():
        say(f"asked, and nobody has acted on it yet: {', '.join(waiting)}")
    if waiting or view.ended_at is None:
        await _warn_if_nobody_is_there(client)


async def _explain(client: Client, args: Namespace) -> None:
    view = await client.get_task(args.task)
    reasons = await client.explain(args.task)
    if not client.backend.embedded and any(reason.code == "ready" for reason in reasons):
        workers = await roll_call(client.backend.bus, client.topics)
        reasons = with_fleet(reasons, await client.get_graph(view), workers)
    if args.json:
        put_json([{"node_id": r.node_id, "code": r.code, "message": r.message} for r in reasons])
        return
    for reason in reasons:
        put(f"{clean(reason.code):<12} {one_line(reason.message)}")
    if not reasons:
        put(f"nothing waits: the task is {view.status}")
    if view.ended_at is None:
        await _warn_if_nobody_is_there(client)


async def _watch(client: Client, args: Namespace) -> None:
    view = await client.get_task(args.task)
    if view.ended_at is None:
        await _warn_if_nobody_is_there(client)
    async for event in client.watch(args.task, args.since):
        if args.json:
            put_json(event, indent=None)
        else:
            put_event(event)


# -------------------------------------------------------------------------------------------------- steering


async def _cancel(client: Client, args: Namespace) -> None:
    before = await client.get_task(args.task)
    if args.node is not None and args.node not in before.nodes:
        raise UsageError(f"task {args.task} has no node {args.node!r}{did_you_mean(args.node, before.nodes)}")
    if not await client.cancel_task(args.task, node_id=args.node, reason=args.reason):
        raise TaskNotFound(f"there is no task {args.task!r}")
    what = f"node {args.node!r} of task {args.task}" if args.node is not None else f"task {args.task}"
    await _answer(client, args, f"{what} is asked to stop", None)


async def _pause(client: Client, args: Namespace) -> None:
    applied = await client.pause_task(args.task, reason=args.reason)
    await _answer(client, args, f"task {args.task} is paused", applied)


async def _resume(client: Client, args: Namespace) -> None:
    await _answer(client, args, f"task {args.task} goes on", await client.resume_task(args.task))


async def _restart(client: Client, args: Namespace) -> None:
    applied = await client.restart_task(args.task, from_node=args.from_node, failed_only=args.failed_only)
    await _answer(client, args, f"task {args.task} runs again", applied)


async def _answer(client: Client, args: Namespace, done: str, applied: bool | None) -> None:
    """Say what came of a request: it is written in any case, and acted on once a coordinator is there."""
    if args.json:
        status = (await client.get_task(args.task)).status
        asked = {"task_id": args.task, "asked": args.verb, "applied": applied, "status": status}
        put_json(asked | {"coordinated": await client.coordinated()})
        return
    waits = applied is False
    put(f"the request to {args.verb} task {args.task} is written; nobody has acted on it yet" if waits else done)
    await _warn_if_nobody_is_there(client)


async def _warn_if_nobody_is_there(client: Client) -> None:
    file = client.backend.file
    if file is not None and not await client.coordinated():
        path = _near(file.path)
        say(f"no coordinator runs on this file: `flowkit worker MODULE --db {path}` goes on with its tasks")


def _near(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


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
    "cancel": _cancel,
    "pause": _pause,
    "resume": _resume,
    "restart": _restart,
}
