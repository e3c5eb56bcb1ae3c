"""A `Store` as one simulated process sees it: a replica set behind a network that loses and delays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import methodcaller
from typing import Any

from flowkit.adapters.memory import MemoryStore
from flowkit.errors import StoreUnavailable
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
)
from flowkit.testing.machine import Machine
from flowkit.testing.replica import Key, ReplicaSet, Write, key_of
from flowkit.testing.stage import Stage


class FaultyStore:
    """What gets no answer raises `StoreUnavailable` if it reads and is UNKNOWN if it writes, after 2.5 s.

    `on_renewed` hears of acknowledged renewals, with the time at which they were sent; `requested` is the last
    request of each task that it was asked to insert.
    """

    def __init__(self, stage: Stage, replica: ReplicaSet, machine: Machine) -> None:
        self._stage = stage
        self._replica = replica
        self._machine = machine
        self._listeners: list[Callable[[Machine, list[Commit]], None]] = []
        self.on_renewed: Callable[[Renewal, float], None] = lambda renewal, sent: None
        self.requested: dict[str, Request] = {}

    def hear_acknowledged(self, listener: Callable[[Machine, list[Commit]], None]) -> None:
        """Tell it which commits were acknowledged to this process, before the process knows."""
        self._listeners.append(listener)

    async def start(self) -> None:
        await self._read(methodcaller("describe"))

    async def stop(self) -> None:
        await asyncio.sleep(0)

    # heads

    async def insert_heads(self, heads: Sequence[Head]) -> list[Outcome]:
        return await self._write([Write(methodcaller("insert_heads", [head]), (key_of(head),)) for head in heads])

    async def update_heads(self, updates: Sequence[HeadUpdate]) -> list[Outcome]:
        return await self._write(
            [Write(methodcaller("update_heads", [new]), (("head", new.task_id),)) for new in updates]
        )

    async def write_heads(
        self, updates: Sequence[HeadUpdate], fits: Callable[[HeadUpdate, Head], bool]
    ) -> list[Outcome]:
        """`update_heads` with another guard than its own: to see that somebody notices."""
        return await self._write([Write(partial(_write_head, new, fits), (("head", new.task_id),)) for new in updates])

    async def read_heads(self, task_ids: Sequence[str]) -> list[Head]:
        return await self._read(methodcaller("read_heads", list(task_ids)))  # type: ignore[no-any-return]

    async def list_heads(self, where: HeadFilter, *, limit: int, after: tuple[float, str] | None = None) -> list[Head]:
        work = methodcaller("list_heads", where, limit=limit, after=after)
        return await self._read(work)  # type: ignore[no-any-return]

    async def active_heads(self, partition: int, *, limit: int, after: str = "") -> list[Head]:
        work = methodcaller("active_heads", partition, limit=limit, after=after)
        return await self._read(work)  # type: ignore[no-any-return]

    async def due_heads(self, partitions: Collection[int], now: float, *, limit: int,
                        after: float | None = None) -> list[Head]:  # fmt: skip
        work = methodcaller("due_heads", list(partitions), now, limit=limit, after=after)
        return await self._read(work)  # type: ignore[no-any-return]

    async def ended_heads(self, partitions: Collection[int], status: str, before: float, *, limit: int,
                          after: tuple[float, str] | None = None) -> list[Head]:  # fmt: skip
        work = methodcaller("ended_heads", list(partitions), status, before, limit=limit, after=after)
        return await self._read(work)  # type: ignore[no-any-return]

    async def parents_among(self, task_ids: Sequence[str]) -> set[str]:
        return await self._read(methodcaller("parents_among", list(task_ids)))  # type: ignore[no-any-return]

    # deleting

    async def schedule_removal(self, removal: Removal) -> Outcome:
        return await self._write_one(methodcaller("schedule_removal", removal), ("head", removal.head.task_id))

    async def removable_heads(self, partitions: Collection[int], now: float, *, limit: int) -> list[Head]:
        work = methodcaller("removable_heads", list(partitions), now, limit=limit)
        return await self._read(work)  # type: ignore[no-any-return]

    async def delete_history(self, task_ids: Sequence[str]) -> Outcome:
        work = methodcaller("delete_history", list(task_ids))
        [outcome] = await self._write([Write(work, (), removes=tuple(task_ids))])
        return outcome

    async def collect_artifacts(self, task_ids: Sequence[str]) -> Outcome:
        return await self._write_one(methodcaller("collect_artifacts", list(task_ids)))

    async def delete_heads(self, heads: Sequence[Head]) -> Outcome:
        places = tuple(("head", head.task_id) for head in heads)
        gone = tuple(head.task_id for head in heads)
        [outcome] = await self._write([Write(methodcaller("delete_heads", list(heads)), places, removes=gone)])
        return outcome

    # commits

    async def insert_commits(self, commits: Sequence[Commit]) -> list[Outcome]:
        await self._buggify("freeze_before_insert", 0.015)
        writes = [Write(methodcaller("insert_commits", [new]), (key_of(new),), new) for new in commits]
        outcomes = await self._write(writes)

        good = [new for new, outcome in zip(commits, outcomes, strict=True) if outcome is Outcome.OK]
        for listener in self._listeners:
            listener(self._machine, good)
        if good:
            await self._buggify("crash_after_commit", 0.012)
        return outcomes

    async def read_commits(self, task_ids: Sequence[str], *, after: int = 0) -> list[Commit]:
        work = methodcaller("read_commits", list(task_ids), after=after)
        return await self._read(work)  # type: ignore[no-any-return]

    # requests

    async def insert_request(self, request: Request) -> Outcome:
        self.requested[request.task_id] = request
        [outcome] = await self._write([Write(methodcaller("insert_request", request), (key_of(request),))])
        return outcome

    async def read_requests(self, task_id: str) -> list[Request]:
        return await self._read(methodcaller("read_requests", task_id))  # type: ignore[no-any-return]

    async def open_requests(self, partitions: Collection[int], *, limit: int) -> list[Request]:
        work = methodcaller("open_requests", list(partitions), limit=limit)
        return await self._read(work)  # type: ignore[no-any-return]

    async def mark_applied(self, keys: Sequence[tuple[str, int]]) -> Outcome:
        places = tuple(("request", task_id, str(n)) for task_id, n in keys)
        [outcome] = await self._write([Write(methodcaller("mark_applied", list(keys)), places)])
        return outcome

    # streams

    async def insert_block(self, block: Block) -> Outcome:
        [outcome] = await self._write([Write(methodcaller("insert_block", block), (key_of(block),))])
        return outcome

    async def read_blocks(self, stream: StreamId, *, after: int = 0, limit: int) -> list[Block]:
        work = methodcaller("read_blocks", stream, after=after, limit=limit)
        return await self._read(work)  # type: ignore[no-any-return]

    async def last_block(self, stream: StreamId) -> Block | None:
        return await self._read(methodcaller("last_block", stream))  # type: ignore[no-any-return]

    async def delete_blocks(self, task_id: str) -> Outcome:
        [outcome] = await self._write([Write(methodcaller("delete_blocks", task_id), ())])
        return outcome

    # limits

    async def read_limits(self, limit_ids: Sequence[str]) -> list[LimitRecord]:
        return await self._read(methodcaller("read_limits", list(limit_ids)))  # type: ignore[no-any-return]

    async def limits_of(self, partition: int, *, limit: int, after: str = "") -> list[LimitRecord]:
        work = methodcaller("limits_of", partition, limit=limit, after=after)
        return await self._read(work)  # type: ignore[no-any-return]

    async def swap_limits(self, swaps: Sequence[LimitSwap]) -> list[Outcome]:
        await self._buggify("freeze_before_insert", 0.015)
        outcomes = await self._write(
            [Write(methodcaller("swap_limits", [new]), (("limit", new.limit_id),)) for new in swaps]
        )
        if Outcome.OK in outcomes:
            await self._buggify("crash_after_commit", 0.012)
        return outcomes

    # graphs, artifacts and snapshots

    async def put_blob(self, ref: str, data: bytes, *, kind: str, for_task: str = "", at: float = FOREVER) -> None:
        outcome = await self._write_one(methodcaller("put_blob", ref, data, kind=kind, for_task=for_task, at=at))
        if outcome is not Outcome.OK:
            raise StoreUnavailable("the simulated MongoDB did not say whether the blob is stored")

    async def get_blob(self, ref: str, *, kind: str) -> bytes:
        return await self._read(methodcaller("get_blob", ref, kind=kind))  # type: ignore[no-any-return]

    async def delete_blob(self, ref: str, *, kind: str) -> Outcome:
        return await self._write_one(methodcaller("delete_blob", ref, kind=kind))

    async def delete_snapshots(self, task_id: str, *, but: str) -> Outcome:
        return await self._write_one(methodcaller("delete_snapshots", task_id, but=but))

    async def idle_graphs(self, before: float, *, limit: int) -> list[str]:
        return await self._read(methodcaller("idle_graphs", before, limit=limit))  # type: ignore[no-any-return]

    async def collect_graphs(self, refs: Sequence[str], before: float, *, at: float) -> Outcome:
        return await self._write_one(methodcaller("collect_graphs", list(refs), before, at=at))

    # flows

    async def insert_flow_version(self, version: FlowVersion) -> Outcome:
        [outcome] = await self._write([Write(methodcaller("insert_flow_version", version), (key_of(version),))])
        return outcome

    async def flow_versions(
        self, tenant: str, name: str, *, limit: int, before: int | None = None
    ) -> list[FlowVersion]:
        work = methodcaller("flow_versions", tenant, name, limit=limit, before=before)
        return await self._read(work)  # type: ignore[no-any-return]

    async def newest_flows(self, tenant: str, *, limit: int, after: str = "") -> list[FlowVersion]:
        return await self._read(methodcaller("newest_flows", tenant, limit=limit, after=after))  # type: ignore[no-any-return]

    async def put_flow_tag(self, tag: FlowTag) -> Outcome:
        [outcome] = await self._write([Write(methodcaller("put_flow_tag", tag), (key_of(tag),))])
        return outcome

    async def flow_tags(self, tenant: str, names: Sequence[str]) -> list[FlowTag]:
        return await self._read(methodcaller("flow_tags", tenant, list(names)))  # type: ignore[no-any-return]

    # workers

    async def keep(self, kept: Kept) -> Outcome:
        return await self._write_one(methodcaller("keep", kept), key_of(kept))

    async def find_kept(self, key: str, now: float) -> Kept | None:
        return await self._read(methodcaller("find_kept", key, now))  # type: ignore[no-any-return]

    async def renew(self, renewal: Renewal) -> Outcome:
        sent = self._stage.now
        [outcome] = await self._write([Write(methodcaller("renew", renewal), (key_of(renewal),))])
        if outcome is Outcome.OK:
            self.on_renewed(renewal, sent)
        return outcome

    async def read_renewal(self, worker: str) -> Renewal | None:
        return await self._read(methodcaller("read_renewal", worker))  # type: ignore[no-any-return]

    async def describe(self) -> Mapping[str, Any]:
        return await self._read(methodcaller("describe"))  # type: ignore[no-any-return]

    # the network

    async def _write(self, writes: list[Write]) -> list[Outcome]:
        if not writes:
            return []
        answer: asyncio.Future[list[Outcome]] = self._stage.loop.create_future()
        self._replica.write(self._machine, writes, _reply_to(answer))
        return await answer

    async def _write_one(self, work: methodcaller, *places: Key) -> Outcome:
        [outcome] = await self._write([Write(work, places)])
        return outcome

    async def _read(self, work: methodcaller) -> Any:
        answer: asyncio.Future[list[Any] | None] = self._stage.loop.create_future()
        self._replica.read(self._machine, work, _reply_to(answer))
        found = await answer
        if found is None:
            raise StoreUnavailable("the simulated MongoDB does not answer; the world will heal it")
        if isinstance(found[0], KeyError):
            raise found[0]
        return found[0]

    async def _buggify(self, what: str, share: float) -> None:
        """At the two places where it hurts most, suspend or kill the coordinator that came along."""
        if self._machine.kind != "coordinator" or not self._stage.chance(share):
            return
        self._stage.count(f"bug_{what}")
        dice = self._stage.dice
        if what == "freeze_before_insert":
            self._machine.freeze(dice.uniform(6.5, 15))
            await asyncio.sleep(0)
        else:
            self._machine.crash(dice.uniform(0.5, 8))
            await self._stage.loop.create_future()


async def _write_head(
    update: HeadUpdate, fits: Callable[[HeadUpdate, Head], bool], store: MemoryStore
) -> list[Outcome]:
    head = store.data.heads.get(update.task_id)
    if head is None or not fits(update, head):
        return [Outcome.NO_MATCH]
    store.data.heads[update.task_id] = replace(head, seq=-1, published_seq=-1)
    return await store.update_heads([update])


def _reply_to(answer: asyncio.Future[Any]) -> Callable[[Any], None]:
    def reply(value: Any) -> None:
        if not answer.done():  # its process may have cancelled the call
            answer.set_result(value)

    return reply
