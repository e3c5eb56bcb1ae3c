"""Keeps the engine's documents in this process's memory: the store's twin for tests and trials."""

from __future__ import annotations

import asyncio
import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from flowkit.adapters import memory_removal as removing
from flowkit.adapters.limits import chunks, storable, unpublished_or_wake
from flowkit.adapters.memory_data import MemoryData
from flowkit.adapters.memory_logs import MemoryLogs
from flowkit.adapters.memory_secrets import MemorySecrets
from flowkit.adapters.memory_traces import MemoryTraces
from flowkit.ports import (
    FOREVER,
    Block,
    Commit,
    FlowTag,
    FlowVersion,
    Head,
    HeadFilter,
    HeadUpdate,
    Kept,
    LimitRecord,
    LimitSwap,
    Outcome,
    Removal,
    Renewal,
    Request,
    StreamId,
    flow_name,
)

MOST_KEPT = 10_000
"""Of more outputs the oldest go first: memory has no other bound for them."""


class MemoryStore:
    """A `Store` over `MemoryData`. Every call yields to the loop once and then acts at one moment."""

    def __init__(self, data: MemoryData | None = None) -> None:
        self.data = data if data is not None else MemoryData()
        self.logs = MemoryLogs(self.data.logs)
        self.traces = MemoryTraces(self.data.traces)
        self.secrets = MemorySecrets(self.data.sealed)

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
        for head in self.data.newest_heads(after):
            if len(found) >= limit:
                break
            if _matches(head, where):
                found.append(head)
        return found

    async def active_heads(self, partition: int, *, limit: int, after: str = "") -> list[Head]:
        await asyncio.sleep(0)
        ids = (task_id for task_id in self.data.active[partition] if task_id > after)
        return [self.data.heads[task_id] for task_id in heapq.nsmallest(limit, ids)]

    async def due_heads(self, partitions: Collection[int], now: float, *, limit: int,
                        after: float | None = None) -> list[Head]:  # fmt: skip
        await asyncio.sleep(0)
        due: list[tuple[float, str]] = []
        for partition in set(partitions):
            for task_id in self.data.active[partition]:
                wake = unpublished_or_wake(self.data.heads[task_id])
                if wake is not None and wake <= now and (after is None or wake > after):
                    due.append((wake, task_id))
        return [self.data.heads[task_id] for _, task_id in heapq.nsmallest(limit, due)]

    async def ended_heads(self, partitions: Collection[int], status: str, before: float, *, limit: int,
                          after: tuple[float, str] | None = None) -> list[Head]:  # fmt: skip
        await asyncio.sleep(0)
        found: list[tuple[float, str]] = []
        for partition in set(partitions):
            ended = self.data.ended[partition, status]
            start = 0 if after is None else bisect_right(ended, after)
            found += ended[start : min(start + limit, bisect_left(ended, (before, "")))]
        return [self.data.heads[task_id] for _, task_id in heapq.nsmallest(limit, found)]

    async def parents_among(self, task_ids: Sequence[str]) -> set[str]:
        await asyncio.sleep(0)
        return {task_id for task_id in task_ids if self.data.children.get(task_id)}

    # deleting

    async def schedule_removal(self, removal: Removal) -> Outcome:
        await asyncio.sleep(0)
        return removing.schedule(self.data, removal)

    async def removable_heads(self, partitions: Collection[int], now: float, *, limit: int) -> list[Head]:
        await asyncio.sleep(0)
        return removing.due(self.data, partitions, now, limit)

    async def delete_history(self, task_ids: Sequence[str]) -> Outcome:
        await asyncio.sleep(0)
        return removing.delete_history(self.data, task_ids)

    async def collect_artifacts(self, task_ids: Sequence[str]) -> Outcome:
        await asyncio.sleep(0)
        return removing.collect_artifacts(self.data, task_ids)

    async def delete_heads(self, heads: Sequence[Head]) -> Outcome:
        await asyncio.sleep(0)
        return removing.delete_heads(self.data, heads)

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

    async def put_blob(self, ref: str, data: bytes, *, kind: str, for_task: str = "", at: float = FOREVER) -> None:
        await asyncio.sleep(0)
        self.data.blobs.setdefault((kind, ref), chunks(data))
        if kind == "artifact" or for_task:
            self.data.claims.setdefault(ref, set()).add(for_task)
            self.data.artifacts_of[for_task].add(ref)
        if kind == "graph":
            self.data.graphs_put_at[ref] = max(at, self.data.graphs_put_at.get(ref, at))

    async def get_blob(self, ref: str, *, kind: str) -> bytes:
        await asyncio.sleep(0)
        return b"".join(self.data.blobs[kind, ref])

    async def delete_blob(self, ref: str, *, kind: str) -> Outcome:
        await asyncio.sleep(0)
        self.data.blobs.pop((kind, ref), None)
        return Outcome.OK

    async def delete_snapshots(self, task_id: str, *, but: str) -> Outcome:
        await asyncio.sleep(0)
        return removing.delete_snapshots(self.data, [task_id], but)

    async def idle_graphs(self, before: float, *, limit: int) -> list[str]:
        await asyncio.sleep(0)
        idle = ((at, ref) for ref, at in self.data.graphs_put_at.items() if at < before)
        return [ref for _, ref in heapq.nsmallest(limit, idle)]

    async def collect_graphs(self, refs: Sequence[str], before: float, *, at: float) -> Outcome:
        await asyncio.sleep(0)
        return removing.collect_graphs(self.data, refs, before, at)

    # flows

    async def insert_flow_version(self, version: FlowVersion) -> Outcome:
        await asyncio.sleep(0)
        if not storable(version):
            return Outcome.UNKNOWN
        versions = self.data.flows.setdefault((version.tenant, version.name), {})
        if version.version in versions:
            return Outcome.DUPLICATE
        versions[version.version] = version
        self.data.of_graph[version.graph_ref] += 1
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

    async def keep(self, kept: Kept) -> Outcome:
        await asyncio.sleep(0)
        self.data.kept[kept.key] = kept
        while len(self.data.kept) > MOST_KEPT:
            self.data.kept.pop(next(iter(self.data.kept)))
        return Outcome.OK

    async def find_kept(self, key: str, now: float) -> Kept | None:
        await asyncio.sleep(0)
        kept = self.data.kept.get(key)
        return kept if kept is not None and kept.until > now else None

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
            "deleted": len(self.data.removable),
        }

    def _blocks(self, stream: StreamId) -> list[Block]:
        return self.data.blocks.get(stream.task_id, {}).get(stream, [])

    def _insert_head(self, head: Head) -> Outcome:
        if not storable(head):
            return Outcome.UNKNOWN
        if head.task_id in self.data.heads:
            return Outcome.DUPLICATE

        self.data.add_head(head)
        return Outcome.OK

    def _update_head(self, update: HeadUpdate) -> Outcome:
        if not storable(update):
            return Outcome.UNKNOWN
        head = self.data.heads.get(update.task_id)
        if head is None or (head.seq, head.published_seq) >= (update.seq, update.published_seq):
            return Outcome.NO_MATCH

        self.data.replace_head(
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
            remove_at=update.remove_at,
        )
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


def _matches(head: Head, where: HeadFilter) -> bool:
    return (
        head.remove_at is None
        and (where.tenant is None or head.tenant == where.tenant)
        and (not where.status or head.status in where.status)
        and (where.name is None or head.name == where.name)
        and (where.since is None or head.created_at >= where.since)
        and (where.until is None or head.created_at < where.until)
        and (where.flow is None or where.flow in (head.flow, flow_name(head.flow)))
        and (where.parent is None or head.parent == where.parent)
        and all(head.labels.get(key) == value for key, value in where.labels.items())
    )
