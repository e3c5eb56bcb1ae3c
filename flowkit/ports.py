"""What the engine asks of the world, in its own verbs: the store, the bus, the clock. Adapters answer."""

from __future__ import annotations

import enum
import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from flowkit.core.immutable import immutable


class Outcome(enum.Enum):
    """What became of one insert or guarded update. Only OK may be acted on; UNKNOWN may still happen."""

    OK = "ok"
    DUPLICATE = "duplicate"
    NO_MATCH = "no_match"
    UNKNOWN = "unknown"


# ---------------------------------------------------------------------------------------------- what is stored

DELETED: Final = "deleted"
"""The status of the head of a deleted task: nobody sees the task any more, and what is left of it will be removed."""

FOREVER: Final = math.inf


@immutable
class Head:
    """A task's front page. The first block is written once, by the insert that accepts the task; the second
    only by the owner of its partition, write-behind. Times are seconds since the epoch (UTC).

    `params` is JSON text. `fingerprint` is a hash of everything the caller asked for, compared when an
    idempotency key comes again. `flow` is the named graph that the task is pinned to, as `name@3`, or empty. `parent`
    is the task whose attempt `parent_attempt` of its node `parent_node` this task is, or empty; `depth` counts the
    parents above it. `next_wake` None means that only a message or a request can move the task. `snapshot` is `seq:ref`
    of the last snapshot, or empty. `remove_at`: somebody deletes the task, and then the rest is to be done, or what is
    left of it to be removed; such heads are in no list. `life` counts the tasks that began after this deleted one
    with its idempotency key, each under an id of its own. `deadline`, of the first block, is when the task must have
    ended, whatever its graph says; `traceparent`, of the first block too, is the span (W3C Trace Context) that the task
    was created in, or empty.
    """

    task_id: str
    partition: int
    graph_ref: str
    params: str = "{}"
    tenant: str = "default"
    principal: str = "local"
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    targets: tuple[str, ...] = ()
    timeout_sec: float | None = None
    fingerprint: str = ""
    created_at: float = 0.0
    flow: str = ""
    parent: str = ""
    parent_node: str = ""
    parent_attempt: int = 0
    depth: int = 0

    status: str = "queued"
    seq: int = 0
    published_seq: int = 0
    active: bool = True
    next_wake: float | None = 0.0
    updated_at: float = 0.0
    ended_at: float | None = None
    error: str | None = None
    snapshot: str = ""
    remove_at: float | None = None
    life: int = 0
    deadline: float | None = None
    traceparent: str = ""


@immutable
class HeadUpdate:
    """The owner's fields of a head; applied only where `seq < new.seq or (seq = new.seq and published_seq < new's)`.
    Whoever deletes a task writes one more, with status `DELETED`; any other takes a mark to delete it away."""

    task_id: str
    status: str
    seq: int
    published_seq: int
    active: bool
    next_wake: float | None
    updated_at: float
    ended_at: float | None = None
    error: str | None = None
    snapshot: str = ""
    remove_at: float | None = None


@immutable
class Removal:
    """Another `remove_at` and `life` for a head, where they are still as in `head`."""

    head: Head
    remove_at: float | None
    life: int = 0


@immutable
class Commit:
    """One insert-only step of a task's history. `(task_id, seq)` is unique; `id` names this very document and `prev`
    the one before it (empty for seq 1). `body` is the JSON text of the recorded facts."""

    task_id: str
    seq: int
    id: str
    prev: str
    at: float
    by: str
    body: str


@dataclass(frozen=True, slots=True)
class Request:
    """What an API call asked of a task. `(task_id, n)` is unique and orders the requests of a task; `args` is JSON
    text."""

    task_id: str
    n: int
    id: str
    kind: str
    args: str
    partition: int
    tenant: str
    principal: str
    at: float
    applied: bool = False


@immutable
class StreamId:
    """Whose blocks: a node's, in one generation of its task."""

    task_id: str
    generation: int
    node: str


@immutable
class Block:
    """One insert-only piece of what a node says while it runs: batches, how far it has read, that an attempt began or
    that all is said. `(stream, seq)` is unique, and `seq` begins with 1 and leaves nothing out. `count` are the
    batches of the stream up to and including this block; `body` is JSON text."""

    stream: StreamId
    seq: int
    attempt: int
    count: int
    body: str


@dataclass(frozen=True, slots=True)
class FlowVersion:
    """One version of a named graph, written once. `(tenant, name, version)` is unique, and so orders those who put at
    the same time; versions count from 1. `created_at` is seconds since the epoch (UTC)."""

    tenant: str
    name: str
    version: int
    graph_ref: str
    created_at: float
    principal: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class FlowTag:
    """A word for a version of a flow, which may move to another. `revision` counts its moves from 1, so that a late one
    undoes none after it; `version` 0 means that it was taken off. `at` is seconds since the epoch (UTC)."""

    tenant: str
    name: str
    tag: str
    version: int
    revision: int
    at: float
    principal: str


@dataclass(frozen=True, slots=True)
class Renewal:
    """A worker's sign of life in the store, written while the bus does not acknowledge its heartbeats."""

    worker: str
    incarnation: str
    count: int
    tokens: tuple[str, ...]


@immutable
class LimitRecord:
    """What the owner of a limit wrote down last: who holds its permits. `stamp` names this very state, and is given
    once only; `body` is JSON text. No record means that nobody holds anything."""

    limit_id: str
    partition: int
    stamp: str
    body: str


@immutable
class LimitSwap:
    """A limit's next record, in the place of the one whose stamp is `before` (empty: of none). An empty `body` removes
    it."""

    limit_id: str
    partition: int
    before: str
    stamp: str
    body: str


@dataclass(frozen=True, slots=True)
class Kept:
    """An output that is kept under a key until `until` (epoch seconds); `body` is its JSON text."""

    key: str
    body: str
    until: float


@dataclass(frozen=True, slots=True)
class HeadFilter:
    """Which heads `list_heads` gives, none with a `remove_at`: all conditions hold; times are `created_at`; None does
    not restrict. `flow` is a
    name, for all of its versions, or exactly `name@3`, or empty for those that are pinned to none; `parent` is the id
    of the task whose children are wanted, or empty for those that are nobody's."""

    tenant: str | None = None
    status: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None
    since: float | None = None
    until: float | None = None
    flow: str | None = None
    parent: str | None = None


def flow_name(flow: str) -> str:
    """`name` of `name@3`; nothing of nothing."""
    return flow.partition("@")[0]


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

    async def due_heads(self, partitions: Collection[int], now: float, *, limit: int) -> list[Head]:
        """Active heads whose `next_wake` <= now, or whose `published_seq` < `seq`; the longest due first."""

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


# ---------------------------------------------------------------------------------------------- what travels


@immutable
class Record:
    """One message. To publish: `partition` is given (the engine always knows it). As received: `offset` is set,
    and `value` None means an empty message. Where messages are signed, `signer` is the pool of whoever signed it, empty
    for nobody, and `refused` why it must not be acted on."""

    topic: str
    partition: int
    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    offset: int = -1
    signer: str = ""
    refused: str = ""


class Tail(Protocol):
    """A reader of some partitions from where their end was when it was opened. Belongs to no group."""

    async def fetch(self, timeout: float) -> list[Record]:
        """What has come, in order per partition; empty after `timeout` seconds of silence. A broker that is away is
        silence."""

    async def stop(self) -> None: ...


class Member(Protocol):
    """A member of the consumer group of one topic; partitions come and go."""

    async def fetch(self, timeout: float) -> list[Record]:
        """As `Tail.fetch`, of the partitions owned now. Starts at the committed offset, else at the earliest."""

    async def commit(self, offsets: Mapping[int, int]) -> bool:
        """Commit `partition -> next offset to read`. False when refused (a rebalance): normal, nothing is lost."""

    async def end_offset(self, partition: int) -> int | None:
        """The offset after the last message now in the partition; None when the bus does not answer in time."""

    def position(self, partition: int) -> int | None:
        """The next offset that `fetch` will give for an owned partition; None when unknown or not owned."""

    async def stop(self) -> None: ...


class Bus(Protocol):
    """The road. Messages may be lost, doubled, late, and out of order; nobody relies on more."""

    async def start(self) -> None:
        """Connect. Raises `BusUnavailable` with the address and a hint."""

    async def stop(self) -> None: ...

    async def ensure_topics(self, topics: Mapping[str, TopicSpec]) -> None:
        """Create what is missing. Raises `ConfigError` where a topic exists with another partition count."""

    def partitions(self, topic: str) -> int:
        """How many partitions an ensured topic has."""

    async def publish(self, records: Sequence[Record]) -> list[bool]:
        """Send; True for each record that the bus acknowledged (all in-sync replicas). False is unknown, not no.
        Bounded in time (seconds, by the adapter's settings); raises nothing but CancelledError."""

    async def join(self, topic: str, group: str, *, on_revoked: Rebalanced, on_assigned: Rebalanced) -> Member:
        """Join the group. The callbacks get the partition numbers; `on_revoked` may take up to 2 s to flush."""

    async def tail(self, topic: str, partitions: Collection[int] | None = None) -> Tail:
        """Read from the end: what is published after this returned is seen, what was before is not."""

    async def describe(self) -> Mapping[str, Any]:
        """`kind`, `address`, and `topics` with their partition counts: of those that this bus was asked to ensure."""


Rebalanced = Callable[[frozenset[int]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """How a topic is made: partitions, and retention in seconds (None: the broker's default)."""

    partitions: int
    retention_sec: float | None = None


class Clock(Protocol):
    """Time as one process sees it. Two machines' clocks are never compared."""

    def wall(self) -> float:
        """Seconds since the epoch (UTC)."""

    def mono(self) -> float:
        """Seconds of a clock that never jumps; only differences mean anything."""


# ---------------------------------------------------------------------------------------------- secrets


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """One version of a secret, as it is stored. `(tenant, name, version)` is unique and never given twice, not even
    after the secret was deleted. `sealed` is the value, encrypted under a key of its own; `wrapped` is that key,
    encrypted under the master key `key_id`. `allow` is JSON text: who may use it. Where `sealed` is empty, the secret
    was deleted then. `created_at` is seconds since the epoch (UTC)."""

    tenant: str
    name: str
    version: int
    key_id: str
    wrapped: bytes = field(repr=False)
    sealed: bytes = field(repr=False)
    allow: str
    created_at: float
    principal: str

    @property
    def deleted(self) -> bool:
        return not self.sealed


@dataclass(frozen=True, slots=True)
class Rewrap:
    """The key of a version under another master key, where it is still wrapped as in `before`."""

    before: SealedSecret
    key_id: str
    wrapped: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuditRow:
    """Somebody did something with a secret, or was refused it. `id` is unique; `at` is seconds since the epoch (UTC).
    `action` is `set`, `allow`, `delete`, `reveal`, `rotate` or `use`; `outcome` is `ok` or the code of the refusal.
    Never a value."""

    id: str
    at: float
    tenant: str
    principal: str
    action: str
    name: str
    version: int = 0
    outcome: str = "ok"
    flow: str = ""
    task_id: str = ""
    node: str = ""
    attempt: int = 0
    worker: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which rows `list_audit` gives: all conditions hold; what is empty does not restrict."""

    tenant: str
    name: str = ""
    actions: tuple[str, ...] = ()
    outcome: str = ""


class SecretStore(Protocol):
    """Where sealed secrets and the record of their use are kept. It sees no value and no key. As durable, and
    answering, as a `Store`."""

    async def start(self) -> None:
        """Create what is missing. The store that it is in has been started. Raises `StoreUnavailable`."""

    async def insert_secret(self, secret: SealedSecret) -> Outcome:
        """Insert unless (tenant, name, version) exists."""

    async def secret_versions(
        self, tenant: str, name: str, *, limit: int, before: int | None = None
    ) -> list[SealedSecret]:
        """The versions of a secret, newest first, those below `before`."""

    async def newest_secrets(self, tenant: str, *, limit: int, after: str = "") -> list[SealedSecret]:
        """The newest version of each secret in order of names, those greater than `after`; deleted ones too."""

    async def secrets_of_other_keys(
        self, key_id: str, *, limit: int, after: tuple[str, str, int] = ("", "", 0)
    ) -> list[SealedSecret]:
        """Versions of all tenants that are not under this master key, nor deleted, in order of (tenant, name,
        version), those after `after`."""

    async def rewrap_secret(self, rewrap: Rewrap) -> Outcome:
        """Replace `key_id` and `wrapped`, and nothing else; NO_MATCH where they are not as before."""

    async def destroy_secrets(self, tenant: str, name: str, *, below: int) -> Outcome:
        """Remove the versions below this one; OK also where there are none."""

    async def insert_audit(self, rows: Sequence[AuditRow]) -> list[Outcome]:
        """Append; DUPLICATE where the id exists. Nothing here changes or removes a row."""

    async def list_audit(
        self, where: AuditFilter, *, limit: int, after: tuple[float, str] | None = None
    ) -> list[AuditRow]:
        """Newest first by (at, id), strictly after the cursor `after` in that order."""


@dataclass(frozen=True, slots=True)
class SecretUse:
    """Who asks for secrets: one attempt. `token` is that of its lease. `flow` is the name of the flow that its task is
    of, without a version, or empty; it is the ticket that says so, a worker need not know it."""

    tenant: str
    task_id: str
    node: str
    attempt: int
    token: str = field(repr=False)
    worker: str = ""
    flow: str = ""


class SecretSource(Protocol):
    """Where a worker gets the values of one attempt from: the manager in its own process, or the service of it."""

    async def values_for(self, use: SecretUse, ticket: str) -> Mapping[str, str]:
        """The values by the names that the ticket is for. Each use is audited, refused ones too. Bounded in time.

        Raises `TicketRefused`, `SecretRefused`, `SecretNotFound`, `SecretTampered`, `MasterKeyError`; and
        `SecretsUnavailable` or `StoreUnavailable`, where asking again may help."""
