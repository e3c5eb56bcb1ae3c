"""The one judge of what a cluster did, real or simulated: by its commits and a ledger of handlers' starts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter

from flowkit.core.model import Task
from flowkit.core.node_run import FIELDS, NodeRun
from flowkit.errors import FlowKitError
from flowkit.ports import DELETED, Commit, Head
from flowkit.testing.evidence import Evidence, Frozen, Start, Violation
from flowkit.testing.walk import Walk
from flowkit.wire.codec import loads
from flowkit.wire.tombstone import is_tombstone

# A process that was thawed needs a moment to notice that its lease is over.
THAW_SEC = 1.0


def check_history(
    commits: Iterable[Commit], ledger: Iterable[Start], evidence: Evidence | None = None
) -> list[Violation]:
    """Every promise (architecture, I1 to I7) that this history breaks; empty for a good one."""
    judge = _Judge(commits, ledger, evidence if evidence is not None else Evidence())
    judge.chains()
    judge.children()
    judge.starts()
    judge.overlaps()
    judge.stops()
    judge.promises()
    judge.heads()
    judge.events()
    return judge.found


class _Judge:
    def __init__(self, commits: Iterable[Commit], ledger: Iterable[Start], evidence: Evidence) -> None:
        self.evidence = evidence
        self.ledger = list(ledger)
        self.found: list[Violation] = []
        self.commits: dict[str, list[Commit]] = {}
        for task_id, group in groupby(sorted(commits, key=attrgetter("task_id", "seq")), attrgetter("task_id")):
            self.commits[task_id] = list(group)
        self.walks: dict[str, Walk] = {}
        self.deleted: set[str] = set()

    def say(self, kind: str, task_id: str, detail: str) -> None:
        self.found.append(Violation(kind, task_id, detail))

    # ---- what the commits say

    def chains(self) -> None:
        """Whole chains of commits, each step legal, the fold the same each time (I1 to I3, I6, I7)."""
        starts: defaultdict[str, dict[tuple[str, int], Start]] = defaultdict(dict)
        for start in self.ledger:
            starts[start.task_id].setdefault((start.node, start.attempt), start)
        ids: dict[str, Commit] = {}
        for task_id, commits in self.commits.items():
            for commit in commits:
                if (other := ids.setdefault(commit.id, commit)) is not commit:
                    self.say("commit_id_reused", task_id, f"{commit.id} is also {other.task_id}:{other.seq}")
            lived = self.until_deleted(task_id, commits)
            self.walk(task_id, self.whole(task_id, lived), starts[task_id])
            if task_id in self.deleted and task_id in self.walks and not self.walks[task_id].task.ended:
                self.say("deleted_unended", task_id, f"it was {self.walks[task_id].task.status}")

    def children(self) -> None:
        """What a node took for the end of its child is one, and one that the child came to for that very attempt."""
        for task_id, walk in self.walks.items():
            for node, attempt, child in walk.children:
                its = self.walks.get(child)
                if its is not None and attempt not in its.ended_for:
                    self.say("end_of_another", task_id, f"{node} attempt {attempt}: task {child} had no end for it")

    def until_deleted(self, task_id: str, commits: list[Commit]) -> list[Commit]:
        """The commits before the tombstone, behind which there must be none."""
        place = next((place for place, commit in enumerate(commits) if is_tombstone(commit)), None)
        if place is None:
            return commits
        self.deleted.add(task_id)
        for commit in commits[place + 1 :]:
            self.say("commit_after_deletion", task_id, f"{commit.id} as {commit.seq}")
        return commits[:place]

    def whole(self, task_id: str, commits: list[Commit]) -> list[Commit]:
        """The commits up to the first break of the chain."""
        prev = ""
        for place, commit in enumerate(commits):
            if commit.seq != place + 1:
                self.say("gap", task_id, f"commit {place + 1} is missing before {commit.seq}")
                return commits[:place]
            if commit.prev != prev:
                self.say("fork", task_id, f"commit {commit.seq} follows {commit.prev!r}, not {prev!r}")
                return commits[:place]
            prev = commit.id
        return commits

    def walk(self, task_id: str, commits: list[Commit], starts: dict[tuple[str, int], Start]) -> None:
        head = self.evidence.heads.get(task_id)
        graph = self.evidence.graphs.get(head.graph_ref) if head is not None else None
        if head is None or graph is None:
            self.say("task_unknown", task_id, "it has commits, but no head or no graph")
            return
        first, again = self._task(head), self._task(head)
        walk = self.walks[task_id] = Walk(first, head, self.evidence, starts, self.say)
        try:
            walk.follow(commits)
            replay = Walk(again, head, self.evidence, starts, lambda *_: None)
            replay.follow(commits)
        except (FlowKitError, AssertionError, LookupError, TypeError, ValueError, AttributeError) as error:
            self.say("unreadable_history", task_id, repr(error))
            return
        if state_of(first) != state_of(again):
            self.say("not_deterministic", task_id, "two folds of the same commits differ")
        walk.finish()

    def _task(self, head: Head) -> Task:
        return Task(
            task_id=head.task_id,
            graph=self.evidence.graphs[head.graph_ref],
            params=loads(head.params),
            tenant=head.tenant,
            timeout_sec=head.timeout_sec,
            parent_attempt=head.parent_attempt,
            deadline=head.deadline,
        )

    # ---- what the handlers say

    def starts(self) -> None:
        """Each start has a committed lease of its own; no token is started twice (rules 3 and 4)."""
        seen: dict[tuple[str, str, int], Start] = {}
        for start in self.ledger:
            place = (start.task_id, start.node, start.attempt)
            what = f"{start.node} attempt {start.attempt} on {start.worker}"
            walk = self.walks.get(start.task_id)
            lease = walk.leases.get((start.node, start.attempt)) if walk is not None else None
            if lease is None:
                self.say("start_without_commit", start.task_id, f"{what}: no such lease was committed")
            elif start.token not in ("", lease.token) or start.worker not in ("", lease.worker):
                self.say(
                    "start_without_commit",
                    start.task_id,
                    f"{what}: the lease is {lease.token} of {lease.worker}",
                )
            if (other := seen.setdefault(place, start)) is not start:
                self.say(
                    "token_ran_twice",
                    start.task_id,
                    f"{what}, at {other.started_at:.3f} and {start.started_at:.3f}",
                )

    def overlaps(self) -> None:
        """Two runs of one node at once are excused only by a freeze, or by the loss of all of Kafka's data."""
        by_key: defaultdict[str, list[Start]] = defaultdict(list)
        for start in self.ledger:
            by_key[start.key].append(start)
        for key, starts in by_key.items():
            starts.sort(key=attrgetter("started_at"))
            for place, later in enumerate(starts):
                for earlier in starts[:place]:
                    if earlier.ended_at is not None and earlier.ended_at > later.started_at + 1e-9:
                        self.overlap(key, earlier, later)

    def overlap(self, key: str, earlier: Start, later: Start) -> None:
        at = later.started_at
        lost = any(0 <= at - loss <= 2 * self.evidence.ttl_sec for loss in self.evidence.losses)
        if not lost and not any(_froze(frozen, earlier.worker, at) for frozen in self.evidence.frozen):
            first, second = f"{earlier.attempt} on {earlier.worker}", f"{later.attempt} on {later.worker}"
            self.say("overlap", earlier.task_id, f"{key}: attempt {first} still ran when {second} began, {at:.3f}")

    def stops(self) -> None:
        """A run whose lease is over ends soon after, once there are no faults any more (I6)."""
        since = self.evidence.calm_since
        for start in self.ledger if since is not None else ():
            walk = self.walks.get(start.task_id)
            over = walk.over.get((start.node, start.attempt)) if walk is not None else None
            if over is None or start.ended_at is None:
                continue
            late = start.ended_at - max(over, since or 0.0, start.started_at)
            if late > self.evidence.stop_sec:
                what = f"{start.node} attempt {start.attempt} ran on for {late:.1f} s on {start.worker}"
                self.say("run_after_lease", start.task_id, what)

    # ---- what was promised

    def promises(self) -> None:
        """What was acknowledged is there: tasks, requests in order, commits (I4)."""
        for task_id in sorted(self.evidence.accepted):
            if task_id not in self.evidence.heads:
                self.say("accepted_task_lost", task_id, "it was acknowledged and has no head")
        for task_id, seq, commit_id in sorted(self.evidence.acknowledged):
            chain = self.commits.get(task_id, [])
            stored = next((commit.id for commit in chain if commit.seq == seq), None)
            if stored != commit_id:
                self.say("commit_lost", task_id, f"{commit_id} was acknowledged as {seq}; there is {stored}")
        self.requests()

    def requests(self) -> None:
        """Requests are applied once each, in order, and then marked (rule 10)."""
        for request in self.evidence.requests if self.evidence.settled else ():
            walk = self.walks.get(request.task_id)
            if request.task_id in self.deleted:
                continue  # one that came too late was answered as of no task
            if walk is None or request.id not in walk.requests:
                self.say("request_lost", request.task_id, f"number {request.n} ({request.kind}) was never applied")
            elif not request.applied:
                self.say("request_unmarked", request.task_id, f"number {request.n} ({request.kind}) is not marked")
        last: dict[str, int] = {}
        for asked in self.evidence.asked:
            walk = self.walks.get(asked.task_id)
            n = walk.requests.get(asked.id) if walk is not None else None
            if n is None:
                if self.evidence.settled:
                    self.say("request_lost", asked.task_id, f"{asked.kind} {asked.id} was never applied")
                continue
            if n < last.get(asked.task_id, 0):
                self.say("request_order", asked.task_id, f"{asked.kind} is number {n}, after {last[asked.task_id]}")
            last[asked.task_id] = n

    def heads(self) -> None:
        """Tasks have ended, accepted or not (nobody waited for the answer), and their heads say so (I5)."""
        if not self.evidence.settled:
            return
        for task_id in sorted({*self.evidence.accepted, *self.evidence.heads}):
            head, walk = self.evidence.heads.get(task_id), self.walks.get(task_id)
            if head is None:
                continue
            if task_id in self.deleted:
                if head.status != DELETED or head.active:
                    self.say("head_wrong", task_id, f"the head of a deleted task says {head.status}")
            elif walk is None or not walk.task.ended:
                status = walk.task.status if walk is not None else "without commits"
                self.say("not_ended", task_id, f"it is {status}")
            elif head.active:
                self.say(
                    "head_open",
                    task_id,
                    f"the head says {head.status}, seq {head.seq} of {walk.seq}, published {head.published_seq}",
                )
            elif head.status != walk.task.status or head.seq != walk.seq or head.published_seq != walk.seq:
                detail = f"the head says {head.status}, {head.seq}, {head.published_seq}"
                self.say("head_wrong", task_id, f"{detail}; the commits {walk.task.status}, {walk.seq}")

    def events(self) -> None:
        """Every commit was seen by the world, and nothing was seen that is none. Of a tombstone it may have heard."""
        seen = self.evidence.events
        if seen is None:
            return
        ids = {(task_id, commit.seq): commit for task_id, commits in self.commits.items() for commit in commits}
        for task_id, seq, commit_id in sorted(seen):
            commit = ids.get((task_id, seq))
            if commit is None or commit.id != commit_id:
                self.say("phantom_event", task_id, f"an event told of {commit_id} as {seq}")
        if self.evidence.settled:
            for (task_id, seq), commit in ids.items():
                if not is_tombstone(commit) and (task_id, seq, commit.id) not in seen:
                    self.say("event_missed", task_id, f"nobody saw commit {seq}")


APART = frozenset({"bounds", "graph", "editions", "params", "memo"})
"""What a task is given and what it looked up: no part of its state. Graphs are large, and every task knows them."""


def _froze(frozen: Frozen, process: str, at: float) -> bool:
    return frozen.process == process and frozen.since <= at <= frozen.until + THAW_SEC


def essence_of(task: Task) -> object:
    """What two holders of a task must agree on: not what `settle` has still to look at, nor dead timers."""
    timers = sorted(timer for timer in task.timers if task.timer_live(timer))
    # Whether a gated node has its permits is known to its owner only.
    ready = [(role, [name for name in names if name not in task.gated]) for role, names in task.ready.items()]
    apart = {*APART, "agenda", "joined", "timers", "ready", "gated_anew"}
    names = [name for name in Task.__slots__ if name not in apart]
    waiting = sorted((role, left) for role, left in ready if left)
    return [timers, waiting, *((name, state_of(getattr(task, name))) for name in names)]


def state_of(value: object) -> object:
    """A task's state as plain values that can be compared: all of it, graphs and parameters apart."""
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, dict):
        return [(key, state_of(item)) for key, item in value.items()]
    if isinstance(value, NodeRun):
        return [(name, state_of(getattr(value, name))) for name in FIELDS]
    if hasattr(type(value), "__slots__"):
        names = (name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()))
        return [(name, state_of(getattr(value, name))) for name in names if name not in APART]
    if isinstance(value, Iterable):
        return [state_of(item) for item in value]
    return repr(value)
