"""Reads tasks back: the fold of their commits, from a snapshot where there is one. The owner loads with it, and every
reader of a task sees through it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType

from flowkit.coordinator.graphs import Graphs
from flowkit.coordinator.weight import weight_of
from flowkit.core.bounds import UNBOUNDED, Bounds
from flowkit.core.evolve import evolve
from flowkit.core.facts import TaskRestarted
from flowkit.core.graph import Graph
from flowkit.core.model import Task
from flowkit.errors import Corrupt, GraphError, StoreUnavailable, UnknownFact
from flowkit.ports import DELETED, Commit, Head, Store
from flowkit.slices import in_slices
from flowkit.telemetry import SnapshotLoaded, SnapshotUnusable, Telemetry
from flowkit.wire.codec import loads
from flowkit.wire.facts import decode_facts
from flowkit.wire.snapshot import Place, at_once, edition_of, read_snapshot
from flowkit.wire.tombstone import is_tombstone

BEGINNING = Place(0, "")
NONE_KNOWN: Mapping[str, Head] = MappingProxyType({})
SLICE_WEIGHT = 100
LARGE_BYTES = 256 * 1024
RESTARTED = '["restarted"'

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Past:
    """A task as the store has it. `error` says why it could not be folded, `deleted` that it is no more (then `task` is
    None).

    `seq` and `commit_id` are those of the last commit in the state; `commits` those that were read: all that are not in
    the snapshot, and all that the head does not call published. `snapshot_size` are the bytes of the snapshot that the
    state was folded from, 0 without one, and `unfolded` those of the commits after it. `first` is the graph that the
    task was created with.
    """

    head: Head
    task: Task | None
    seq: int = 0
    commit_id: str = ""
    commits: Sequence[Commit] = ()
    error: str = ""
    newer: bool = False
    snapshot_size: int = 0
    unfolded: int = 0
    first: Graph | None = None
    deleted: bool = False


def new_task(head: Head, graph: Graph, bounds: Bounds = UNBOUNDED) -> Task:
    """The state of a task before its first fact."""
    task = Task(
        task_id=head.task_id,
        graph=graph,
        params=loads(head.params),
        tenant=head.tenant,
        timeout_sec=head.timeout_sec,
        parent_attempt=head.parent_attempt,
        deadline=head.deadline,
    )
    task.bounds = bounds
    return task


def fold(task: Task, commits: Iterable[Commit], after: Place = BEGINNING) -> Place:
    """Fold the commits that follow `after` into the state. Raises `Corrupt` for a gap or a foreign predecessor,
    `UnknownFact` for a newer fact."""
    return at_once(fold_in_slices(task, commits, after))


def fold_in_slices(task: Task, commits: Iterable[Commit], after: Place) -> Generator[None, None, Place]:
    """`fold`, letting others in after every few facts, or few edges where a fact reaches many nodes."""
    where, weight = after, 0
    for commit in commits:
        if commit.seq != where.seq + 1 or commit.prev != where.commit_id:
            known = f"commit {where.seq} ({where.commit_id or 'none'})"
            raise Corrupt(f"commit {commit.seq} of task {task.task_id} does not follow {known}")
        for fact in decode_facts(commit.body):
            evolve(task, fact, commit.at)
            weight += weight_of(task.graph, fact)
            if weight >= SLICE_WEIGHT:
                weight = 0
                yield
        where = Place(commit.seq, commit.id)
    return where


class History:
    """Reads many tasks in few reads; those with a snapshot each in two of their own. `bounds` are for all of them."""

    def __init__(self, store: Store, graphs: Graphs, telemetry: Telemetry | None = None,
                 bounds: Bounds = UNBOUNDED) -> None:  # fmt: skip
        self._store = store
        self._graphs = graphs
        self._telemetry = telemetry if telemetry is not None else Telemetry()
        self._bounds = bounds

    def new_task(self, head: Head, graph: Graph) -> Task:
        """The state of a task before its first fact."""
        return new_task(head, graph, self._bounds)

    async def load(self, task_ids: Sequence[str], *, whole: bool = False) -> dict[str, Past]:
        """Heads and folded states of these tasks; unknown ids and deleted tasks are left out. `whole`: read every
        commit, whatever snapshots there are. Raises `StoreUnavailable`."""
        batches = [batch async for batch in self.batches(task_ids, whole=whole)]
        return {past.head.task_id: past for batch in batches for past in batch if not past.deleted}

    async def batches(self, task_ids: Sequence[str], *, whole: bool = False,
                      known: Mapping[str, Head] = NONE_KNOWN) -> AsyncIterator[list[Past]]:  # fmt: skip
        """As `load`, deleted tasks included: first all small tasks together, then the large ones, each when it is
        ready.

        The heads are read first, or are `known`, from a moment ago: a commit that arrives in between is then seen,
        never one without its head. Of a task that is deleted in between the commits are still there for long enough,
        the last of them a tombstone. A head with a snapshot is always read: the one that it names may have been
        replaced.
        """
        heads = {task_id: known[task_id] for task_id in task_ids if task_id in known and not known[task_id].snapshot}
        if unknown := [task_id for task_id in task_ids if task_id not in heads]:
            heads |= {head.task_id: head for head in await self._store.read_heads(unknown)}
        if gone := [head for head in heads.values() if head.status == DELETED]:
            heads = {task_id: head for task_id, head in heads.items() if head.status != DELETED}
            yield [_no_more(head) for head in gone]
        begun = [head for head in heads.values() if head.snapshot and not whole]
        fresh = [task_id for task_id, head in heads.items() if whole or not head.snapshot]
        commits = await self._store.read_commits(fresh) if fresh else []
        by_task = {task_id: list(group) for task_id, group in groupby(commits, key=lambda commit: commit.task_id)}
        large = [task_id for task_id, read in by_task.items() if _bytes_of(read) > LARGE_BYTES]
        yield [
            await self._folded(heads[task_id], by_task.get(task_id, [])) for task_id in fresh if task_id not in large
        ]
        for task_id in large:
            yield [await self._folded(heads[task_id], by_task.pop(task_id))]
        for head in begun:
            yield [await self._past(head)]

    async def since(self, task_id: str, seq: int) -> list[Commit]:
        """The commits that follow `seq`, up to the first gap. Raises `StoreUnavailable`."""
        return unbroken(await self._store.read_commits([task_id], after=seq), after=seq)

    async def _past(self, head: Head) -> Past:
        """From the snapshot that the head names; from the first commit, if anything at all is wrong with that."""
        try:
            past = await self._from_snapshot(head)
        except StoreUnavailable:
            raise
        except Exception as error:  # only an optimisation: if the commits are what is wrong, they will say so
            self._telemetry.emit(SnapshotUnusable(head.task_id, f"{type(error).__name__}: {error}"))
            return await self._folded(head, await self._store.read_commits([head.task_id]))
        self._telemetry.emit(SnapshotLoaded(head.task_id, place_of(head.snapshot)[0]))
        return past

    async def _from_snapshot(self, head: Head) -> Past:
        seq, ref = place_of(head.snapshot)
        data = await self._store.get_blob(ref, kind="snapshot")
        task = self.new_task(head, await self._graphs.get(edition_of(data) or head.graph_ref))
        base = await in_slices(read_snapshot(data, task))
        if task.limited:
            task.gate_anew()  # whoever wrote the snapshot may have had other bounds
        if base.seq != seq:
            raise Corrupt(f"a snapshot of commit {base.seq} where one of commit {seq} was named")
        after = min(seq, head.published_seq)
        commits = await self.since(head.task_id, after)
        if commits and is_tombstone(commits[-1]):
            return _no_more(head)
        older, newer = commits[: seq - after], commits[seq - after :]
        task.editions = await self.editions(newer)
        if len(older) < seq - after or (older and older[-1].id != base.commit_id):
            raise Corrupt("a snapshot of another history than the one that was read")
        where = await in_slices(fold_in_slices(task, newer, base))
        return Past(head, task, *where, commits, snapshot_size=len(data), unfolded=_bytes_of(newer))

    async def editions(self, commits: Iterable[Commit]) -> dict[str, Graph]:
        """The graphs that restarts among these commits went on with. Raises `StoreUnavailable`, `Corrupt`."""
        refs = [
            fact.graph
            for commit in commits
            if RESTARTED in commit.body
            for fact in decode_facts(commit.body)
            if isinstance(fact, TaskRestarted) and fact.graph
        ]
        return {ref: await self._graphs.get(ref) for ref in refs}

    async def _folded(self, head: Head, commits: list[Commit]) -> Past:
        if commits and is_tombstone(commits[-1]):
            return _no_more(head)
        commits = unbroken(commits)
        try:
            graph = await self._graphs.get(head.graph_ref)
        except (Corrupt, GraphError) as error:
            return Past(head, None, commits=commits, error=str(error))
        try:
            task = self.new_task(head, graph)
            task.editions = await self.editions(commits)
            where = await in_slices(fold_in_slices(task, commits, BEGINNING))
        except StoreUnavailable:
            raise
        except UnknownFact as error:
            return Past(head, None, commits=commits, error=str(error), newer=True)
        except (Corrupt, GraphError) as error:
            return Past(head, None, commits=commits, error=str(error))
        except Exception as error:  # a history that cannot be folded must not stop the others
            _log.error("the commits of task %s cannot be folded", head.task_id, exc_info=error)
            return Past(head, None, commits=commits, error=f"{type(error).__name__}: {error}")
        return Past(head, task, *where, commits, unfolded=_bytes_of(commits), first=graph)


def _no_more(head: Head) -> Past:
    return Past(head, None, error="it was deleted", deleted=True)


def place_of(snapshot: str) -> tuple[int, str]:
    """The seq and the blob's name that a head's `snapshot` says. Raises `ValueError`."""
    seq, _, ref = snapshot.partition(":")
    return int(seq), ref


def _bytes_of(commits: Iterable[Commit]) -> int:
    return sum(len(commit.body) for commit in commits)


def unbroken(commits: Sequence[Commit], after: int = 0) -> list[Commit]:
    """The commits up to the first gap: a range read may miss one that was written while it ran."""
    whole: list[Commit] = []
    for commit in commits:
        if commit.seq != after + len(whole) + 1:
            break
        whole.append(commit)
    return whole
