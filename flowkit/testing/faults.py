"""What befalls a simulated cluster, drawn from its seed: crashes, freezes, outages, losses, fail-overs, cut links."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flowkit.testing.machine import KAFKA, MONGO, Machine

if TYPE_CHECKING:
    from flowkit.testing.world import World

Strike = Callable[[], None]
Kind = Callable[["World"], Strike]

STORM_SEC = 45.0
QUIET_SEC = 60.0
TTL_SEC = 10.0


def heal_at(mode: str) -> float:
    """When all faults of a world of this mode are over."""
    return {"chaos": STORM_SEC, "calm": 0.0}.get(mode, QUIET_SEC)


def plan_faults(world: World) -> None:
    """Set the timers of everything that will go wrong."""
    dice = world.stage.plan
    match world.stage.mode:
        case "chaos":
            for _ in range(dice.randint(5, 10)):
                _plan_one(world, dice.uniform(2, 42))
        case "outage":
            at = dice.uniform(5, 20)
            _later(world, at, "kafka_down", lambda: _kafka_down(world, world.stage.now + 3 * TTL_SEC))
        case "ccrash":
            for _ in range(2):
                _later(world, dice.uniform(4, 40), "crash_coordinator", crash_coordinator(world))


def _plan_one(world: World, at: float) -> None:
    shares = [share for share, _, _ in CHAOS]
    [(_, name, kind)] = world.stage.plan.choices(CHAOS, shares)
    _later(world, at, name, kind(world))
    if name == "mongo_slow" and world.stage.plan.random() < 0.4:
        _later(world, at + world.stage.plan.uniform(0.1, 6), "fail_over", fail_over(world))


def _later(world: World, at: float, name: str, strike: Strike) -> None:
    def fire() -> None:
        if world.stage.now < world.heal_at:
            world.stage.count(f"F_{name}")
            world.stage.note("FAULT", name)
            strike()

    world.stage.at(at, fire)


# Every kind draws its parameters when it is planned and gives what will strike.


def crash_coordinator(world: World) -> Strike:
    machine, back = world.stage.plan.choice(world.coordinators), world.stage.plan.uniform(0.5, 15)
    return lambda: machine.crash(back)


def _crash_worker(world: World) -> Strike:
    machine, back = world.stage.plan.choice(world.workers), world.stage.plan.uniform(0.5, 12)
    return lambda: machine.crash(back)


def _freeze_coordinator(world: World) -> Strike:
    machine, seconds = world.stage.plan.choice(world.coordinators), world.stage.plan.uniform(4, 16)
    return lambda: machine.freeze(seconds)


def _freeze_worker(world: World) -> Strike:
    machine, seconds = world.stage.plan.choice(world.workers), world.stage.plan.uniform(4, 16)
    return lambda: machine.freeze(seconds)


def _kafka_down(world: World, until: float) -> None:
    world.broker.down_until = max(world.broker.down_until, min(until, world.heal_at))


def _kafka_outage(world: World) -> Strike:
    seconds = world.stage.plan.uniform(1, 20)
    return lambda: _kafka_down(world, world.stage.now + seconds)


def _kafka_loses_all(world: World) -> Strike:
    return world.broker.lose_all


def fail_over(world: World) -> Strike:
    return world.replica.fail_over


def _mongo_slow(world: World) -> Strike:
    seconds = world.stage.plan.uniform(1, 8)

    def strike() -> None:
        world.replica.slow_until = min(world.stage.now + seconds, world.heal_at)

    return strike


def _mongo_frozen(world: World) -> Strike:
    seconds = world.stage.plan.uniform(1, 6)

    def strike() -> None:
        world.replica.down_until = max(world.replica.down_until, min(world.stage.now + seconds, world.heal_at))

    return strike


def _cut(world: World, machine: Machine, seconds: float, *links: str) -> Strike:
    one_way = world.stage.plan.random() < 0.3

    def strike() -> None:
        world.stage.note("CUT", machine.name, *links, "one way" if one_way else "")
        for link in links:
            machine.cut(link, min(world.stage.now + seconds, world.heal_at), one_way=one_way)

    return strike


def _any(world: World) -> Machine:
    return world.stage.plan.choice(world.machines)


def _cut_kafka(world: World) -> Strike:
    return _cut(world, _any(world), world.stage.plan.uniform(2, 16), KAFKA)


def _cut_mongo(world: World) -> Strike:
    return _cut(world, _any(world), world.stage.plan.uniform(2, 16), MONGO)


def _cut_both(world: World) -> Strike:
    return _cut(world, _any(world), world.stage.plan.uniform(4, 20), KAFKA, MONGO)


def _stall(world: World, topic: str) -> Strike:
    machine, seconds = world.stage.plan.choice(world.coordinators), world.stage.plan.uniform(8, 20)
    place = world.stage.plan.random()

    def strike() -> None:
        partitions = world.broker.topics.get(topic, [])
        stalled = range(len(partitions)) if topic == world.topics.facts else [int(place * len(partitions))]
        for partition in stalled:
            world.broker.stalls[machine.name, topic, partition] = min(world.stage.now + seconds, world.heal_at)

    return strike


def _facts_stall(world: World) -> Strike:
    return _stall(world, world.topics.facts)


def _fleet_stall(world: World) -> Strike:
    return _stall(world, world.topics.fleet)


def _facts_down(world: World) -> Strike:
    seconds = world.stage.plan.uniform(8, 20)

    def strike() -> None:
        world.broker.topic_down[world.topics.facts] = min(world.stage.now + seconds, world.heal_at)

    return strike


CHAOS: tuple[tuple[float, str, Kind], ...] = (
    (0.14, "crash_coordinator", crash_coordinator),
    (0.12, "freeze_coordinator", _freeze_coordinator),
    (0.12, "crash_worker", _crash_worker),
    (0.10, "freeze_worker", _freeze_worker),
    (0.09, "kafka_down", _kafka_outage),
    (0.03, "kafka_loses_all", _kafka_loses_all),
    (0.10, "fail_over", fail_over),
    (0.08, "mongo_slow", _mongo_slow),
    (0.02, "mongo_frozen", _mongo_frozen),
    (0.07, "cut_kafka", _cut_kafka),
    (0.04, "cut_mongo", _cut_mongo),
    (0.04, "cut_both", _cut_both),
    (0.015, "facts_stall", _facts_stall),
    (0.015, "facts_down", _facts_down),
    (0.02, "fleet_stall", _fleet_stall),
)

# Everything that is done to a world, by the name under which it is counted: what was planned, what befalls single
# messages, writes and reads, and what strikes a coordinator where it hurts most.
INJECTED: tuple[str, ...] = (
    *(f"F_{name}" for _, name, _ in CHAOS),
    "bug_freeze_before_insert",
    "bug_crash_after_commit",
    "kafka_lost",
    "kafka_doubled",
    "kafka_late",
    "kafka_ack_lost",
    "mongo_lost",
    "mongo_late",
    "mongo_ack_lost",
    "stale_read",
)
