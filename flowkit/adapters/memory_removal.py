"""What a database in memory is rid of."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence

from flowkit.adapters.memory_data import MemoryData
from flowkit.ports import FOREVER, Head, Outcome, Removal


def schedule(data: MemoryData, removal: Removal) -> Outcome:
    head = data.heads.get(removal.head.task_id)
    if head is None or not _as_it_was(head, removal.head):
        return Outcome.NO_MATCH
    data.replace_head(head, remove_at=removal.remove_at, life=removal.life)
    return Outcome.OK


def due(data: MemoryData, partitions: Collection[int], now: float, limit: int) -> list[Head]:
    wanted = set(partitions)
    heads = (data.heads[task_id] for task_id in data.removable)
    found = [
        (head.remove_at, head.task_id)
        for head in heads
        if head.partition in wanted and head.remove_at is not None and head.remove_at <= now
    ]
    return [data.heads[task_id] for _, task_id in heapq.nsmallest(limit, found)]


def delete_history(data: MemoryData, task_ids: Sequence[str]) -> Outcome:
    for task_id in task_ids:
        data.commits.pop(task_id, None)
        data.blocks.pop(task_id, None)
        data.logs.pop(task_id, None)
        data.traces.forget(task_id)
        for request in data.requests.pop(task_id, {}).values():
            data.open[request.partition].discard((task_id, request.n))
    return delete_snapshots(data, task_ids)


def delete_snapshots(data: MemoryData, task_ids: Sequence[str], but: str = "") -> Outcome:
    beginnings = tuple(f"{task_id}." for task_id in task_ids)
    for kind, ref in list(data.blobs):
        if kind == "snapshot" and ref.startswith(beginnings) and ref != but:
            del data.blobs[kind, ref]
    return Outcome.OK


def collect_artifacts(data: MemoryData, task_ids: Sequence[str]) -> Outcome:
    for task_id in task_ids:
        for ref in data.artifacts_of.pop(task_id, ()):
            claims = data.claims[ref]
            claims.discard(task_id)
            if not claims:
                del data.claims[ref]
                data.blobs.pop(("artifact", ref), None)
    return Outcome.OK


def delete_heads(data: MemoryData, heads: Sequence[Head]) -> Outcome:
    for given in heads:
        head = data.heads.get(given.task_id)
        if head is not None and _as_it_was(head, given):
            data.delete_head(head)
    return Outcome.OK


def collect_graphs(data: MemoryData, refs: Sequence[str], before: float, at: float) -> Outcome:
    idle = {ref for ref in refs if data.graphs_put_at.get(ref, FOREVER) < before}
    for ref in idle:
        if data.of_graph[ref] or ref in data.claims:
            data.graphs_put_at[ref] = at
        else:
            del data.graphs_put_at[ref], data.blobs["graph", ref]
    return Outcome.OK


def _as_it_was(head: Head, before: Head) -> bool:
    return (head.remove_at, head.life) == (before.remove_at, before.life)
