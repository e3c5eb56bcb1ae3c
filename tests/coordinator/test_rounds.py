"""Tasks with much to be decided are decided in a moment and piece by piece, and the others at once."""

from __future__ import annotations

import asyncio
from typing import Any

from flowkit.adapters.memory_bus import MemoryBus
from flowkit.adapters.memory_store import MemoryStore
from flowkit.clock import ManualClock
from flowkit.config import CoordinatorConfig
from flowkit.coordinator.cell import Cell, Item
from flowkit.coordinator.history import Past
from flowkit.coordinator.rounds import MUCH
from flowkit.coordinator.runtime import CoordinatorRuntime
from flowkit.core import facts as f
from flowkit.core.payload import Payload
from flowkit.core.reports import Succeeded
from flowkit.ports import Head, Outcome
from flowkit.wire.messages import Hello
from tests.core.builders import graph, new_task, node

MANY = 4 * MUCH


class Two:
    """A wide task and a chain, whose first nodes a worker has."""

    def __init__(self) -> None:
        self.runtime = CoordinatorRuntime(
            store=MemoryStore(), bus=MemoryBus(), clock=ManualClock(), cfg=CoordinatorConfig()
        )
        self.engine = self.runtime.engine
        self.engine.owned.add(5)
        self.worker = self.runtime.fleet.heard(Hello("w", "i", ["work"], 1000, 0.0))
        self.wide = self._begun(
            "wide", *(node(f"n{i}") for i in range(MANY)), node("sum", *(f"n{i}" for i in range(MANY)))
        )
        self.chain = self._begun("chain", node("a"), node("b", "a"))

    def _begun(self, task_id: str, *nodes: dict[str, Any]) -> Cell:
        cell = self.engine.get(task_id, 5)
        self.engine.loaded(cell, Past(Head(task_id, 5, "ref"), new_task(graph(*nodes))))
        self.engine.round()
        assert cell.flight is not None
        self.engine.outcome(cell.flight, Outcome.OK)
        self.engine.round()
        return cell

    def succeed(self, cell: Cell, *names: str) -> None:
        assert cell.task is not None
        for name in names:
            lease = cell.task.runs[name].lease
            self.engine.feed(cell, Item(Succeeded(name, 1, lease.token if lease else "?", Payload(1), None, 0.1)))


def names_of(cell: Cell, kind: type) -> list[str]:
    assert cell.flight is not None
    return [fact.node for fact in cell.flight.facts if isinstance(fact, kind)]


ALL = [f"n{i}" for i in range(MANY)]


async def test_a_task_with_many_reports_lets_the_others_go_first() -> None:
    two = Two()
    two.succeed(two.wide, *ALL)
    two.succeed(two.chain, "a")

    two.engine.pump_dirty()
    assert names_of(two.chain, f.AttemptLeased) == ["b"]
    assert two.wide.flight is None

    await two.engine.rounds.step()
    assert names_of(two.wide, f.AttemptSucceeded) == ALL
    assert names_of(two.wide, f.AttemptLeased) == ["sum"]


async def test_others_are_decided_about_between_two_pieces() -> None:
    two = Two()
    two.succeed(two.wide, *ALL)
    two.engine.pump_dirty()

    deciding = asyncio.create_task(two.engine.rounds.step())
    while two.wide.flight is None:
        await asyncio.sleep(0)
    heard = len(two.wide.flight.items)
    two.succeed(two.chain, "a")
    two.engine.pump_dirty()

    assert 0 < heard < MANY
    assert names_of(two.chain, f.AttemptLeased) == ["b"]
    await deciding
    assert names_of(two.wide, f.AttemptSucceeded) == ALL
    assert len(two.wide.flight.items) == MANY


async def test_what_was_heard_of_a_task_that_is_loaded_again_meanwhile_is_heard_again() -> None:
    two = Two()
    two.succeed(two.wide, *ALL)
    two.engine.pump_dirty()

    deciding = asyncio.create_task(two.engine.rounds.step())
    while two.wide.flight is None:
        await asyncio.sleep(0)
    anew = two.engine.reload(two.wide, "missing", 60.0)
    await deciding

    assert [item.report.node for item in anew.queue] == ALL
    assert two.worker.mine == 1  # the chain's


async def test_a_report_that_provokes_an_error_in_a_later_piece_spoils_no_other(monkeypatch: Any) -> None:
    two = Two()
    bad = object()
    two.succeed(two.wide, *ALL[:-1])
    two.engine.feed(two.wide, Item(bad))
    two.succeed(two.wide, ALL[-1])
    two.engine.pump_dirty()

    await two.engine.rounds.step()

    anew = two.engine.cells["wide"]
    assert anew is not two.wide
    assert anew.cautious
    assert [getattr(item.report, "node", bad) for item in anew.queue] == [*ALL[:-1], bad, ALL[-1]]
