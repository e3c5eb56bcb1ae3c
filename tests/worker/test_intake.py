"""Only what is for this worker, and for this life of it, is taken; what nobody can read is put aside."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flowkit.core.reports import Succeeded
from flowkit.ports import Record
from flowkit.telemetry import DeadLettered
from flowkit.wire.codec import dumps, loads
from flowkit.wire.messages import encode_work
from flowkit.wire.topics import FLEET_PARTITIONS, partition_of
from tests.worker.stand import WORKER, Stand, virtual


async def echo(inputs: Any) -> Any:
    return inputs


@virtual
async def test_hello_is_said_when_it_can_be_answered() -> None:
    stand = Stand([echo], slots=3, labels={"a": "b"}, worker_version="1.2")
    opened_at = []
    tail = stand.bus.tail

    async def watching(topic: str, partitions: Any = None) -> Any:
        await asyncio.sleep(3)
        opened = await tail(topic, partitions)
        opened_at.append((topic, len(stand.bus.published)))
        return opened

    stand.bus.tail = watching  # type: ignore[method-assign]
    async with stand:
        await stand.until(lambda: stand.hellos)

        hello = stand.hellos[0]
        assert (hello.worker, hello.incarnation) == (WORKER, stand.runtime.incarnation)
        assert (hello.roles, hello.slots, hello.labels, hello.version) == (["echo"], 3, {"a": "b"}, "1.2")
        assert not hello.draining
        assert hello.mono == pytest.approx(stand.clock.mono(), abs=1)
        assert (stand.topics.work, 0) in opened_at


@virtual
async def test_it_answers_a_coordinator_that_asks() -> None:
    async with Stand([echo]) as stand:
        await stand.until(lambda: stand.hellos)
        await stand.ask_hello()
        await stand.until(lambda: len(stand.hellos) == 2)
        fleet = [r for r in stand.bus.published if r.topic == stand.topics.fleet]
        assert {(r.partition, r.key) for r in fleet} == {(partition_of(WORKER, FLEET_PARTITIONS), WORKER.encode())}


@virtual
async def test_work_for_another_worker_of_the_partition_is_not_even_read() -> None:
    async with Stand([echo]) as stand:
        await stand.say_raw(b"\xff not JSON", key=b"w-other")
        await stand.say_raw(encode_work("w-other", "i", "c", [stand.job("echo")]), key=b"w-other")
        assert isinstance(await stand.run("echo"), Succeeded)
        assert await stand.dead() == []
        assert len(stand.told) == 1


@virtual
async def test_work_for_an_earlier_life_is_not_done() -> None:
    async with Stand([echo]) as stand:
        await stand.send(stand.job("echo"), incarnation="before")
        assert isinstance(await stand.run("echo"), Succeeded)
        assert len(stand.told) == 1
        assert stand.telemetry.counts["work_for_another_incarnation"] == 1


@pytest.mark.parametrize(
    "value",
    [
        b"",
        None,
        b"\xff\xfe",
        b"not JSON",
        b"[" * 5000,
        b"{}",
        b"[1,2]",
        dumps([1, WORKER, "i", "c", "no list"]),
        dumps([99, WORKER, "i", "c", []]),
        encode_work("w-other", "i", "c", []),
        b"[" + b" " * 70_000 + b"]",
    ],
)
@virtual
async def test_what_nobody_can_read_goes_to_dead_as_it_was_found(value: bytes | None) -> None:
    async with Stand([echo]) as stand:
        await stand.say_raw(value)
        (letter,) = await stand.dead()

        headers = dict(letter.headers)
        assert letter.value == value
        assert letter.key == WORKER.encode()
        assert headers["topic"] == stand.topics.work.encode()
        assert headers["offset"] == b"0"
        assert int(headers["partition"]) >= 0
        assert headers["reason"]
        assert isinstance(await stand.run("echo"), Succeeded), "the loop goes on"
        assert any(isinstance(happening, DeadLettered) for happening in stand.happenings)


@virtual
async def test_an_item_that_nobody_can_read_does_not_spoil_the_others() -> None:
    async with Stand([echo]) as stand:
        job = stand.job("echo", {"a": 1})
        good = loads(encode_work(WORKER, stand.runtime.incarnation, "c", [job]))[-1]
        rows = [["job", 1], *good, ["unheard-of"], 5]
        await stand.say_raw(dumps([1, WORKER, stand.runtime.incarnation, "c", rows]))
        assert isinstance(await stand.result(job), Succeeded)
        letters = await stand.dead()
        assert [loads(letter.value or b"") for letter in letters] == [["job", 1], ["unheard-of"], 5]
        assert all(dict(letter.headers)["offset"] == b"0" for letter in letters)


@virtual
async def test_a_control_message_nobody_can_read_goes_to_dead_too() -> None:
    async with Stand([echo]) as stand:
        await stand._eye.publish([Record(stand.topics.control, 0, b'{"type":"dance"}')])
        (letter,) = await stand.dead()
        assert dict(letter.headers)["topic"] == stand.topics.control.encode()
        await stand.ask_hello()
        await stand.until(lambda: len(stand.hellos) == 2)


@virtual
async def test_a_job_for_a_partition_that_does_not_exist_goes_to_dead() -> None:
    async with Stand([echo]) as stand:
        fine = stand.job("echo")
        await stand.send(stand.job("echo", partition=77), fine)
        (letter,) = await stand.dead()
        assert b"no partition 77" in dict(letter.headers)["reason"]
        assert isinstance(await stand.result(fine), Succeeded)


@virtual
async def test_a_flood_of_rubbish_is_bounded() -> None:
    async with Stand([echo]) as stand:
        stand.bus.stuck.add(stand.topics.dead)
        for _ in range(1500):
            await stand.say_raw(b"rubbish")
        assert isinstance(await stand.run("echo"), Succeeded)
        assert stand.telemetry.counts["dead_letters_dropped"] == 500
        assert len(stand.runtime._intake._dead) == 1000


@virtual
async def test_a_monster_does_not_hold_up_the_letters_behind_it() -> None:
    async with Stand([echo]) as stand:
        await stand.say_raw(b"\xff" * 1_040_000)
        await stand.say_raw(b"rubbish")
        letters: list[Record] = []
        while len(letters) < 2:
            letters += await stand.dead()
        assert [(letter.value or b"")[:7] for letter in letters] == [b"\xff" * 7, b"rubbish"]


@virtual
async def test_a_letter_that_was_refused_is_sent_again() -> None:
    async with Stand([echo]) as stand:
        stand.bus.deaf.add(stand.topics.dead)
        await stand.say_raw(b"rubbish")
        assert isinstance(await stand.run("echo"), Succeeded)
        assert await stand.dead() == []
        stand.bus.deaf.clear()
        (letter,) = await stand.dead()
        assert letter.value == b"rubbish"


@virtual
async def test_a_tail_that_fails_is_read_again() -> None:
    async with Stand([echo]) as stand:
        tail: Any = stand.runtime._intake._work
        fetch, times = tail.fetch, 0

        async def breaks(timeout: float) -> Any:
            nonlocal times
            times += 1
            if times < 4:
                raise RuntimeError("broken adapter")
            return await fetch(timeout)

        tail.fetch = breaks
        await stand.run("echo")
        await asyncio.sleep(0.5)
        assert isinstance(await stand.run("echo"), Succeeded)
        assert stand.telemetry.counts["LoopFailed"] == 3
