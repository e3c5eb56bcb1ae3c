"""What the coordinator reads: one record never costs another, and offsets follow what is settled."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from flowkit.coordinator.intake import Intake
from flowkit.ports import Record
from flowkit.telemetry import Telemetry
from flowkit.wire.messages import Knock, encode_facts_batch
from flowkit.wire.topics import Topics


class Engine:
    """Knows no task by the name of `spoilt`, and says so loudly."""

    coordinator_id = "c"
    gate = SimpleNamespace(again_soon=lambda: None)

    def __init__(self) -> None:
        self.fed: list[Any] = []

    def get(self, task_id: str, partition: int) -> str:
        if task_id == "spoilt":
            raise RuntimeError("nobody expected this")
        return task_id

    def feed(self, cell: str, item: Any) -> None:
        self.fed.append(cell)
        item.receipt.settle()

    def pump_dirty(self) -> None: ...


class Member:
    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.committed: dict[int, int] = {}

    async def fetch(self, timeout: float) -> list[Record]:
        found, self.records = self.records, []
        return found

    async def commit(self, offsets: dict[int, int]) -> bool:
        self.committed |= offsets
        return True


class Stand:
    """An intake that owns partition 0, and what it talks to."""

    def __init__(self) -> None:
        self.engine: Any = Engine()
        self.dead: list[tuple[int, str]] = []
        self.member: Any = None
        publisher: Any = SimpleNamespace(room=True, dead=lambda record, why: self.dead.append((record.offset, why)))
        nobody: Any = SimpleNamespace(workers={})
        takeover: Any = SimpleNamespace(begin=lambda partitions: None)
        bus: Any = SimpleNamespace(join=self._join)
        self.intake = Intake(
            bus=bus, topics=Topics(), group="g", engine=self.engine, fleet=nobody, publisher=publisher,
            requests=nobody, takeover=takeover, limits=nobody, telemetry=Telemetry(),
        )  # fmt: skip

    async def _join(self, topic: str, group: str, *, on_revoked: Any, on_assigned: Any) -> Any:
        await on_assigned(frozenset({0}))
        return self.member

    async def read(self, *batches: list[str]) -> None:
        """Read one record for each list of task ids."""
        self.member = Member([self._record(offset, batch) for offset, batch in enumerate(batches)])
        await self.intake.start()
        await self.intake.step()
        await self.intake.commit_offsets()

    def _record(self, offset: int, tasks: list[str]) -> Record:
        value = encode_facts_batch("api", "", -1, [Knock(task, "default", "new") for task in tasks])
        return Record(Topics().facts, 0, value, b"k", (), offset)


async def test_a_record_that_provokes_a_fault_is_put_aside_and_the_next_ones_are_read() -> None:
    stand = Stand()
    await stand.read(["a"], ["b", "spoilt", "c"], ["d"])
    assert stand.engine.fed == ["a", "b", "d"]
    assert stand.dead == [(1, "RuntimeError: nobody expected this")]
    assert stand.member.committed == {0: 3}, "it holds no offset up"


async def test_good_records_are_handed_over_in_order() -> None:
    stand = Stand()
    await stand.read(["a", "b"], ["c"])
    assert stand.engine.fed == ["a", "b", "c"]
    assert stand.member.committed == {0: 2}
