"""Reports go out together, at once, and again until they are acknowledged; until then their attempts are held."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from flowkit.core.payload import Payload
from flowkit.core.reports import Failed, Started, Succeeded
from flowkit.telemetry import Telemetry
from flowkit.wire.messages import decode_facts_batch
from flowkit.wire.topics import MAX_MESSAGE_BYTES
from flowkit.worker.outbox import FULL_BYTES, Letter, Told
from tests.worker.stand import Stand, virtual


async def echo(inputs: Any) -> Any:
    return inputs


async def sleeps(sec: float) -> None:
    await asyncio.sleep(sec)


def facts(stand: Stand) -> list[Any]:
    return [record for record in stand.bus.published if record.topic == stand.topics.facts]


@virtual
async def test_results_of_one_moment_travel_together_by_partition() -> None:
    async with Stand([echo], slots=100) as stand:
        jobs = [stand.job("echo", {"n": n}) for n in range(40)]
        await stand.send(*jobs)
        for job in jobs:
            await stand.result(job)

        records = facts(stand)
        assert sorted(record.partition for record in records) == [0, 1, 2, 3]
        for record in records:
            batch = decode_facts_batch(record.value)
            tasks = [item.task_id for item in batch.items if isinstance(item, Told)]
            assert len(tasks) == 10
            assert record.key == tasks[0].encode()
            assert {job.partition for job in jobs if job.task_id in tasks} == {record.partition}


@virtual
async def test_no_message_outgrows_its_size() -> None:
    async with Stand([echo], slots=100) as stand:
        jobs = [stand.job("echo", {"n": n, "text": 'x\n"ä' * 3000}, partition=1) for n in range(30)]
        for job in jobs:
            await stand.send(job)
        for job in jobs:
            assert isinstance(await stand.result(job), Succeeded)

        sizes = [len(record.value) for record in facts(stand)]
        assert len(sizes) > 5
        assert max(sizes) <= MAX_MESSAGE_BYTES


@virtual
async def test_results_are_sent_again_until_they_are_acknowledged() -> None:
    async with Stand([echo]) as stand:
        stand.bus.deaf.add(stand.topics.facts)
        jobs = [stand.job("echo", {"n": n}) for n in range(3)]
        await stand.send(*jobs)
        await asyncio.sleep(30)
        assert {attempt.token for attempt in stand.runtime._slots.held.values()} == {job.token for job in jobs}

        stand.bus.deaf.clear()
        for job in jobs:
            assert isinstance(await stand.result(job, timeout=5.1), Succeeded)
        await asyncio.sleep(0.01)
        assert stand.runtime._slots.held == {}


@virtual
async def test_heartbeats_name_an_attempt_until_its_result_is_acknowledged() -> None:
    async with Stand([echo]) as stand:
        stand.bus.deaf.add(stand.topics.facts)
        job = stand.job("echo")
        await stand.send(job)
        await asyncio.sleep(7)
        await stand.read()
        assert stand.named() == {job.token}
        assert stand.beats[-1].held[0].task_id == job.task_id

        stand.bus.deaf.clear()
        await stand.result(job)
        await asyncio.sleep(3)
        await stand.read()
        assert stand.named() == set()


@virtual
async def test_the_waits_between_tries_grow() -> None:
    async with Stand([echo]) as stand:
        tries = []
        publish = stand.bus.publish

        async def counting(records: Any) -> list[bool]:
            if records[0].topic == stand.topics.facts:
                tries.append(asyncio.get_running_loop().time())
            return await publish(records)

        stand.bus.deaf.add(stand.topics.facts)
        stand.bus.publish = counting  # type: ignore[method-assign]
        await stand.send(stand.job("echo"))
        await asyncio.sleep(60)

        waits = [after - before for before, after in pairwise(tries)]
        assert waits[:4] == pytest.approx([0.3, 0.6, 1.2, 2.4], abs=0.01)
        assert max(waits) == pytest.approx(5.0, abs=0.01)


@virtual
async def test_a_partition_has_one_publish_at_a_time_with_all_that_came_meanwhile() -> None:
    async with Stand([sleeps], slots=50) as stand:
        flying = most = 0
        publish = stand.bus.publish

        async def slow(records: Any) -> list[bool]:
            nonlocal flying, most
            if records[0].topic != stand.topics.facts:
                return await publish(records)
            flying += 1
            most = max(most, flying)
            await asyncio.sleep(1)
            flying -= 1
            return await publish(records)

        stand.bus.publish = slow  # type: ignore[method-assign]
        jobs = [stand.job("sleeps", {"sec": 0.01 * n}, partition=0) for n in range(40)]
        await stand.send(*jobs)
        for job in jobs:
            await stand.result(job)

        assert most == 1
        assert len(facts(stand)) <= 3


@virtual
async def test_a_result_for_another_partition_need_not_wait_for_a_flight() -> None:
    async with Stand([sleeps], slots=50) as stand:
        publish, sent = stand.bus.publish, list[tuple[int, float]]()
        loop = asyncio.get_running_loop()

        async def slow(records: Any) -> list[bool]:
            if records[0].topic == stand.topics.facts:
                sent.extend((record.partition, loop.time()) for record in records)
                await asyncio.sleep(1)
            return await publish(records)

        stand.bus.publish = slow  # type: ignore[method-assign]
        jobs = [stand.job("sleeps", {"sec": 0.01 * n}, partition=0) for n in range(10)]
        other = [stand.job("sleeps", {"sec": 0.2 + 0.01 * n}, partition=1) for n in range(2)]
        began = loop.time()
        await stand.send(*jobs, *other)
        for job in (*jobs, *other):
            await stand.result(job)

        at = [when - began for partition, when in sent if partition == 1]
        assert at[0] < 0.25
        assert all(when >= 1.0 for when in at[1:])  # nor do they overtake one another without end


@virtual
async def test_a_publish_that_raises_is_tried_again() -> None:
    async with Stand([echo]) as stand:
        publish, times = stand.bus.publish, 0

        async def breaks(records: Any) -> list[bool]:
            nonlocal times
            if records[0].topic == stand.topics.facts and (times := times + 1) < 3:
                raise RuntimeError("broken adapter")
            return await publish(records)

        stand.bus.publish = breaks  # type: ignore[method-assign]
        assert isinstance(await stand.run("echo"), Succeeded)


@virtual
async def test_that_an_attempt_started_is_no_news_once_it_ended() -> None:
    async with Stand([sleeps]) as stand:
        stand.bus.deaf.add(stand.topics.facts)
        job = stand.job("sleeps", {"sec": 3})
        await stand.send(job)
        await asyncio.sleep(20)
        stand.bus.deaf.clear()
        await stand.result(job)

        assert not [told for told in stand.told if isinstance(told.report, Started)]


@virtual
async def test_an_acknowledged_start_does_not_let_go_of_the_attempt() -> None:
    async with Stand([sleeps]) as stand:
        job = stand.job("sleeps", {"sec": 5})
        await stand.send(job)
        await stand.until(lambda: stand.told)
        assert job.token in stand.runtime._slots.held


@virtual
async def test_what_no_message_can_carry_becomes_a_failure() -> None:
    async with Stand([echo]) as stand:
        huge = Succeeded("n", 1, "k", Payload("x" * 2 * MAX_MESSAGE_BYTES))
        fine = Succeeded("n", 1, "k2", Payload("fine"))
        for report in (huge, fine):
            stand.runtime._outbox.add(Letter(Told("t", "default", report), 0, 10))
        await stand.until(lambda: len(stand.told) == 2)

        first, second = (told.report for told in stand.told)
        assert isinstance(first, Failed)
        assert (first.error["code"], first.permanent) == ("output_too_large", True)
        assert second == fine


def test_batches_stay_below_the_limit_with_room_for_the_envelope() -> None:
    assert FULL_BYTES < MAX_MESSAGE_BYTES - 2048
    assert Telemetry().counts == {}
