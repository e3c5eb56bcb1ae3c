"""What is stored beside the heads: the history of tasks, what was asked of them, what they share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from flowkit.core.immutable import immutable

FOREVER: Final = math.inf


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
