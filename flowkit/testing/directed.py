"""Faults that strike at one certain place: those that random chaos hits too rarely to notice a missing guard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from flowkit.core.reports import Succeeded
from flowkit.ports import Commit, Head, Outcome, Record
from flowkit.testing.faults import STORM_SEC
from flowkit.testing.machine import KAFKA, MONGO, Machine
from flowkit.wire.messages import Told, decode_facts_batch
from flowkit.wire.topics import FLEET_PARTITIONS, partition_of

if TYPE_CHECKING:
    from flowkit.testing.store import FaultyStore
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


def result_then_slow(world: World) -> None:
    """As `result_then_stall`; and when they can read on, a commit of the task is out for longer than an expiry."""
    stage, heard = world.stage, world.broker.on_acknowledged
    stage.wanted.add("nudged")

    def slow(until: float) -> None:
        world.replica.slow_until = max(world.replica.slow_until, until)

    def acknowledged(machine: Machine, record: Record) -> None:
        heard(machine, record)
        if record.topic != world.topics.facts or not stage.chance(0.3):
            return
        items = decode_facts_batch(record.value).items
        if any(isinstance(item, Told) and isinstance(item.report, Succeeded) for item in items):
            stage.count("D_result_then_slow")
            until = min(stage.now + 12.0, world.heal_at)
            for coordinator in world.coordinators:
                place = coordinator.name, record.topic, record.partition
                world.broker.stalls[place] = max(until, world.broker.stalls.get(place, 0.0))
            stage.at(until - 0.5, slow, until + 2.5)

    world.broker.on_acknowledged = acknowledged


def restart_then_roll_back(world: World) -> None:
    """A restart's head is slow, is asked for again, and is then rolled back; and everybody who knew of it dies."""
    stage = world.stage

    def all_die() -> None:
        for machine in [*world.coordinators, *world.workers]:
            machine.crash(stage.dice.uniform(0.5, 3))
        world.broker.lose_all()

    def acknowledged(machine: Machine, commits: list[Commit]) -> None:
        if stage.storm and any('["restarted"' in commit.body for commit in commits):
            stage.count("D_restart_then_roll_back")
            rolled_back = stage.dice.uniform(3.2, 4.5)
            _roll_back(world, rolled_back)
            stage.later(rolled_back + stage.dice.uniform(3, 4.5), all_die)

    world.on_boot.append(lambda machine, runtime, store: store.hear_acknowledged(acknowledged))


def accept_then_roll_back(world: World) -> None:
    """A task's head is slow, is sent again, and is then rolled back."""
    stage = world.stage

    def boot(machine: Machine, runtime: Any, store: FaultyStore) -> None:
        insert = store.insert_heads

        async def insert_heads(heads: Sequence[Head]) -> list[Outcome]:
            if stage.chance(0.3):
                stage.count("D_accept_then_roll_back")
                _roll_back(world, stage.dice.uniform(2.7, 4))
            return await insert(heads)

        store.insert_heads = insert_heads  # type: ignore[method-assign]

    world.on_boot.append(boot)


def restart_before_timeout(world: World) -> None:
    """Tasks with a timeout are cancelled and restarted before it has passed."""
    world.stage.wanted.add("timed")


def freeze_before_answer(world: World) -> None:
    """A coordinator stands still from the moment that its lease stands until another has ended it."""
    stage, heard = world.stage, world.replica.on_applied
    by_name = {machine.name: machine for machine in world.coordinators}

    def applied(commit: Commit) -> None:
        heard(commit)
        machine = by_name.get(commit.by.partition("-")[0])
        if machine is not None and '["leased"' in commit.body and stage.chance(0.1):
            stage.count("D_freeze_before_answer")
            machine.freeze(stage.dice.uniform(15, 25))

    world.replica.on_applied = applied


def fleet_stall(world: World) -> None:
    """A coordinator hears nothing of the fleet for longer than a TTL; Kafka acknowledges heartbeats all the same."""

    def strike(number: int) -> None:
        machine = world.stage.dice.choice(world.coordinators)
        _stall_fleet(world, machine, range(FLEET_PARTITIONS))

    _often(world, 3, strike, "fleet_stall")


def fleet_partition_stall(world: World) -> None:
    """No coordinator hears of one worker for longer than a TTL; beacons through another partition come back."""

    def strike(number: int) -> None:
        worker = world.stage.dice.choice(world.workers)
        for machine in world.coordinators:
            _stall_fleet(world, machine, [partition_of(worker.name, FLEET_PARTITIONS)])

    _often(world, 3, strike, "fleet_partition_stall")


def stall_and_death(world: World) -> None:
    """Nobody hears of one worker, while another dies: a beacon through the dead one's partition comes back."""

    world.stage.wanted.add("long")

    def strike(number: int) -> None:
        stage = world.stage
        stalled, dying = stage.dice.sample(world.workers, 2)
        for machine in world.coordinators:
            _stall_fleet(world, machine, [partition_of(stalled.name, FLEET_PARTITIONS)])
        stage.later(stage.dice.uniform(0, 1), dying.crash, stage.dice.uniform(12, 15))

    _often(world, 3, strike, "stall_and_death")


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


def lost_work_then_new_owner(world: World) -> None:
    """Dispatches are lost, and just before their leases expire the partitions change hands."""
    stage = world.stage
    stage.wanted.add("long")
    stage.tilt["lost_work"] = 0.2

    def shuffle() -> None:
        if stage.storm:
            for group in world.broker.groups.values():
                group.shuffle()

    def lost() -> None:
        stage.count("D_lost_work_then_new_owner")
        stage.later(stage.dice.uniform(8, 10), shuffle)

    world.broker.on_lost_work = lost


def lost_stops(world: World) -> None:
    """The first word to a worker that a lease is over gets lost, in any weather."""
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


def _roll_back(world: World, after: float) -> None:
    """Writes are not majority from now on, and are rolled back in so many seconds."""
    replica = world.replica

    def strike() -> None:
        replica.fail_over()
        replica.slow_until = world.stage.now

    replica.slow_until = min(world.stage.now + 8, world.heal_at)
    world.stage.later(after, strike)


def _stall_fleet(world: World, machine: Machine, partitions: range | list[int]) -> None:
    until = min(world.stage.now + world.stage.dice.uniform(11, 18), world.heal_at)
    for partition in partitions:
        world.broker.stalls[machine.name, world.topics.fleet, partition] = until


def continue_then_crash(world: World) -> None:
    """Sub-graphs that fail are asked to go on; the coordinator dies between the parent's commit and the request that
    tells the child, or between that request and the child's commit."""
    stage = world.stage
    stage.wanted.add("continued")

    def acknowledged(machine: Machine, commits: list[Commit]) -> None:
        if stage.storm and any('["child_continued"' in commit.body for commit in commits):
            stage.count("D_continue_then_crash")
            stage.later(stage.dice.choice((0.0, stage.dice.uniform(0, 0.3))), machine.crash, stage.dice.uniform(0.5, 8))

    world.on_boot.append(lambda machine, runtime, store: store.hear_acknowledged(acknowledged))


def late_child_ends(world: World) -> None:
    """Sub-graphs that fail are asked to go on; their parents hear of ends once more long after they have gone on."""
    world.stage.wanted.add("continued")
    world.stage.tilt["late_child_end"] = 0.7


def rich(world: World) -> None:
    """No fault: graphs that use all that a graph can say."""
    world.stage.wanted.add("rich")


DIRECTED: dict[str, Callable[[World], None]] = {
    fault.__name__: fault
    for fault in (
        restart_then_crash,
        result_then_stall,
        result_then_slow,
        restart_then_roll_back,
        restart_before_timeout,
        accept_then_roll_back,
        freeze_before_answer,
        fleet_stall,
        fleet_partition_stall,
        stall_and_death,
        worker_without_kafka,
        worker_without_anything,
        workers_restart,
        late_work,
        lost_work_then_new_owner,
        lost_stops,
        stale_loads,
        late_heads,
        facts_down,
        slow_then_crash,
        slow_then_fail_over,
        lost_doorbells,
        continue_then_crash,
        late_child_ends,
        rich,
    )
}
