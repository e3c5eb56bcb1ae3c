"""A simulated replica set: what its primary holds, what a majority holds, and what a fail-over takes back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flowkit.adapters.memory import MemoryData, MemoryStore
from flowkit.ports import (
    Block,
    Commit,
    FlowTag,
    FlowVersion,
    Head,
    Kept,
    LimitRecord,
    Outcome,
    Renewal,
    Request,
    StreamId,
)
from flowkit.testing.machine import MONGO, Machine
from flowkit.testing.stage import Stage

ANSWER_SEC = 2.5
STALE_SEC = 3.0
# A commit younger than this may be missed by a read that was under way.
RACY_SEC = 0.01

Key = tuple[str, ...]
Work = Callable[[MemoryStore], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class Write:
    """One write as the primary is asked for it: what to do, which documents it may change, and of which tasks it
    removes what there is."""

    work: Work
    keys: tuple[Key, ...]
    commit: Commit | None = None
    removes: tuple[str, ...] = ()


@dataclass(slots=True)
class Entry:
    """An applied write that no majority holds yet; `done` hears whether one came to hold it."""

    number: int
    write: Write
    done: Callable[[bool], None] | None = None


@dataclass(slots=True)
class Removed:
    """What a majority held of tasks when it was told to remove them: the world remembers for the judge."""

    heads: dict[str, Head] = field(default_factory=dict)
    commits: dict[str, dict[int, Commit]] = field(default_factory=dict)
    requests: dict[str, dict[int, Request]] = field(default_factory=dict)

    def note(self, task_ids: Sequence[str], data: MemoryData) -> None:
        for task_id in task_ids:
            if task_id in data.heads:
                self.heads[task_id] = data.heads[task_id]
            self.commits.setdefault(task_id, {}).update(data.commits.get(task_id, {}))
            self.requests.setdefault(task_id, {}).update(data.requests.get(task_id, {}))


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a memory store's call to its end: it yields to the loop, but waits for nothing."""
    try:
        while True:
            work.send(None)
    except StopIteration as end:
        return end.value


class ReplicaSet:
    """Writes are acknowledged once a majority holds them; reads see the majority's data, sometimes late."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.primary = MemoryStore()
        self.majority = MemoryStore()
        self.down_until = 0.0
        self.slow_until = 0.0
        self.acknowledged: set[tuple[str, int, str]] = set()
        self.removed = Removed()
        self.on_applied: Callable[[Commit], None] = lambda commit: None
        self.on_majority: Callable[[Write], None] = lambda write: None
        self._pending: deque[Entry] = deque()
        self._numbers = 0
        self._replicated = 0.0
        # (when a majority came to hold it, key, the document before)
        self._recent: deque[tuple[float, Key, Any]] = deque()

    # ---- writing

    def write(self, machine: Machine, writes: Sequence[Write], reply: Callable[[list[Outcome]], None]) -> None:
        """Perhaps apply the writes, perhaps answer. `reply` is called once at most, by the world."""
        stage = self.stage
        answer = _Once(stage, reply, len(writes))
        if machine.is_cut(MONGO):
            if machine.hears(MONGO):
                stage.later(stage.latency(), self._arrive, writes, None)
            answer.never()
            return

        draw = stage.dice.random() if stage.storm else 1.0
        late_head = bool(stage.tilt["late_head"]) and any(key[0] == "head" for key in writes[0].keys)
        if draw < 0.01:
            stage.count("mongo_lost")
            answer.never()
        elif draw < 0.02 or (late_head and stage.chance(stage.tilt["late_head"])):
            stage.count("mongo_late")
            stage.later(stage.dice.uniform(2, 8), self._arrive, writes, None)
            answer.never()
        elif draw < 0.035:
            stage.count("mongo_ack_lost")
            stage.later(stage.latency(), self._arrive, writes, None)
            answer.never()
        else:
            stage.later(stage.latency(), self._arrive, writes, answer)

    def _arrive(self, writes: Sequence[Write], answer: _Once | None) -> None:
        stage = self.stage
        if self.down_until > stage.now:
            if stage.dice.random() < 0.1:
                stage.count("mongo_late")
                stage.at(self.down_until + 0.01, self._arrive, writes, None)
            if answer is not None:
                answer.never()
            return

        last: Entry | None = None
        outcomes: list[Outcome] = []
        for write in writes:
            outcome = self._apply(write)
            outcomes.append(outcome)
            if outcome is Outcome.OK:
                self._numbers += 1
                last = Entry(self._numbers, write)
                self._pending.append(last)
        careless = "majority" in stage.without
        if answer is not None and (last is None or careless):
            self._acknowledge(writes, outcomes)
            answer.give(outcomes)
        if last is not None:
            if answer is not None and not careless:
                last.done = partial(self._replicated_or_not, writes, outcomes, answer)
            self._replicate_later(last, answer)

    def _apply(self, write: Write) -> Outcome:
        commit = write.commit
        if commit is not None and "unique" in self.stage.without:
            self.primary.data.commits.setdefault(commit.task_id, {})[commit.seq] = commit
            outcome = Outcome.OK
        else:
            result = at_once(write.work(self.primary))
            outcome = result[0] if isinstance(result, list) else result or Outcome.OK
        if commit is not None and outcome is Outcome.OK:
            self.on_applied(commit)
        return outcome

    def _replicate_later(self, entry: Entry, answer: _Once | None) -> None:
        stage = self.stage
        lag = 0.003
        if self.slow_until > stage.now:
            lag = stage.dice.uniform(0.2, max(0.3, self.slow_until - stage.now))
            if answer is not None:
                answer.never()  # unless it comes in time
        self._replicated = max(self._replicated, stage.now + lag)
        stage.at(self._replicated, self._commit, entry.number)

    def _replicated_or_not(self, writes: Sequence[Write], outcomes: list[Outcome], answer: _Once, good: bool) -> None:
        if good:
            self._acknowledge(writes, outcomes)
        answer.give(outcomes if good else [Outcome.UNKNOWN] * len(outcomes))

    def _acknowledge(self, writes: Sequence[Write], outcomes: list[Outcome]) -> None:
        for write, outcome in zip(writes, outcomes, strict=True):
            if write.commit is not None and outcome is Outcome.OK:
                self.acknowledged.add((write.commit.task_id, write.commit.seq, write.commit.id))

    def _commit(self, upto: int) -> None:
        """A majority holds every write up to this number."""
        while self._pending and self._pending[0].number <= upto:
            entry = self._pending.popleft()
            for key in entry.write.keys:
                self._recent.append((self.stage.now, key, self._document(key)))
            self.removed.note(entry.write.removes, self.majority.data)
            commit = entry.write.commit
            if commit is not None and "unique" in self.stage.without:
                self.majority.data.commits.setdefault(commit.task_id, {})[commit.seq] = commit
            else:
                at_once(entry.write.work(self.majority))
            self.on_majority(entry.write)
            if entry.done is not None:
                entry.done(True)
        while self._recent and self._recent[0][0] < self.stage.now - STALE_SEC:
            self._recent.popleft()

    def _document(self, key: Key) -> Any:
        data = self.majority.data
        match key:
            case ("head", task_id):
                return data.heads.get(task_id)
            case ("commit", task_id, seq):
                return data.commits.get(task_id, {}).get(int(seq))
            case ("request", task_id, n):
                return data.requests.get(task_id, {}).get(int(n))
            case ("flow", tenant, name, version):
                return data.flows.get((tenant, name), {}).get(int(version))
            case ("flow_tag", tenant, name, tag):
                return data.flow_tags.get((tenant, name), {}).get(tag)
            case ("renewal", worker):
                return data.renewals.get(worker)
            case ("block", task_id, generation, node, seq):
                blocks = data.blocks.get(task_id, {}).get(StreamId(task_id, int(generation), node), [])
                return next((block for block in reversed(blocks) if block.seq == int(seq)), None)
            case ("limit", limit_id):
                return data.limits.get(limit_id)
            case ("kept", name):
                return data.kept.get(name)
        return None

    def fail_over(self) -> None:
        """The primary changes; what no majority held yet is partly kept, partly rolled back."""
        stage = self.stage
        keep = stage.dice.randint(0, len(self._pending))
        kept = self._pending[keep - 1].number if keep else 0
        lost = len(self._pending) - keep
        stage.note("FAILOVER rolled back", lost)
        stage.count("rolled_back", lost)
        self._commit(kept)
        doomed, self._pending = self._pending, deque()
        self.primary = MemoryStore(_copy(self.majority.data))
        self.down_until = max(self.down_until, stage.now + stage.dice.uniform(0.3, 3))
        for entry in doomed:
            if entry.done is not None:
                entry.done(False)

    def heal(self) -> None:
        now = self.stage.now
        self.down_until = min(self.down_until, now)
        self.slow_until = min(self.slow_until, now)

    # ---- reading

    def read(self, machine: Machine, work: Work, reply: Callable[[Any], None]) -> None:
        """Answer with what `work` gives, or with None where no answer comes in time."""
        stage = self.stage
        if machine.is_cut(MONGO) or self.down_until > stage.now or stage.chance(0.01):
            stage.count("mongo_unread")
            stage.later(ANSWER_SEC, reply, None)
        else:
            stage.later(stage.latency(), self._look, work, reply)

    def _look(self, work: Work, reply: Callable[[Any], None]) -> None:
        stage = self.stage
        found: list[Any]
        try:
            result = at_once(work(self.majority))
        except KeyError as error:
            found = [error]
        else:
            stale = stage.chance(stage.tilt["stale_read"])
            cut = stage.now - (stage.dice.uniform(0, STALE_SEC) if stale else 0.0)
            found = [self._as_of(result, cut)]
            if stale:
                stage.count("stale_read")
        stage.later(stage.latency(), reply, found)

    def _as_of(self, result: Any, cut: float) -> Any:
        """The result as it was at `cut`; documents that were found then and would not be now stay away."""
        if not self._recent or not (self.stage.storm and isinstance(result, list)):
            return result
        before: dict[Key, Any] = {}
        racy: set[Key] = set()
        for when, key, document in reversed(self._recent):
            if when > cut:
                before[key] = document
            elif when > self.stage.now - RACY_SEC and key[0] == "commit":
                racy.add(key)
            else:
                break
        if not before and not racy:
            return result
        seen = []
        for document in result:
            key = key_of(document)
            if key in racy and self.stage.dice.random() < 0.3:
                continue
            document = before.get(key, document)
            if document is not None:
                seen.append(document)
        return seen


class _Once:
    """An answer that is given once: in time, or as UNKNOWN for every write."""

    __slots__ = ("_count", "_given", "_reply", "_stage", "_waits")

    def __init__(self, stage: Stage, reply: Callable[[list[Outcome]], None], count: int) -> None:
        self._stage = stage
        self._reply = reply
        self._count = count
        self._given = False
        self._waits = False

    def give(self, outcomes: list[Outcome]) -> None:
        if not self._given:
            self._given = True
            self._stage.later(self._stage.latency(), self._reply, outcomes)

    def never(self) -> None:
        """No answer, or none soon: after the client's patience it is unknown."""
        if not self._waits:
            self._waits = True
            self._stage.later(ANSWER_SEC, self._give_up)

    def _give_up(self) -> None:
        if not self._given:
            self._given = True
            self._stage.count("mongo_timeout")
            self._reply([Outcome.UNKNOWN] * self._count)


def key_of(document: Head | Commit | Request | FlowVersion | FlowTag | Kept | Renewal | LimitRecord | Block) -> Key:
    match document:
        case Head():
            return ("head", document.task_id)
        case Commit():
            return ("commit", document.task_id, str(document.seq))
        case Request():
            return ("request", document.task_id, str(document.n))
        case FlowVersion():
            return ("flow", document.tenant, document.name, str(document.version))
        case FlowTag():
            return ("flow_tag", document.tenant, document.name, document.tag)
        case Kept():
            return ("kept", document.key)
        case Renewal():
            return ("renewal", document.worker)
        case Block(stream=stream, seq=seq):
            return ("block", stream.task_id, str(stream.generation), stream.node, str(seq))
        case LimitRecord():
            return ("limit", document.limit_id)


def _copy(data: MemoryData) -> MemoryData:
    """The same documents (they are immutable) under indexes of its own."""
    copy = MemoryData(
        heads=dict(data.heads),
        commits={task_id: dict(commits) for task_id, commits in data.commits.items()},
        requests={task_id: dict(requests) for task_id, requests in data.requests.items()},
        blobs=dict(data.blobs),
        claims={ref: set(tasks) for ref, tasks in data.claims.items()},
        graphs_put_at=dict(data.graphs_put_at),
        blocks={task_id: {s: list(blocks) for s, blocks in of.items()} for task_id, of in data.blocks.items()},
        flows={key: dict(versions) for key, versions in data.flows.items()},
        flow_tags={key: dict(tags) for key, tags in data.flow_tags.items()},
        renewals=dict(data.renewals),
        limits=dict(data.limits),
        kept=dict(data.kept),
        by_age=list(data.by_age),
        removable=set(data.removable),
        of_graph=data.of_graph.copy(),
    )
    copy.active.update((partition, set(task_ids)) for partition, task_ids in data.active.items())
    copy.ended.update((place, list(ends)) for place, ends in data.ended.items())
    copy.children.update((parent, set(task_ids)) for parent, task_ids in data.children.items())
    copy.artifacts_of.update((task_id, set(refs)) for task_id, refs in data.artifacts_of.items())
    copy.open.update((partition, set(keys)) for partition, keys in data.open.items())
    return copy
