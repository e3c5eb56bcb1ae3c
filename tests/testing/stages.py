"""A stage with a few machines on it, and a way to play on it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from flowkit.ports import Commit, TopicSpec
from flowkit.testing.bus import Broker, FaultyBus
from flowkit.testing.machine import Machine
from flowkit.testing.replica import ReplicaSet
from flowkit.testing.stage import Stage
from flowkit.testing.store import FaultyStore

TOPICS = {"facts": TopicSpec(2), "fleet": TopicSpec(1), "events": TopicSpec(1)}


class Set:
    """`mode` calm unless a test wants a storm. Everything of `play` happens in the process of the world."""

    def __init__(self, seed: int = 1, mode: str = "calm", without: frozenset[str] = frozenset()) -> None:
        self.stage = Stage(seed, mode, without=without, trace=True)
        self.replica = ReplicaSet(self.stage)
        self.broker = Broker(self.stage)
        self.broker.ensure(TOPICS)
        self.machines: dict[str, Machine] = {}

    def machine(
        self, name: str, kind: str = "worker", boot: Callable[[Machine], None] = lambda machine: None
    ) -> Machine:
        machine = self.machines[name] = Machine(self.stage, name, kind, boot)
        machine.buried.append(self.broker.bury)
        machine.start()
        return machine

    def store(self, machine: Machine) -> FaultyStore:
        return FaultyStore(self.stage, self.replica, machine)

    def bus(self, machine: Machine) -> FaultyBus:
        return FaultyBus(self.stage, self.broker, machine)

    def play(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        try:
            return self.stage.loop.run_until_complete(work())
        finally:
            self.stage.loop.close()


def commit(seq: int, id: str = "", task_id: str = "t") -> Commit:
    return Commit(task_id, seq, id or f"c{seq}", f"c{seq - 1}", 0.0, "C0", "[]")
