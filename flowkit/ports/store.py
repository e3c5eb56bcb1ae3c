"""Durable memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from flowkit.ports.documents import (
    FOREVER,
    Block,
    Commit,
    FlowTag,
    FlowVersion,
    Kept,
    LimitRecord,
    LimitSwap,
    Renewal,
    Request,
    StreamId,
)
from flowkit.ports.heads import Head, HeadFilter, HeadUpdate, Removal
from flowkit.ports.outcome import Outcome


class Store(Protocol):
    """Durable memory. Every write is acknowledged only when it survives a crash (majority and journaled; fsynced);
    every read sees all acknowledged writes. A method that only reads raises `StoreUnavailable` when it gets no answer;
    writes answer with `Outcome`s, and UNKNOWN where the answer is not a clear yes or no."""

    async def start(self) -> None:
        """Connect, create what is missing. Raises `StoreUnavailable` with the address and a hint."""

    async def stop(self) -> None: ...

    # heads
    async def insert_heads(self, heads: Sequence[Head]) -> list[Outcome]:
        """Insert each head unless its task_id exists (DUPLICATE). One outcome per head, in order."""

    async def update_heads(self, updates: Sequence[HeadUpdate]) -> list[Outcome]:
        """Apply each update under its guard; NO_MATCH where the guard or the id did not match. Never inserts."""

    async def read_heads(self, task_ids: Sequence[str]) -> list[Head]:
        """The heads that exist, in any order."""

    async def list_heads(self, where: HeadFilter, *, limit: int, after: tuple[float, str] | None = None) -> list[Head]:
        """Newest first by (created_at, task_id), strictly after the cursor `after` in that order."""

    async def active_heads(self, partition: int, *, limit: int, after: str = "") -> list[Head]:
        """Active heads of a partition in order of task_id, those greater than `after`."""

    async def due_heads(self, partitions: Collection[int], now: float, *, limit: int,
                        after: float | None = None) -> list[Head]:  # fmt: skip
        """Active heads whose `next_wake` <= now, or whose `published_seq` < `seq`; the longest due first. With `after`
        only those that have nothing to publish, and whose `next_wake` > after."""

    async def ended_heads(self, partitions: Collection[int], status: str, before: float, *, limit: int,
                          after: tuple[float, str] | None = None) -> list[Head]:  # fmt: skip
        """Heads of this status that are not active, nobody's child, and ended before `before`; in order of
        (ended_at, task_id), those after `after`."""

    async def parents_among(self, task_ids: Sequence[str]) -> set[str]:
        """Those of these tasks that have children, deleted ones included."""

    # deleting
    async def schedule_removal(self, removal: Removal) -> Outcome:
        """Set `remove_at` and `life` of a head; NO_MATCH where they are not as they were, or there is no such head."""

    async def removable_heads(self, partitions: Collection[int], now: float, *, limit: int) -> list[Head]:
        """Heads whose `remove_at` <= now, the longest due first."""

    async def delete_history(self, task_ids: Sequence[str]) -> Outcome:
        """Remove all requests, snapshots, blocks of streams, log lines, index entries and commits of these tasks, so
        many at a time that others get their turn. OK once nothing is left; otherwise some of it may be gone."""

    async def collect_artifacts(self, task_ids: Sequence[str]) -> Outcome:
        """Give up what was put for these tasks: of their artifacts, those that no other task put are removed. One that
        is put again meanwhile stays. OK once it is done; otherwise some of it may be."""

    async def delete_heads(self, heads: Sequence[Head]) -> Outcome:
        """Remove these heads, each only where `remove_at` and `life` are as given."""

    # commits
    async def insert_commits(self, commits: Sequence[Commit]) -> list[Outcome]:
        """Insert each commit unless its (task_id, seq) exists. Commits do not wait for one another: one DUPLICATE
        or refused document leaves the others alone. One outcome per commit, in order."""

    async def read_commits(self, task_ids: Sequence[str], *, after: int = 0) -> list[Commit]:
        """All commits of these tasks with seq > after, ordered by (task_id, seq)."""

    # requests
    async def insert_request(self, request: Request) -> Outcome:
        """Insert unless (task_id, n) exists."""

    async def read_requests(self, task_id: str) -> list[Request]:
        """All requests of a task in order of n."""

    async def open_requests(self, partitions: Collection[int], *, limit: int) -> list[Request]:
        """Requests not marked applied, ordered by (task_id, n)."""

    async def mark_applied(self, keys: Sequence[tuple[str, int]]) -> Outcome:
        """Mark requests (task_id, n) as applied."""

    # streams
    async def insert_block(self, block: Block) -> Outcome:
        """Insert unless (stream, seq) exists."""

    async def read_blocks(self, stream: StreamId, *, after: int = 0, limit: int) -> list[Block]:
        """The blocks of a stream with seq > after, in order of seq, at most `limit`."""

    async def last_block(self, stream: StreamId) -> Block | None:
        """The block with the highest seq."""

    async def delete_blocks(self, task_id: str) -> Outcome:
        """Remove all blocks of a task, of every node and generation; OK also where there are none."""

    # limits
    async def read_limits(self, limit_ids: Sequence[str]) -> list[LimitRecord]:
        """The records that exist, in any order."""

    async def limits_of(self, partition: int, *, limit: int, after: str = "") -> list[LimitRecord]:
        """The records of a partition in order of limit_id, those greater than `after`."""

    async def swap_limits(self, swaps: Sequence[LimitSwap]) -> list[Outcome]:
        """Do each, for distinct limits, where the stored stamp is still its `before`; NO_MATCH where it is not. OK also
        where the same was done before. One outcome per swap, in order."""

    # graphs and artifacts: content-addressed, immutable; snapshots: each under a name of its own, until it is replaced
    async def put_blob(self, ref: str, data: bytes, *, kind: str, for_task: str = "", at: float = FOREVER) -> None:
        """Store bytes under a name that means these bytes for ever; again is harmless. `kind` is `graph`, `artifact` or
        `snapshot`; the name of a snapshot begins with its task's id and a dot. An artifact is kept until all the tasks
        that it was put for are given up; put for none, it is kept for ever. A graph is kept while a head or a flow
        names it or a task that it was put for is not given up, and for a while after `at` (epoch seconds), the last
        time that it was put. Chunked to <= 512 KiB. Returns only when durable; raises `StoreUnavailable` otherwise."""

    async def get_blob(self, ref: str, *, kind: str) -> bytes:
        """The bytes put under `ref`. Raises `KeyError` when they are not there or not whole."""

    async def delete_blob(self, ref: str, *, kind: str) -> Outcome:
        """Remove what was put under `ref`, whole or not; OK also where nothing was."""

    async def delete_snapshots(self, task_id: str, *, but: str) -> Outcome:
        """Remove all snapshots of a task but the one under this name."""

    async def idle_graphs(self, before: float, *, limit: int) -> list[str]:
        """Names of graphs that were last put before `before`, the longest idle first."""

    async def collect_graphs(self, refs: Sequence[str], before: float, *, at: float) -> Outcome:
        """Remove those of these graphs that no head, flow or task needs and that nobody has put since `before`; the
        others count as put at `at`."""

    # flows
    async def insert_flow_version(self, version: FlowVersion) -> Outcome:
        """Insert unless (tenant, name, version) exists."""

    async def flow_versions(
        self, tenant: str, name: str, *, limit: int, before: int | None = None
    ) -> list[FlowVersion]:
        """The versions of a flow, newest first, those below `before`."""

    async def newest_flows(self, tenant: str, *, limit: int, after: str = "") -> list[FlowVersion]:
        """The newest version of each flow in order of names, those greater than `after`."""

    async def put_flow_tag(self, tag: FlowTag) -> Outcome:
        """Insert a tag of revision 1, replace with a later one the one of the revision before; NO_MATCH where it is of
        another revision."""

    async def flow_tags(self, tenant: str, names: Sequence[str]) -> list[FlowTag]:
        """The tags of these flows, those taken off too, ordered by (name, tag)."""

    # outputs for those who come with the same key
    async def keep(self, kept: Kept) -> Outcome:
        """Replace what is kept under the key. What is past its time may be removed on the way."""

    async def find_kept(self, key: str, now: float) -> Kept | None:
        """What is kept under the key at `now`, and not past its time."""

    # workers
    async def renew(self, renewal: Renewal) -> Outcome:
        """Replace the worker's renewal."""

    async def read_renewal(self, worker: str) -> Renewal | None: ...

    # for the operator
    async def describe(self) -> Mapping[str, Any]:
        """`kind`, `address`, `version`, and what `flowkit doctor` should show."""
