"""Tasks that have ended, and who deletes them, over a store that can die at any write."""

from __future__ import annotations

from typing import Any

from flowkit.adapters.memory import MemoryBus, MemoryData, MemoryStore
from flowkit.clock import ManualClock
from flowkit.config import CoordinatorConfig
from flowkit.coordinator.delete_task import DeleteTask
from flowkit.coordinator.deletion import GRACE_SEC, Deletion
from flowkit.coordinator.graphs import Graphs
from flowkit.coordinator.history import History
from flowkit.coordinator.retention import LOOK_SEC
from flowkit.coordinator.runtime import CoordinatorRuntime
from flowkit.core import facts as f
from flowkit.core.payload import Artifact, Payload
from flowkit.errors import TaskNotFound
from flowkit.ports import Commit, Head, Outcome
from flowkit.wire.codec import dumps
from flowkit.wire.facts import body_of, encode_facts
from tests.core.builders import graph, node

NOW = 1_000_000.0
DAY = 86_400.0
RAW = graph(node("a"))
WRITES = ("insert_commits", "update_heads", "schedule_removal", "delete_history", "collect_artifacts", "delete_heads")

CREATED: list[f.Fact] = [f.TaskCreated(), f.AttemptLeased("a", 1, "k", "w", "i", 1.0)]
RESTARTED: list[f.Fact] = [f.RequestApplied(1, "r", "restart", True), f.TaskRestarted(1)]


def finished(ref: str = "") -> list[f.Fact]:
    output = Payload(None, Artifact(ref, 1, "bytes")) if ref else Payload(1)
    return [f.AttemptSucceeded("a", 1, "k", output), f.TaskEnded("finished")]


class Died(Exception):
    """The process is no more."""


class Mortal(MemoryStore):
    """Its process dies at write number `dies_at` (from 0), before it or right after it."""

    def __init__(self, data: MemoryData | None = None) -> None:
        super().__init__(data)
        self.writes: list[str] = []
        self.dies_at = -1
        self.dies_after = False

    async def _write(self, name: str, *args: Any, **more: Any) -> Any:
        self.writes.append(name)
        dies = len(self.writes) - 1 == self.dies_at
        if dies and not self.dies_after:
            raise Died
        outcome = await getattr(super(), name)(*args, **more)
        if dies:
            raise Died
        return outcome


for _name in WRITES:

    def _method(self: Mortal, *args: Any, _name: str = _name, **more: Any) -> Any:
        return self._write(_name, *args, **more)

    setattr(Mortal, _name, _method)


async def _nowhere(records: Any) -> None:
    pass


class Yard:
    """`ended` puts a task there that has finished; `delete` is the verb; `look` a coordinator's next look."""

    def __init__(self, **settings: Any) -> None:
        self.store = Mortal()
        self.clock = ManualClock(NOW)
        self.history = History(self.store, Graphs(self.store, self.clock))
        self.deletion = Deletion(self.store, self.clock, "me")
        self.verb = DeleteTask(self.store, self.clock, self.history, self.deletion)
        self.settings = settings
        self.seqs: dict[str, int] = {}
        self.runtime = self.coordinator()

    def coordinator(self, store: MemoryStore | None = None) -> CoordinatorRuntime:
        """A fresh process that coordinates."""
        runtime = CoordinatorRuntime(
            store=store if store is not None else MemoryStore(self.store.data), bus=MemoryBus(), clock=self.clock,
            cfg=CoordinatorConfig(**self.settings),
        )  # fmt: skip
        runtime.engine.owned = set(range(8))
        runtime.publisher.send = lambda parcel: None  # type: ignore[method-assign]
        runtime.api._acceptance._publish = _nowhere  # type: ignore[method-assign]
        return runtime

    async def task(self, task_id: str, *facts: list[f.Fact], head_seq: int | None = None, **fields: Any) -> Head:
        """A task with a commit for each list of facts; its head follows up to `head_seq`."""
        data = MemoryStore(self.store.data)
        await data.put_blob("g", dumps(RAW), kind="graph", at=self.clock.wall())
        seq = len(facts) if head_seq is None else head_seq
        ended = seq == len(facts) and any(isinstance(fact, f.TaskEnded) for part in facts for fact in part)
        said = {"status": "finished", "active": False, "ended_at": self.clock.wall()} if ended else {}
        known = {"partition": 0, "seq": seq, "published_seq": seq, "next_wake": None}
        head = Head(task_id=task_id, graph_ref="g", **{**known, **said, **fields})
        assert await data.insert_heads([head]) == [Outcome.OK]
        for number, part in enumerate(facts, 1):
            await self.commit(task_id, number, part)
        return head

    async def commit(self, task_id: str, seq: int, facts: list[f.Fact]) -> Outcome:
        prev = f"{task_id}.{seq - 1}" if seq > 1 else ""
        commit = Commit(task_id, seq, f"{task_id}.{seq}", prev, self.clock.wall(), "c", body_of(encode_facts(facts)))
        (outcome,) = await MemoryStore(self.store.data).insert_commits([commit])
        if outcome is Outcome.OK:
            self.seqs[task_id] = seq
        return outcome

    async def ended(self, task_id: str, *, artifact: str = "", **fields: Any) -> Head:
        if artifact:
            await MemoryStore(self.store.data).put_blob(artifact, b"data", kind="artifact", for_task=task_id)
        return await self.task(task_id, CREATED, finished(artifact), **fields)

    async def delete(self, task_id: str, tenant: str = "default") -> list[str]:
        return await self.verb(task_id, tenant)

    async def look(self, after: float = LOOK_SEC + 1) -> None:
        """Let a coordinator do what is due, with rests in between."""
        self.clock.advance(after)
        for _ in range(20):
            await self.runtime.retention.step()
            self.clock.advance(0.001)

    async def state(self, task_id: str) -> str:
        """`whole`, as it was, or `gone`, for every reader; never anything else."""
        past = (await self.history.load([task_id])).get(task_id)
        try:
            await self.runtime.api.get(task_id)
        except TaskNotFound:
            assert past is None
            return "gone"
        assert past is not None
        assert past.task is not None, past.error
        assert past.seq == self.seqs[task_id]
        return "whole"

    def left(self) -> dict[str, list[Any]]:
        """What there is in the store, but for graphs."""
        data = self.store.data
        return {
            "heads": sorted(data.heads),
            "commits": sorted(task for task, commits in data.commits.items() if commits),
            "requests": sorted(task for task, requests in data.requests.items() if requests),
            "blobs": sorted(ref for kind, ref in data.blobs if kind != "graph"),
            "claims": sorted(data.claims),
        }


NOTHING: dict[str, list[Any]] = {"heads": [], "commits": [], "requests": [], "blobs": [], "claims": []}
LONG = GRACE_SEC + 2 * LOOK_SEC
