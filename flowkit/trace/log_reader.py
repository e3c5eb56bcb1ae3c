"""Reads back what the attempts of a task have said: in pages, whole, or live."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from flowkit.core.model import ENDED_TASK
from flowkit.errors import TaskNotFound, did_you_mean
from flowkit.monitor_ports import LogBlock, LogQuery, LogStore, Place
from flowkit.paging import checked_limit
from flowkit.ports import DELETED, Clock, Head, Store
from flowkit.wire.logs import LEVELS, LogLine, lines_of

BLOCKS: Final = 50
PAGE: Final = 1000
MOST_LINES: Final = 10_000
LOOK_SEC: Final = 0.25
LONGEST_LOOK_SEC: Final = 1.0
QUIET_SEC: Final = 2.0
"""A task that has ended may have lines under way: it is listened to until it has been quiet for so long."""


@dataclass(frozen=True, slots=True)
class LogPage:
    """Lines in the order in which they came to the store; `cursor` gives the next page, None at the end. Of one attempt
    they are in the order in which it said them."""

    lines: list[LogLine]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class _Wanted:
    query: LogQuery
    level: int
    since: float | None
    traceparent: str

    def has(self, line: LogLine) -> bool:
        return LEVELS[line.level] >= self.level and (self.since is None or line.at >= self.since)


class LogReader:
    def __init__(self, store: Store, logs: LogStore, clock: Clock, *, tenant: str = "default") -> None:
        self._store = store
        self._logs = logs
        self._clock = clock
        self._tenant = tenant

    async def page(self, task_id: str, *, node: str | None = None, attempt: int | None = None,
                   level: str | None = None, since: float | None = None, limit: int = PAGE,
                   cursor: str | None = None) -> LogPage:  # fmt: skip
        """At most `limit` lines, those behind `cursor`. Raises `TaskNotFound`, `ValueError`, `StoreUnavailable`."""
        checked_limit(limit, MOST_LINES)
        head = await self._head(task_id)
        wanted = _wanted(head, node, attempt, level, since)
        return await self._page(wanted, limit, _read_cursor(cursor))

    async def lines(self, task_id: str, *, node: str | None = None, attempt: int | None = None,
                    level: str | None = None, since: float | None = None, limit: int | None = None,
                    follow: bool = False) -> AsyncIterator[LogLine]:  # fmt: skip
        """All lines, `limit` at most; with `follow`, those that come until the task has ended and is quiet too. Raises
        as `page`."""
        wanted = _wanted(await self._head(task_id), node, attempt, level, since)
        at: tuple[Place, int] | None = None
        given, look, quiet_since = 0, LOOK_SEC, math.inf
        while True:
            ended = await self._ended(task_id)  # before the read: what was said until then is found by it
            most = PAGE if limit is None else min(PAGE, limit - given)
            page, at = await self._read(wanted, most, at)
            for line in page:
                yield line
            given += len(page)
            now = self._clock.mono()
            if page:
                look, quiet_since = LOOK_SEC, math.inf
            if ended:
                quiet_since = min(quiet_since, now)
            if limit is not None and given >= limit:
                return
            if len(page) == most:
                continue
            if not follow or now - quiet_since >= QUIET_SEC:
                return
            await asyncio.sleep(look)
            look = min(LONGEST_LOOK_SEC, 1.5 * look)

    # ------------------------------------------------------------------------------------------ how

    async def _page(self, wanted: _Wanted, limit: int, at: tuple[Place, int] | None) -> LogPage:
        lines, at = await self._read(wanted, limit, at)
        more = len(lines) == limit and (await self._read(wanted, 1, at))[0]
        return LogPage(lines, _cursor(at) if more and at is not None else None)

    async def _read(
        self, wanted: _Wanted, limit: int, at: tuple[Place, int] | None
    ) -> tuple[list[LogLine], tuple[Place, int] | None]:
        """At most `limit` lines behind `at`, which is a block and the number of a line in it; and where it ended."""
        found: list[LogLine] = []
        while len(found) < limit:
            query = wanted.query if at is None else _from(wanted.query, at[0])
            blocks = await self._logs.read_logs(query, limit=BLOCKS)
            before = at
            for block in blocks:
                at = self._take(block, wanted, at, found, limit)
                if len(found) == limit:
                    break
            if at == before or (len(blocks) < BLOCKS and len(found) < limit):
                break
        return found, at

    def _take(self, block: LogBlock, wanted: _Wanted, at: tuple[Place, int] | None, found: list[LogLine],
              limit: int) -> tuple[Place, int]:  # fmt: skip
        done = at[1] if at is not None and at[0] == block.where else 0
        last = done
        for line in lines_of(block, wanted.traceparent):
            if line.sequence <= done:
                continue
            if len(found) == limit:
                break
            last = line.sequence
            if wanted.has(line):
                found.append(line)
        return block.where, last

    async def _ended(self, task_id: str) -> bool:
        return (await self._head(task_id)).status in ENDED_TASK

    async def _head(self, task_id: str) -> Head:
        heads = await self._store.read_heads([task_id])
        if not heads or heads[0].status == DELETED or heads[0].tenant != self._tenant:
            raise TaskNotFound(f"there is no task {task_id!r}")
        return heads[0]


def _wanted(head: Head, node: str | None, attempt: int | None, level: str | None, since: float | None) -> _Wanted:
    if level is not None and level not in LEVELS:
        raise ValueError(f"no level {level!r}{did_you_mean(level, LEVELS)}: {', '.join(LEVELS)}")
    least = LEVELS[level] if level is not None else 0
    return _Wanted(LogQuery(head.task_id, node, attempt, least, since), least, since, head.traceparent)


def _from(query: LogQuery, start: Place) -> LogQuery:
    return LogQuery(query.task_id, query.node, query.attempt, query.level, query.since, start)


def _cursor(at: tuple[Place, int]) -> str:
    (place, node, attempt, first), sequence = at
    return f"{place}/{attempt}/{first}/{sequence}/{node}"


def _read_cursor(cursor: str | None) -> tuple[Place, int] | None:
    if cursor is None:
        return None
    try:
        place, attempt, first, sequence, node = cursor.split("/", 4)
        return (int(place), node, int(attempt), int(first)), int(sequence)
    except ValueError:
        raise ValueError(f"{cursor!r} is not a cursor that list_logs gave") from None
