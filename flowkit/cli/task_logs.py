"""`flowkit tasks logs`: what the attempts of a task have said."""

from __future__ import annotations

import sys
import time
from argparse import Namespace

from flowkit.cli.asking import warn_if_nobody_is_there
from flowkit.cli.console import UsageError, clean, one_line, put, put_json
from flowkit.cli.show import brief
from flowkit.cli.times import read_time, show_clock, show_time
from flowkit.client import Client
from flowkit.errors import did_you_mean
from flowkit.wire.logs import LogLine


async def task_logs(client: Client, args: Namespace) -> None:
    view = await client.get_task(args.task)
    if args.follow and view.ended_at is None:
        await warn_if_nobody_is_there(client)
    if args.node is not None and args.node not in view.nodes:
        raise UsageError(f"the task has no node {args.node!r}{did_you_mean(args.node, view.nodes)}")
    since = read_time(args.since, time.time()) if args.since else None
    day = ""
    lines = client.logs(
        args.task, node=args.node, attempt=args.attempt, level=args.level, since=since, limit=args.limit,
        follow=args.follow,
    )  # fmt: skip
    async for line in lines:
        if args.json:
            put_json({**_plain(line), "trace_id": line.trace_id}, indent=None)
            continue
        if (of := show_time(line.at)[:10]) != day and day:
            put(of)
        day = of
        put_line(line)


def put_line(line: LogLine) -> None:
    """One line as text, at once: somebody may wait for it."""
    attempt = f" attempt {line.attempt}" if line.attempt > 1 else ""
    fields = {name: value for name, value in line.fields.items() if name != "traceback"}
    more = "".join(f" {one_line(name)}={brief(value)}" for name, value in fields.items())
    put(f"{show_clock(line.at)}  {line.level:<7}  {clean(line.node_id)}{attempt}  {_indented(line.message)}{more}")
    if isinstance(trace := line.fields.get("traceback"), str):
        put("    " + _indented(trace.rstrip()))
    sys.stdout.flush()


def _indented(text: str) -> str:
    return clean(text).replace("\n", "\n    ")


def _plain(line: LogLine) -> dict[str, object]:
    return {
        "task_id": line.task_id, "node_id": line.node_id, "attempt": line.attempt, "sequence": line.sequence,
        "at": line.at, "level": line.level, "message": line.message, "fields": line.fields,
    }  # fmt: skip
