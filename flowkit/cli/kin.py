"""The tasks that are children of a task, and theirs, as a tree."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from flowkit.cli.board import DEEPEST
from flowkit.cli.console import one_line, put
from flowkit.cli.times import show_seconds
from flowkit.cli.tree import branches
from flowkit.client import Client
from flowkit.ports import Head

MOST = 1000
PAGE = 500
TOLD = ("task_id", "status", "flow", "name", "parent_node", "parent_attempt", "created_at", "ended_at", "error")


@dataclass(slots=True)
class Kin:
    """Heads by the id of their parent, oldest first; `more`: there are others, beyond the most that are shown."""

    of: dict[str, list[Head]] = field(default_factory=dict)
    more: bool = False

    def in_order(self, task_id: str) -> Iterator[tuple[int, Head]]:
        """Everybody below a task, with their depth, each before its own children."""
        stack = [(1, head) for head in reversed(self.of.get(task_id, []))]
        while stack:
            depth, head = stack.pop()
            yield depth, head
            stack += [(depth + 1, child) for child in reversed(self.of.get(head.task_id, []))]

    def nested(self, task_id: str) -> list[dict[str, Any]]:
        """The same as JSON: each with its `children`."""
        return [
            {name: getattr(head, name) for name in TOLD} | {"children": self.nested(head.task_id)}
            for head in self.of.get(task_id, [])
        ]


async def find_kin(client: Client, task_id: str) -> Kin:
    """The children of a task and theirs, as the lists have them: they may lag by a second."""
    kin, found, parents = Kin(), 0, [task_id]
    for parent in parents:
        cursor: str | None = None
        while True:
            page = await client.list_tasks(parent=parent, limit=min(PAGE, MOST + 1 - found), cursor=cursor)
            found += len(page.heads)
            parents += [head.task_id for head in page.heads]
            kin.of[parent] = [*reversed(page.heads), *kin.of.get(parent, [])]
            cursor = page.cursor
            if found > MOST:
                kin.more = True
                return kin
            if cursor is None:
                break
    return kin


def put_kin(kin: Kin, task_id: str) -> None:
    rows = list(kin.in_order(task_id))
    put(f"child tasks: {len(rows):,}{' and more' if kin.more else ''}" if rows else "child tasks: none")
    now = time.time()
    leads = branches([min(depth, DEEPEST) for depth, _ in rows])
    names = [lead + _name(head) for lead, (_, head) in zip(leads, rows, strict=True)]
    width = max(map(len, names), default=0)
    for name, (_, head) in zip(names, rows, strict=True):
        took = show_seconds((head.ended_at or now) - head.created_at)
        put(f"  {name:<{width}}  {head.status:<9}  {took:<8}  {head.task_id}  {one_line(head.error or '')}".rstrip())


def _name(head: Head) -> str:
    """The node that it is, and what it runs, where that has a name."""
    what = head.flow or head.name
    again = f", attempt {head.parent_attempt}" if head.parent_attempt > 1 else ""
    return one_line(f"{head.parent_node}{f' ({what})' if what else ''}{again}", 60)
