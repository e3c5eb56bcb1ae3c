"""What a database in this process's memory holds, with what a database would keep as indexes."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from flowkit.adapters.memory_secrets import MemorySecretData
from flowkit.adapters.memory_traces import TraceData
from flowkit.monitor_ports import LogBlock
from flowkit.ports import (
    Block,
    Commit,
    FlowTag,
    FlowVersion,
    Head,
    Kept,
    LimitRecord,
    Renewal,
    Request,
    StreamId,
)


@dataclass(slots=True)
class MemoryData:
    """What outlives a process: several `MemoryStore`s over one of these are processes with one database."""

    heads: dict[str, Head] = field(default_factory=dict)
    commits: dict[str, dict[int, Commit]] = field(default_factory=dict)
    requests: dict[str, dict[int, Request]] = field(default_factory=dict)
    blobs: dict[tuple[str, str], list[bytes]] = field(default_factory=dict)
    # Which tasks an artifact was put for, and when a graph was last put.
    claims: dict[str, set[str]] = field(default_factory=dict)
    graphs_put_at: dict[str, float] = field(default_factory=dict)
    blocks: dict[str, dict[StreamId, list[Block]]] = field(default_factory=dict)
    flows: dict[tuple[str, str], dict[int, FlowVersion]] = field(default_factory=dict)
    flow_tags: dict[tuple[str, str], dict[str, FlowTag]] = field(default_factory=dict)
    renewals: dict[str, Renewal] = field(default_factory=dict)
    limits: dict[str, LimitRecord] = field(default_factory=dict)
    kept: dict[str, Kept] = field(default_factory=dict)
    logs: dict[str, dict[tuple[str, int, int], LogBlock]] = field(default_factory=dict)
    traces: TraceData = field(default_factory=TraceData)
    sealed: MemorySecretData = field(default_factory=MemorySecretData)
    # Derived: what a database would keep as indexes.
    by_age: list[tuple[float, str]] = field(default_factory=list)
    active: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    ended: defaultdict[tuple[int, str], list[tuple[float, str]]] = field(default_factory=lambda: defaultdict(list))
    removable: set[str] = field(default_factory=set)
    of_graph: Counter[str] = field(default_factory=Counter)
    children: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    artifacts_of: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    open: defaultdict[int, set[tuple[str, int]]] = field(default_factory=lambda: defaultdict(set))

    def add_head(self, head: Head) -> None:
        """Keep a head that is not there yet."""
        # The caller keeps its own mapping and may change it.
        self.heads[head.task_id] = replace(head, labels=dict(head.labels))
        insort(self.by_age, (head.created_at, head.task_id))
        if head.parent:
            self.children[head.parent].add(head.task_id)
        self.of_graph[head.graph_ref] += 1
        self._index(None, head)

    def replace_head(self, head: Head, **fields: Any) -> None:
        """The same head with other fields."""
        new = self.heads[head.task_id] = replace(head, **fields)
        self._index(head, new)

    def delete_head(self, head: Head) -> None:
        """Forget a head, and what is looked up by it."""
        del self.heads[head.task_id]
        del self.by_age[bisect_left(self.by_age, (head.created_at, head.task_id))]
        if head.parent:
            self.children[head.parent].discard(head.task_id)
        self.of_graph[head.graph_ref] -= 1
        self._index(head, None)

    def newest_heads(self, after: tuple[float, str] | None) -> Iterator[Head]:
        """All heads, newest first, or those behind one."""
        start = len(self.by_age) if after is None else bisect_left(self.by_age, after)
        for index in range(start - 1, -1, -1):
            yield self.heads[self.by_age[index][1]]

    def _index(self, before: Head | None, now: Head | None) -> None:
        """Keep up what is looked up by the fields that change."""
        if before is not None:
            self.active[before.partition].discard(before.task_id)
            self.removable.discard(before.task_id)
            if (key := _end_of(before)) is not None:
                ended = self.ended[before.partition, before.status]
                if key in ended[(place := bisect_left(ended, key)) : place + 1]:
                    del ended[place]
        if now is not None:
            if now.active:
                self.active[now.partition].add(now.task_id)
            if now.remove_at is not None:
                self.removable.add(now.task_id)
            if (key := _end_of(now)) is not None:
                insort(self.ended[now.partition, now.status], key)


def _end_of(head: Head) -> tuple[float, str] | None:
    """Where the head stands among those whose retention runs."""
    if head.active or head.parent or head.ended_at is None:
        return None
    return head.ended_at, head.task_id
