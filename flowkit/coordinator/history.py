"""Reads tasks back: the fold of their commits. The owner loads with it, and every reader of a task sees through it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from flowkit.coordinator.graphs import Graphs
from flowkit.core.evolve import evolve
from flowkit.core.graph import Graph
from flowkit.core.model import Task
from flowkit.errors import Corrupt, GraphError, UnknownFact
from flowkit.ports import Commit, Head, Store
from flowkit.wire.codec import loads
from flowkit.wire.facts import decode_facts


@dataclass(frozen=True, slots=True)
class Past:
    """A task as the store has it. `error` says why it could not be folded (then `task` is None)."""

    head: Head
    task: Task | None
    commits: Sequence[Commit]
    error: str = ""
    newer: bool = False


def new_task(head: Head, graph: Graph) -> Task:
    """The state of a task before its first fact."""
    return Task(
        task_id=head.task_id,
        graph=graph,
        params=loads(head.params),
        tenant=head.tenant,
        timeout_sec=head.timeout_sec,
    )


def fold(task: Task, commits: Iterable[Commit]) -> None:
    """Fold commits into the state. Raises `Corrupt` for a gap or a foreign predecessor, `UnknownFact` for a newer
    fact."""
    seq, prev = 0, ""
    for commit in commits:
        if commit.seq != seq + 1 or commit.prev != prev:
            raise Corrupt(f"commit {commit.seq} of task {task.task_id} does not follow commit {seq} ({prev or 'none'})")
        for fact in decode_facts(commit.body):
            evolve(task, fact, commit.at)
        seq, prev = commit.seq, commit.id


class History:
    def __init__(self, store: Store, graphs: Graphs) -> None:
        self._store = store
        self._graphs = graphs

    async def load(self, task_ids: Sequence[str]) -> dict[str, Past]:
        """Heads and folded states of these tasks, in two reads; unknown ids are left out. Raises `StoreUnavailable`.

        The heads are read first: a commit that arrives in between is then seen, never one without its head.
        """
        heads = {head.task_id: head for head in await self._store.read_heads(task_ids)}
        if not heads:
            return {}
        commits = await self._store.read_commits(list(heads))
        by_task = {task_id: list(group) for task_id, group in groupby(commits, key=lambda commit: commit.task_id)}
        return {task_id: await self._past(head, by_task.get(task_id, [])) for task_id, head in heads.items()}

    async def since(self, task_id: str, seq: int) -> list[Commit]:
        """The commits that follow `seq`, up to the first gap. Raises `StoreUnavailable`."""
        return unbroken(await self._store.read_commits([task_id], after=seq), after=seq)

    async def _past(self, head: Head, commits: list[Commit]) -> Past:
        whole = unbroken(commits)
        try:
            graph = await self._graphs.get(head.graph_ref)
        except (Corrupt, GraphError) as error:
            return Past(head, None, whole, str(error))
        try:
            task = new_task(head, graph)
            fold(task, whole)
        except UnknownFact as error:
            return Past(head, None, whole, str(error), newer=True)
        except Corrupt as error:
            return Past(head, None, whole, str(error))
        except Exception as error:  # a history that cannot be folded must not stop the others
            return Past(head, None, whole, f"{type(error).__name__}: {error}")
        return Past(head, task, whole)


def unbroken(commits: Sequence[Commit], after: int = 0) -> list[Commit]:
    """The commits up to the first gap: a range read may miss one that was written while it ran."""
    whole: list[Commit] = []
    for commit in commits:
        if commit.seq != after + len(whole) + 1:
            break
        whole.append(commit)
    return whole
