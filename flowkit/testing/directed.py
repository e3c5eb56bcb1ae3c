"""Faults that strike at one certain moment: those that random chaos hits too rarely to notice a missing guard."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flowkit.ports import Commit
from flowkit.testing.machine import Machine

if TYPE_CHECKING:
    from flowkit.testing.world import World


def restart_then_crash(world: World) -> None:
    """The coordinator dies between a restart's commit and its head; Kafka may lose the doorbell too."""
    stage = world.stage

    def acknowledged(machine: Machine, commits: list[Commit]) -> None:
        if stage.storm and any('["restarted"' in commit.body for commit in commits):
            stage.count("D_restart_then_crash")
            stage.later(stage.dice.uniform(0, 0.6), machine.crash, stage.dice.uniform(0.5, 8))
            if stage.dice.random() < 0.5:
                world.broker.lose_all()

    world.on_boot.append(lambda machine, runtime, store: store.hear_acknowledged(acknowledged))


DIRECTED: dict[str, Callable[[World], None]] = {
    "restart_then_crash": restart_then_crash,
}
