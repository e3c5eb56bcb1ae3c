"""Faults that strike at one certain place: those that random chaos hits too rarely to notice a missing guard."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flowkit.core.reports import Succeeded
from flowkit.ports import Commit, Record
from flowkit.testing.faults import STORM_SEC
from flowkit.testing.machine import KAFKA, MONGO, Machine
from flowkit.wire.messages import Told, decode_facts_batch
from flowkit.wire.topics import FLEET_PARTITIONS, partition_of

if TYPE_CHECKING:
    from flowkit.testing.world import World

Strike = Callable[[], None]


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


def result_then_stall(world: World) -> None:
    """Just after a result was written to Kafka, no coordinator can read on for longer than a TTL."""
    stage, heard = world.stage, world.broker.on_acknowledged

    def acknowledged(machine: Machine, record: Record) -> None:
        heard(machine, record)
        if record.topic != world.topics.facts or not stage.chance(0.15):
            return
        items = decode_facts_batch(record.value).items
        if any(isinstance(item, Told) and isinstance(item.report, Succeeded) for item in items):
            stage.count("D_result_then_stall")
            until = min(stage.now + stage.dice.uniform(11, 16), world.heal_at)
            for coordinator in world.coordinators:
                world.broker.stalls[coordinator.name, record.topic, record.partition] = until

    world.broker.on_acknowledged = acknowledged


def fleet_stall(world: World) -> None:
    """A coordinator hears nothing of the fleet for longer than a TTL; Kafka acknowledges heartbeats all the same."""

    def strike(number: int) -> None:
        machine = world.stage.dice.choice(world.coordinators)
        _stall_fleet(world, machine, range(FLEET_PARTITIONS))

    _often(world, 3, strike, "fleet_stall")


def fleet_partition_stall(world: World) -> None:
    """The same for the partition of one worker: beacons through another one come back."""

    def strike(number: int) -> None:
        worker = world.stage.dice.choice(world.workers)
        for machine in world.coordinators:
            _stall_fleet(world, machine, [partition_of(worker.name, FLEET_PARTITIONS)])

    _often(world, 3, strike, "fleet_partition_stall")


def worker_without_kafka(world: World) -> None:
    """A worker reaches only MongoDB for longer than a TTL; meanwhile the tasks may change their owner."""

    def strike(number: int) -> None:
        stage = world.stage
        worker, coordinator = stage.dice.choice(world.workers), stage.dice.choice(world.coordinators)
        worker.cut(KAFKA, min(stage.now + stage.dice.uniform(11, 18), world.heal_at), one_way=False)
        if stage.dice.random() < 0.5:
            stage.later(stage.dice.uniform(1, 8), coordinator.crash, stage.dice.uniform(0.5, 3))

    _often(world, 3, strike, "worker_without_kafka")


def worker_without_anything(world: World) -> None:
    """A worker reaches neither Kafka nor MongoDB for two TTLs, and its nodes run on."""

    def strike(number: int) -> None:
        worker = world.stage.dice.choice(world.workers)
        until = min(world.stage.now + world.stage.dice.uniform(14, 24), world.heal_at)
        worker.cut(KAFKA, until, one_way=False)
        worker.cut(MONGO, until, one_way=False)

    _often(world, 3, strike, "worker_without_anything")


def workers_restart(world: World) -> None:
    """Workers die and are back at once, with other clocks: what was sent to them before is not for them."""

    def strike(number: int) -> None:
        stage = world.stage
        stage.dice.choice(world.workers).crash(stage.dice.uniform(0.05, 0.5))

    _often(world, 6, strike, "workers_restart")


def late_work(world: World) -> None:
    """Dispatches arrive after their accept deadline, though Kafka acknowledged them."""
    world.stage.tilt["late_work"] = 0.15


def lost_stops(world: World) -> None:
    """Workers are not told that a lease is over when they are told first, in any weather."""
    world.stage.tilt["lost_stop"] = 1.0


def stale_loads(world: World) -> None:
    """Coordinators load yesterday's state."""
    world.stage.tilt["stale_read"] = 0.4


def late_heads(world: World) -> None:
    """Heads are written seconds after their writer gave up."""
    world.stage.tilt["late_head"] = 0.25


def facts_down(world: World) -> None:
    """Kafka does not take results for longer than a TTL, and takes everything else."""

    def strike(number: int) -> None:
        until = min(world.stage.now + world.stage.dice.uniform(11, 16), world.heal_at)
        world.broker.topic_down[world.topics.facts] = until

    _often(world, 2, strike, "facts_down")


def slow_then_crash(world: World) -> None:
    """Commits take seconds, and meanwhile the coordinator dies."""

    def strike(number: int) -> None:
        stage = world.stage
        world.replica.slow_until = min(stage.now + stage.dice.uniform(3, 6), world.heal_at)
        machine = stage.dice.choice(world.coordinators)
        stage.later(stage.dice.uniform(1, 2.4), machine.crash, stage.dice.uniform(0.5, 3))

    _often(world, 4, strike, "slow_then_crash")


def slow_then_fail_over(world: World) -> None:
    """Writes are not majority for seconds, and then they are rolled back."""

    def strike(number: int) -> None:
        stage = world.stage
        world.replica.slow_until = min(stage.now + stage.dice.uniform(3, 6), world.heal_at)
        stage.later(stage.dice.uniform(0.3, 5.9), world.replica.fail_over)

    _often(world, 5, strike, "slow_then_fail_over")


def lost_doorbells(world: World) -> None:
    """Kafka loses everything again and again: whatever it announced must be found without it."""
    _often(world, 6, lambda number: world.broker.lose_all(), "lost_doorbells")


def _often(world: World, times: int, strike: Callable[[int], None], name: str) -> None:
    def fire(number: int) -> None:
        if world.stage.storm:
            world.stage.count(f"D_{name}")
            world.stage.note("DIRECTED", name)
            strike(number)

    for number in range(times):
        world.stage.at(world.stage.dice.uniform(2, STORM_SEC - 3), fire, number)


def _stall_fleet(world: World, machine: Machine, partitions: range | list[int]) -> None:
    until = min(world.stage.now + world.stage.dice.uniform(11, 18), world.heal_at)
    for partition in partitions:
        world.broker.stalls[machine.name, world.topics.fleet, partition] = until


DIRECTED: dict[str, Callable[[World], None]] = {
    fault.__name__: fault
    for fault in (
        restart_then_crash,
        result_then_stall,
        fleet_stall,
        fleet_partition_stall,
        worker_without_kafka,
        worker_without_anything,
        workers_restart,
        late_work,
        lost_stops,
        stale_loads,
        late_heads,
        facts_down,
        slow_then_crash,
        slow_then_fail_over,
        lost_doorbells,
    )
}
