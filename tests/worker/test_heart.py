"""Leases are renewed over the bus, or in the store; what was not renewed in time is ended (rules 5 to 7)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from flowkit.core.reports import Declined, Succeeded
from flowkit.telemetry import AttemptKilled
from flowkit.wire.topics import FLEET_PARTITIONS, MAX_MESSAGE_BYTES, partition_of
from flowkit.worker.registry import Registry
from tests.worker.stand import WORKER, Stand, virtual

TTL = 10.0
LIMIT = 0.8 * TTL


class Endless:
    def __init__(self) -> None:
        self.began: list[float] = []
        self.ended: list[float] = []

    async def run(self) -> None:
        self.began.append(asyncio.get_running_loop().time())
        try:
            await asyncio.sleep(100_000)
        finally:
            self.ended.append(asyncio.get_running_loop().time())


def now() -> float:
    return asyncio.get_running_loop().time()


@virtual
async def test_a_heartbeat_says_who_lives_and_what_it_holds() -> None:
    endless = Endless()
    gauge = {"gauge": lambda: (0.5, 123.0)}
    async with Stand({"endless": endless.run}, labels={"zone": "a"}, slots=1, options=gauge) as stand:
        running, queued = stand.job("endless"), stand.job("endless")
        await stand.send(running, queued)
        await asyncio.sleep(4.5)
        await stand.read()

        beat = stand.beats[-1]
        assert (beat.worker, beat.incarnation) == (WORKER, stand.runtime.incarnation)
        assert (beat.roles, beat.slots, beat.labels) == (["endless"], 1, {"zone": "a"})
        assert (beat.cpu, beat.memory_mb, beat.draining, beat.whole) == (0.5, 123.0, False, True)
        assert {held.token for held in beat.held} == {running.token, queued.token}
        assert beat.held[0].partition == running.partition
        assert len(stand.beats) == 3
        record = next(r for r in stand.bus.published if r.topic == stand.topics.fleet)
        assert (record.partition, record.key) == (partition_of(WORKER, FLEET_PARTITIONS), WORKER.encode())


@virtual
async def test_its_clock_is_read_before_it_is_sent() -> None:
    async with Stand({"endless": Endless().run}) as stand:
        publish = stand.bus.publish

        async def slow(records: Any) -> list[bool]:
            await asyncio.sleep(1)
            return await publish(records)

        stand.bus.publish = slow  # type: ignore[method-assign]
        job = stand.job("endless")
        await stand.send(job)
        await asyncio.sleep(1)
        sent = stand.clock.mono()
        await stand.runtime._pulse.heart.beat()  # type: ignore[attr-defined]
        assert stand.runtime._slots.held[job.token].renewed == sent


@virtual
async def test_a_long_list_is_split_and_every_part_named() -> None:
    async with Stand({"endless": Endless().run}, slots=600) as stand:
        jobs = [stand.job("endless", task_id=f"{n:0100}") for n in range(600)]
        for start in range(0, 600, 100):
            await stand.send(*jobs[start : start + 100])
        await asyncio.sleep(3)
        await stand.read()

        assert stand.named() == {job.token for job in jobs}
        parts = [beat for beat in stand.beats if beat.mono == stand.beats[-1].mono]
        assert len(parts) > 1
        assert not any(part.whole for part in parts), "what one does not name another may"
        fleet = [record for record in stand.bus.published if record.topic == stand.topics.fleet]
        assert max(len(record.value or b"") for record in fleet) <= MAX_MESSAGE_BYTES


@virtual
async def test_without_an_acknowledgement_it_renews_in_the_store_and_counts_up() -> None:
    endless = Endless()
    async with Stand({"endless": endless.run}) as stand:
        job = stand.job("endless")
        await stand.send(job)
        await asyncio.sleep(1)
        stand.bus.deaf.add(stand.topics.fleet)
        await asyncio.sleep(60)

        counts = [renewal.count for renewal in stand.store.renewals]
        assert counts == list(range(1, len(counts) + 1))
        assert len(counts) >= 29
        assert all(renewal.tokens == (job.token,) for renewal in stand.store.renewals)
        assert {renewal.incarnation for renewal in stand.store.renewals} == {stand.runtime.incarnation}
        assert endless.ended == []


@virtual
async def test_a_bus_that_hangs_delays_no_renewal() -> None:
    endless = Endless()
    async with Stand({"endless": endless.run}) as stand:
        await stand.send(stand.job("endless"))
        await asyncio.sleep(1)
        stand.bus.stuck.add(stand.topics.fleet)
        await asyncio.sleep(120)
        assert endless.ended == []
        assert len(stand.store.renewals) > 30


@virtual
async def test_while_the_bus_answers_nothing_goes_to_the_store() -> None:
    async with Stand({"endless": Endless().run}) as stand:
        await stand.send(stand.job("endless"))
        await asyncio.sleep(60)
        assert stand.store.renewals == []


@virtual
async def test_what_can_be_renewed_neither_way_is_killed_before_its_lease_ends() -> None:
    endless = Endless()
    async with Stand({"endless": endless.run}) as stand:
        job = stand.job("endless")
        await stand.send(job)
        await asyncio.sleep(20)
        await stand.read()
        renewed = stand.beats[-1].mono - stand.clock.ahead
        stand.bus.deaf |= {stand.topics.fleet, stand.topics.facts}
        stand.store.away = True
        await asyncio.sleep(20)

        assert len(endless.ended) == 1
        assert LIMIT < endless.ended[0] - renewed < LIMIT + 1.0
        assert AttemptKilled(WORKER, job.token, "no_renewal") in stand.happenings
        assert stand.runtime._slots.held == {}
        stand.bus.deaf.clear()
        await asyncio.sleep(10)
        await stand.read()
        assert stand.results(job) == [], "nothing is said of it"


@virtual
async def test_a_new_token_is_defended_from_the_moment_of_its_lease() -> None:
    endless = Endless()
    async with Stand({"endless": endless.run}) as stand:
        stand.bus.deaf |= {stand.topics.fleet, stand.topics.facts}
        stand.store.away = True
        began = now()
        # Leased four seconds ago, it took as long to come here.
        await stand.send(stand.job("endless", accept_by=stand.clock.mono() + 1.0))
        await asyncio.sleep(20)
        assert LIMIT - 4.0 < endless.ended[0] - began < LIMIT - 4.0 + 1.0


@pytest.mark.parametrize("ahead", [1000.0, 3.0])
@virtual
async def test_a_far_accept_deadline_makes_no_lease_younger_than_its_message(ahead: float) -> None:
    endless = Endless()
    async with Stand({"endless": endless.run}) as stand:
        stand.bus.deaf |= {stand.topics.fleet, stand.topics.facts}
        stand.store.away = True
        began = now()
        await stand.send(stand.job("endless", accept_by=stand.clock.mono() + ahead))
        await asyncio.sleep(20)
        assert endless.ended[0] - began < LIMIT + 1.0


@virtual
async def test_what_is_queued_is_dropped_without_a_word() -> None:
    endless = Endless()
    async with Stand({"endless": endless.run}, slots=1) as stand:
        queued = stand.job("endless", accept_by=stand.clock.mono() + 100)
        await stand.send(stand.job("endless"), queued)
        stand.bus.deaf |= {stand.topics.fleet, stand.topics.facts}
        stand.store.away = True
        await asyncio.sleep(20)
        assert stand.runtime._slots.load == 0
        stand.bus.deaf.clear()
        await asyncio.sleep(10)
        await stand.read()
        assert stand.told == []
        assert len(endless.ended) == 1


@virtual
async def test_after_a_freeze_a_heartbeat_does_not_revive_what_was_lost() -> None:
    endless = Endless()
    async with Stand({"endless": endless.run}) as stand:
        job = stand.job("endless")
        await stand.send(job)
        await asyncio.sleep(5)
        stand.clock.ahead += 30.0  # SIGSTOP, as the worker's clock shows it afterwards
        await asyncio.sleep(2.5)
        assert len(endless.ended) == 1
        await stand.read()
        assert job.token not in stand.named()


@virtual
async def test_a_worker_frozen_between_taking_a_job_and_beginning_it_does_not_begin_it() -> None:
    endless = Endless()
    async with Stand({"endless": endless.run}) as stand:
        job = stand.job("endless")
        stand.runtime._slots.receive([job])
        stand.clock.ahead += 8.5  # the task of the attempt is made, and has not had its turn
        await asyncio.sleep(1)
        assert endless.began == []
        assert job.token not in stand.runtime._slots.held
        assert stand.runtime.active == []
        await stand.read()
        assert stand.results(job) == [], "it is another's business now"


@virtual
async def test_a_plain_handler_whose_thread_begins_after_a_freeze_does_not_begin() -> None:
    began: list[str] = []
    freeze_sec = [0.0]

    async def in_thread(function: Callable[[], Any]) -> Any:
        await asyncio.sleep(0.01)  # the thread begins, and there the process stands still
        stand.clock.ahead += freeze_sec[0]
        return function()

    def plain(ctx: Any) -> str:
        began.append(ctx.task_id)
        return "done"

    async with Stand([plain], options={"run_sync": in_thread}) as stand:
        assert isinstance(await stand.run("plain"), Succeeded)
        freeze_sec[0] = LIMIT + 0.5
        job = stand.job("plain")
        await stand.send(job)
        await asyncio.sleep(1)
        await stand.read()

        assert len(began) == 1
        assert job.token not in stand.runtime._slots.held
        assert stand.runtime.active == []
        assert stand.results(job) == [], "it is another's business now"
        freeze_sec[0] = 0.0
        assert isinstance(await stand.run("plain"), Succeeded), "its slot is free"


@virtual
async def test_a_program_that_is_ready_after_a_freeze_does_not_begin() -> None:
    class Slow:
        """Programs that take their time to be ready: packages, secrets."""

        labels: ClassVar[dict[str, str]] = {}

        def __init__(self) -> None:
            self.began: list[str] = []
            self.freeze_sec = 0.0

        async def run(self, attempt: Any, inputs: Any, code: Any, context: Any, undertaker: Any, emit: Any,
                      begin: Callable[[], None]) -> str:  # fmt: skip
            await asyncio.sleep(0.1)
            stand.clock.ahead += self.freeze_sec
            begin()
            self.began.append(attempt.job.task_id)
            return "ran"

        async def close(self) -> None: ...

    programs = Slow()
    registry = Registry([])
    registry.serve_code()
    async with Stand([], options={"programs": programs, "registry": registry}) as stand:
        assert isinstance(await stand.run("code", code={"runtime": "python"}), Succeeded)
        programs.freeze_sec = LIMIT + 0.5
        job = stand.job("code", code={"runtime": "python"})
        await stand.send(job)
        await asyncio.sleep(1)
        await stand.read()

        assert len(programs.began) == 1
        assert job.token not in stand.runtime._slots.held
        assert stand.results(job) == []


@virtual
async def test_a_renewal_in_the_store_after_a_freeze_does_not_revive_what_was_lost() -> None:
    async with Stand({"endless": Endless().run}) as stand:
        job = stand.job("endless")
        await stand.send(job)
        await asyncio.sleep(5)
        attempt = stand.runtime._slots.held[job.token]

        async def freeze(records: Any) -> list[bool]:
            stand.clock.ahead += 30.0  # while the bus was asked
            return [False] * len(records)

        stand.bus.publish = freeze  # type: ignore[method-assign]
        heart: Any = stand.runtime._pulse
        await heart.heart.beat()

        assert attempt.lost
        assert attempt.renewed < stand.clock.mono() - 30.0
        assert [renewal.tokens for renewal in stand.store.renewals] == [()]


@virtual
async def test_a_result_that_waits_is_sent_however_long_it_takes() -> None:
    async def quick() -> str:
        return "done"

    async with Stand([quick]) as stand:
        stand.bus.deaf |= {stand.topics.fleet, stand.topics.facts}
        stand.store.away = True
        job = stand.job("quick")
        await stand.send(job)
        await asyncio.sleep(60)
        stand.bus.deaf.clear()
        assert isinstance(await stand.result(job), Succeeded)


@virtual
async def test_a_lost_attempt_that_ends_well_is_not_reported() -> None:
    async def stubborn() -> str:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            return "all the same"
        return ""

    async with Stand([stubborn]) as stand:
        stand.bus.deaf |= {stand.topics.fleet}
        stand.store.away = True
        job = stand.job("stubborn")
        await stand.send(job)
        await asyncio.sleep(20)
        await stand.read()
        assert stand.results(job) == []
        assert stand.runtime._slots.load == 0


@virtual
async def test_a_worker_that_lost_an_attempt_takes_others() -> None:
    endless = Endless()

    async def quick() -> str:
        return "done"

    async with Stand({"endless": endless.run, "quick": quick}, slots=1) as stand:
        stand.bus.deaf |= {stand.topics.fleet}
        stand.store.away = True
        await stand.send(stand.job("endless"))
        await asyncio.sleep(20)
        assert not isinstance(await stand.run("quick"), Declined)


@virtual
async def test_a_worker_that_nobody_could_rob_does_not_defend_itself() -> None:
    endless = Endless()
    async with Stand({"endless": endless.run}, options={"alone": True}) as stand:
        await stand.send(stand.job("endless"))
        await asyncio.sleep(5)
        stand.clock.ahead += 30.0  # its loop was blocked, and that of its coordinator with it
        await asyncio.sleep(5)
        assert endless.ended == []


@virtual
async def test_a_heartbeat_itself_looks_first_whether_the_lease_may_be_lost() -> None:
    endless = Endless()
    async with Stand({"endless": endless.run}) as stand:
        job = stand.job("endless")
        await stand.send(job)
        await asyncio.sleep(5)
        attempt = stand.runtime._slots.held[job.token]
        stand.clock.ahead += 30.0
        heart: Any = stand.runtime._pulse
        await heart.heart._beat()
        assert attempt.lost
        assert attempt.renewed < stand.clock.mono() - 30.0
        await stand.read()
        assert job.token not in stand.named()


@virtual
async def test_what_was_lost_and_unwinds_is_named_no_more() -> None:
    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1000)

    async with Stand([slow_to_end]) as stand:
        job = stand.job("slow_to_end")
        await stand.send(job)
        await asyncio.sleep(5)
        stand.clock.ahead += 30.0
        await asyncio.sleep(0.6)
        assert job.token in stand.runtime._slots.held
        heart: Any = stand.runtime._pulse
        await heart.heart.beat()
        await stand.read()
        assert stand.named() == set()
        assert not stand.beats[-1].whole, "it still runs: nobody may take it for lost on its way"


@virtual
async def test_the_slot_of_what_was_lost_before_it_began_goes_to_the_next() -> None:
    ran: list[str] = []

    async def notes(ctx: Any) -> None:
        ran.append(ctx.task_id)

    async with Stand([notes], slots=1) as stand:
        first, second = stand.job("notes"), stand.job("notes")
        slots = stand.runtime._slots
        slots.receive([first, second])
        slots.lose(slots.held[first.token])
        await asyncio.sleep(0.1)
        assert ran == [second.task_id]
