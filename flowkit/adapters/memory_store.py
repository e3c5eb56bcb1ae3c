"""Keeps the engine's documents in this process's memory: the store's twin for tests and trials."""

from __future__ import annotations

import asyncio
import heapq
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

from flowkit.adapters.limits import chunks, storable, unpublished_or_wake
from flowkit.ports import (
    Block,
    Commit,
    FlowTag,
    FlowVersion,
    Head,
    HeadFilter,
    HeadUpdate,
    LimitRecord,
    LimitSwap,
    Outcome,
    Renewal,
    Request,
    StreamId,
    flow_name,
)


@dataclass(slots=True)
class MemoryData:
    """What outlives a process: several `MemoryStore`s over one of these are processes with one database."""

    heads: dict[str, Head] = field(default_factory=dict)
    commits: dict[str, dict[int, Commit]] = field(default_factory=dict)
    requests: dict[str, dict[int, Request]] = field(default_factory=dict)
    blobs: dict[tuple[str, str], list[bytes]] = field(default_factory=dict)
    blocks: dict[str, dict[StreamId, list[Block]]] = field(default_factory=dict)
    flows: dict[tuple[str, str], dict[int, FlowVersion]] = field(default_factory=dict)
    flow_tags: dict[tuple[str, str], dict[str, FlowTag]] = field(default_factory=dict)
    renewals: dict[str, Renewal] = field(default_factory=dict)
    limits: dict[str, LimitRecord] = field(default_factory=dict)
    # Derived: what a database would keep as indexes.
    by_age: list[tuple[float, str]] = field(default_factory=list)
    active: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    open: defaultdict[int, set[tuple[str, int]]] = field(default_factory=lambda: defaultdict(set))


class MemoryStore:
    """A `Store` over `MemoryData`. Every call yields to the loop once and then acts at one moment."""

    def __init__(self, data: MemoryData | None = None) -> None:
        self.data = data if data is not None else MemoryData()

    async def start(self) -> None:
        await asyncio.sleep(0)

    async def stop(self) -> None:
        await asyncio.sleep(0)

    # heads

    async def insert_heads(self, heads: Sequence[Head]) -> list[Outcome]:
        await asyncio.sleep(0)
        return [self._insert_head(head) for head in heads]

    async def update_heads(self, updates: Sequence[HeadUpdate]) -> list[Outcome]:
        await asyncio.sleep(0)
        return [self._update_head(update) for update in updates]

    async def read_heads(self, task_ids: Sequence[str]) -> list[Head]:
        await asyncio.sleep(0)
        return [self.data.heads[task_id] for task_id in dict.fromkeys(task_ids) if task_id in self.data.heads]

    async def list_heads(self, where: HeadFilter, *, limit: int, after: tuple[float, str] | None = None) -> list[Head]:
        await asyncio.sleep(0)
        found: list[Head] = []
        for head in self._newest_first(after):
            if len(found) >= limit:
                break
            if _matches(head, where):
                found.append(head)
        return found

    async def active_heads(self, partition: int, *, limit: int, after: str = "") -> list[Head]:
        await asyncio.sleep(0)
        ids = (task_id for task_id in self.data.active[partition] if task_id > after)
        return [self.data.heads[task_id] for task_id in heapq.nsmallest(limit, ids)]

    async def due_heads(self, partitions: Collection[int], now: float, *, limit: int) -> list[Head]:
        await asyncio.sleep(0)
        due: list[tuple[float, str]] = []
        for partition in set(partitions):
            for task_id in self.data.active[partition]:
                wake = unpublished_or_wake(self.data.heads[task_id])
                if wake is not None and wake <= now:
                    due.append((wake, task_id))
        return [self.data.heads[task_id] for _, task_id in heapq.nsmallest(limit, due)]

    # commits

    async def insert_commits(self, commits: Sequence[Commit]) -> list[Outcome]:
        await asyncio.sleep(0)
        return [self._insert_commit(commit) for commit in commits]

    async def read_commits(self, task_ids: Sequence[str], *, after: int = 0) -> list[Commit]:
        await asyncio.sleep(0)
        return [
            commit
            for task_id in sorted(set(task_ids))
            for seq, commit in sorted(self.data.commits.get(task_id, {}).items())
            if seq > after
        ]

    # requests

    async def insert_request(self, request: Request) -> Outcome:
        await asyncio.sleep(0)
        if not storable(request):
            return Outcome.UNKNOWN

        requests = self.data.requests.setdefault(request.task_id, {})
        if request.n in requests:
            return Outcome.DUPLICATE
        requests[request.n] = request
        if not request.applied:
            self.data.open[request.partition].add((request.task_id, request.n))
        return Outcome.OK

    async def read_requests(self, task_id: str) -> list[Request]:
        await asyncio.sleep(0)
        return [request for _, request in sorted(self.data.requests.get(task_id, {}).items())]

    async def open_requests(self, partitions: Collection[int], *, limit: int) -> list[Request]:
        await asyncio.sleep(0)
        keys = (key for partition in set(partitions) for key in self.data.open[partition])
        return [self.data.requests[task_id][n] for task_id, n in heapq.nsmallest(limit, keys)]

    async def mark_applied(self, keys: Sequence[tuple[str, int]]) -> Outcome:
        await asyncio.sleep(0)
        for task_id, n in keys:
            request = self.data.requests.get(task_id, {}).get(n)
            if request is not None:
                self.data.requests[task_id][n] = replace(request, applied=True)
                self.data.open[request.partition].discard((task_id, n))
        return Outcome.OK

    # streams

    async def insert_block(self, block: Block) -> Outcome:
        await asyncio.sleep(0)
        if not storable(block):
            return Outcome.UNKNOWN
        blocks = self.data.blocks.setdefault(block.stream.task_id, {}).setdefault(block.stream, [])
        place = bisect_left(blocks, block.seq, key=lambda one: one.seq)
        if place < len(blocks) and blocks[place].seq == block.seq:
            return Outcome.DUPLICATE
        blocks.insert(place, block)
        return Outcome.OK

    async def read_blocks(self, stream: StreamId, *, after: int = 0, limit: int) -> list[Block]:
        await asyncio.sleep(0)
        blocks = self._blocks(stream)
        start = bisect_left(blocks, after + 1, key=lambda one: one.seq)
        return blocks[start : start + limit]

    async def last_block(self, stream: StreamId) -> Block | None:
        await asyncio.sleep(0)
        blocks = self._blocks(stream)
        return blocks[-1] if blocks else None

    async def delete_blocks(self, task_id: str) -> Outcome:
        await asyncio.sleep(0)
        self.data.blocks.pop(task_id, None)
        return Outcome.OK

    # limits

    async def read_limits(self, limit_ids: Sequence[str]) -> list[LimitRecord]:
        await asyncio.sleep(0)
        return [self.data.limits[limit_id] for limit_id in dict.fromkeys(limit_ids) if limit_id in self.data.limits]

    async def limits_of(self, partition: int, *, limit: int, after: str = "") -> list[LimitRecord]:
        await asyncio.sleep(0)
        found = (one for one in self.data.limits.values() if one.partition == partition and one.limit_id > after)
        return heapq.nsmallest(limit, found, key=attrgetter("limit_id"))

    async def swap_limits(self, swaps: Sequence[LimitSwap]) -> list[Outcome]:
        await asyncio.sleep(0)
        return [self._swap_limit(swap) for swap in swaps]

    # graphs, artifacts and snapshots

    async def put_blob(self, ref: str, data: bytes, *, kind: str) -> None:
        await asyncio.sleep(0)
        self.data.blobs.setdefault((kind, ref), chunks(data))

    async def get_blob(self, ref: str, *, kind: str) -> bytes:
        await asyncio.sleep(0)
        return b"".join(self.data.blobs[kind, ref])

    async def delete_blob(self, ref: str, *, kind: str) -> Outcome:
        await asyncio.sleep(0)
        self.data.blobs.pop((kind, ref), None)
        return Outcome.OK

    # flows

    async def insert_flow_version(self, version: FlowVersion) -> Outcome:
        await asyncio.sleep(0)
        if not storable(version):
            return Outcome.UNKNOWN
        versions = self.data.flows.setdefault((version.tenant, version.name), {})
        if version.version in versions:
            return Outcome.DUPLICATE
        versions[version.version] = version
        return Outcome.OK

    async def flow_versions(
        self, tenant: str, name: str, *, limit: int, before: int | None = None
    ) -> list[FlowVersion]:
        await asyncio.sleep(0)
        versions = self.data.flows.get((tenant, name), {})
        numbers = (number for number in versions if before is None or number < before)
        return [versions[number] for number in heapq.nlargest(limit, numbers)]

    async def newest_flows(self, tenant: str, *, limit: int, after: str = "") -> list[FlowVersion]:
        await asyncio.sleep(0)
        names = (name for owner, name in self.data.flows if owner == tenant and name > after)
        flows = [self.data.flows[tenant, name] for name in heapq.nsmallest(limit, names)]
        return [versions[max(versions)] for versions in flows]

    async def put_flow_tag(self, tag: FlowTag) -> Outcome:
        await asyncio.sleep(0)
        if not storable(tag):
            return Outcome.UNKNOWN
        tags = self.data.flow_tags.setdefault((tag.tenant, tag.name), {})
        before = tags.get(tag.tag)
        if tag.revision != (1 if before is None else before.revision + 1):
            return Outcome.NO_MATCH
        tags[tag.tag] = tag
        return Outcome.OK

    async def flow_tags(self, tenant: str, names: Sequence[str]) -> list[FlowTag]:
        await asyncio.sleep(0)
        return [
            tag for name in sorted(set(names)) for _, tag in sorted(self.data.flow_tags.get((tenant, name), {}).items())
        ]

    # workers

    async def renew(self, renewal: Renewal) -> Outcome:
        await asyncio.sleep(0)
        self.data.renewals[renewal.worker] = renewal
        return Outcome.OK

    async def read_renewal(self, worker: str) -> Renewal | None:
        await asyncio.sleep(0)
        return self.data.renewals.get(worker)

    # for the operator

    async def describe(self) -> Mapping[str, Any]:
        await asyncio.sleep(0)
        return {
            "kind": "memory",
            "address": "this process",
            "version": "",
            "tasks": len(self.data.heads),
            "commits": sum(map(len, self.data.commits.values())),
        }

    def _blocks(self, stream: StreamId) -> list[Block]:
        return self.data.blocks.get(stream.task_id, {}).get(stream, [])

    def _insert_head(self, head: Head) -> Outcome:
        if not storable(head):
            return Outcome.UNKNOWN
        if head.task_id in self.data.heads:
            return Outcome.DUPLICATE

        # The caller keeps its own mapping and may change it.
        self.data.heads[head.task_id] = replace(head, labels=dict(head.labels))
        insort(self.data.by_age, (head.created_at, head.task_id))
        if head.active:
            self.data.active[head.partition].add(head.task_id)
        return Outcome.OK

    def _update_head(self, update: HeadUpdate) -> Outcome:
        if not storable(update):
            return Outcome.UNKNOWN
        head = self.data.heads.get(update.task_id)
        if head is None or (head.seq, head.published_seq) >= (update.seq, update.published_seq):
            return Outcome.NO_MATCH

        self.data.heads[update.task_id] = replace(
            head,
            status=update.status,
            seq=update.seq,
            published_seq=update.published_seq,
            active=update.active,
            next_wake=update.next_wake,
            updated_at=update.updated_at,
            ended_at=update.ended_at,
            error=update.error,
            snapshot=update.snapshot,
        )
        active = self.data.active[head.partition]
        if update.active:
            active.add(update.task_id)
        else:
            active.discard(update.task_id)
        return Outcome.OK

    def _insert_commit(self, commit: Commit) -> Outcome:
        if not storable(commit):
            return Outcome.UNKNOWN
        commits = self.data.commits.setdefault(commit.task_id, {})
        if commit.seq in commits:
            return Outcome.DUPLICATE
        commits[commit.seq] = commit
        return Outcome.OK

    def _swap_limit(self, swap: LimitSwap) -> Outcome:
        if not storable(swap):
            return Outcome.UNKNOWN
        there = self.data.limits.get(swap.limit_id)
        stamp = "" if there is None else there.stamp
        if stamp == (swap.stamp if swap.body else ""):
            return Outcome.OK
        if stamp != swap.before:
            return Outcome.NO_MATCH
        if swap.body:
            self.data.limits[swap.limit_id] = LimitRecord(swap.limit_id, swap.partition, swap.stamp, swap.body)
        else:
            del self.data.limits[swap.limit_id]
        return Outcome.OK

    def _newest_first(self, after: tuple[float, str] | None) -> Iterator[Head]:
        ages = self.data.by_age
        start = len(ages) if after is None else bisect_left(ages, after)
        for index in range(start - 1, -1, -1):
            yield self.data.heads[ages[index][1]]


def _matches(head: Head, where: HeadFilter) -> bool:
    return (
        (where.tenant is None or head.tenant == where.tenant)
        and (not where.status or head.status in where.status)
        and (where.name is None or head.name == where.name)
        and (where.since is None or head.created_at >= where.since)
        and (where.until is None or head.created_at < where.until)
        and (where.flow is None or where.flow in (head.flow, flow_name(head.flow)))
        and (where.parent is None or head.parent == where.parent)
        and all(head.labels.get(key) == value for key, value in where.labels.items())
    )
