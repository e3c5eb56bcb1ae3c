"""A task's front page, and how it is changed, filtered and taken away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from flowkit.core.immutable import immutable

DELETED: Final = "deleted"
"""The status of the head of a deleted task: nobody sees the task any more, and what is left of it will be removed."""


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
