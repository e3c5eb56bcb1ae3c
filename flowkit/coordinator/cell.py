"""One task in the memory of one coordinator: its state, what waits to be decided, and what is on its way to the
store."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from flowkit.coordinator.bids import Bids
from flowkit.coordinator.offsets import Receipt
from flowkit.core.effects import Effect
from flowkit.core.facts import Fact
from flowkit.core.immutable import immutable
from flowkit.core.model import Task
from flowkit.core.node_run import NodeRun
from flowkit.core.permits import ToTask
from flowkit.core.reports import Placed, Report
from flowkit.ports import Commit, Head

if TYPE_CHECKING:
    from flowkit.coordinator.story import Story
    from flowkit.coordinator.stream_progress import Flow
    from flowkit.coordinator.waiting import Wait
    from flowkit.core.lane import Demand


@dataclass(slots=True)
class Item:
    """A report that waits to be decided, or a letter of a limit. `receipt` is what it owes to the offset of the record
    that brought it; `tenant` what the sender claimed, empty for the coordinator's own; `signer` the pool that signed
    it, empty for the coordinator's own and where nobody signed."""

    report: Report | ToTask
    receipt: Receipt | None = None
    tenant: str = ""
    signer: str = ""


def settle(items: Iterable[Item]) -> None:
    """What they owe to the offsets of their records is paid."""
    for item in items:
        if item.receipt is not None:
            item.receipt.settle()


@dataclass(slots=True)
class Flight:
    """A decision on its way: its commits go one after the other; items and effects belong to the last. `more`: there is
    more to be decided once it is acknowledged. `whole`: it is one commit."""

    cell: Cell
    commits: deque[Commit]
    facts: list[Fact]
    effects: list[Effect]
    items: list[Item]
    reserved: list[Placed]
    more: bool = False
    whole: bool = False


@immutable
class Front:
    """The head's changing fields as of an acknowledged commit."""

    status: str = "queued"
    wake: float | None = 0.0
    ended_at: float | None = None
    error: str | None = None


class Since(NamedTuple):
    """When (epoch seconds) an attempt began that is the task `child`; or a generation, whose number is `attempt`."""

    at: float
    attempt: int
    child: str = ""


class Cell:
    """A task here. Lives from the first word about it until its head is acknowledged and nothing is left to do.

    `acked` is the seq of the last acknowledged commit, `prev` its id, `published` the seq up to which every event is
    acknowledged; `stored` is what the head says of both. `bytes` is its weight in `TaskMemory`. `dead` cells are never
    used again: whoever still holds one must look its task up anew. A `patient` cell whose task has not begun waits for
    room before its first commit, so that creation and first leases are one. `snapshot` is what the head shall say of
    the last snapshot, of `snapshot_size` bytes; the commits after it have `unfolded` bytes. `bids` are what its
    nodes ask of limits, `letters` says that limits answered, and `waiting` are the lanes in which it waits for room.
    `homes` says which worker stands in for one that ran a node to be followed, and is gone or does not meet the demand:
    (gone, stand-in) by anchor and demand. `untold` is the seq with the end of a child that its parent has not heard of,
    0 without one: it counts as published only then, so that a crash in between is made good by whoever takes over.
    `unborn` is how many of its own children are about to be made, or looked for; `stirred_at` (monotonic seconds) is
    when something of it was last committed. `streams` is how far its streams are, as heartbeats
    say. `sight` is the head that told of a task which is to be loaded, and when (monotonic seconds) it was asked for.
    """

    __slots__ = (
        "acked",
        "aheads",
        "bids",
        "bytes",
        "cautious",
        "closing",
        "dead",
        "flight",
        "front",
        "head",
        "homes",
        "letters",
        "loading",
        "misses",
        "partition",
        "patient",
        "prev",
        "published",
        "published_beyond",
        "quarantine",
        "queue",
        "sight",
        "since",
        "snapshot",
        "snapshot_size",
        "stirred_at",
        "stored",
        "story",
        "streams",
        "task",
        "task_id",
        "to_mark",
        "unborn",
        "unfolded",
        "untold",
        "waiting",
        "wake_at",
        "watches",
    )

    def __init__(self, task_id: str, partition: int) -> None:
        self.task_id = task_id
        self.partition = partition
        self.head: Head | None = None
        self.sight: tuple[Head, float] | None = None
        self.task: Task | None = None
        self.queue: deque[Item] = deque()
        self.letters = False
        self.flight: Flight | None = None
        self.loading = True
        self.dead = False
        self.closing = False
        self.cautious = False
        self.quarantine = ""
        self.acked = 0
        self.published = 0
        self.published_beyond: set[int] = set()
        self.untold = 0
        self.unborn = 0
        self.stirred_at = 0.0
        self.prev = ""
        self.stored = (0, 0)
        self.story: Story | None = None
        self.streams: Flow | None = None
        self.since: dict[str, Since] | None = None
        self.snapshot = ""
        self.snapshot_size = 0
        self.unfolded = 0
        self.front = Front()
        self.aheads = 0
        self.misses = 0
        self.bids: Bids | None = None
        self.bytes = 0
        self.patient = True
        self.to_mark: list[int] = []
        self.waiting: dict[str, Wait] = {}
        self.homes: dict[tuple[str, Demand], tuple[str, str]] = {}
        self.wake_at: float | None = None
        self.watches: dict[str, str] = {}

    @property
    def live(self) -> bool:
        """Loaded, and this coordinator may decide about it."""
        return not (self.loading or self.dead or self.closing or self.quarantine)

    @property
    def tenant(self) -> str:
        return self.head.tenant if self.head is not None else ""

    def waited(self, run: NodeRun | None, now: float) -> float:
        """For how many seconds a node has been ready, under whichever coordinator; without one, a task that has not
        begun been there. `now` is epoch seconds."""
        began = self.head.created_at if run is None and self.head is not None else run and run.ready_at
        return max(0.0, now - began) if began else 0.0

    def remember(self, commit: Commit, facts: Sequence[Fact]) -> None:
        """A commit of these facts was acknowledged."""
        story, head, task = self.story, self.head, self.task
        if story is None or head is None or task is None:
            return
        if not story.hear(head, task, commit.seq, commit.at, facts):
            self.story = None

    def event_acknowledged(self, seq: int) -> None:
        """Advance `published` over every seq whose event is acknowledged."""
        self.published_beyond.add(seq)
        self._advance()

    def told(self, seq: int) -> None:
        """The parent has heard of the end that commit `seq` told of; of a later one it has yet to hear."""
        if self.untold == seq:
            self.untold = 0
            self._advance()

    def _advance(self) -> None:
        while self.published + 1 in self.published_beyond and self.published + 1 != self.untold:
            self.published += 1
            self.published_beyond.discard(self.published)

    @property
    def head_due(self) -> bool:
        return self.acked > 0 and self.stored != (self.acked, self.published)

    @property
    def at_rest(self) -> bool:
        """The task has ended, and its head says so: it is not active any more."""
        return self.task is not None and self.task.ended and self.published >= self.acked and not self.head_due
