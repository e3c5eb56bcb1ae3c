"""How many attempts a worker gets through on one core, its dispatcher and its bus included."""

from __future__ import annotations

import time
from typing import Any

import pytest

from flowkit.clock import SystemClock
from flowkit.ports import Record
from flowkit.wire.messages import Job, decode_facts_batch, encode_work
from flowkit.wire.topics import WORK_PARTITIONS, partition_of
from tests.worker.stand import PARTITIONS, WORKER, Stand

ATTEMPTS = 20_000
AT_ONCE = 64


async def noop() -> None: ...


async def echo(inputs: Any) -> Any:
    return inputs


@pytest.mark.slow
@pytest.mark.parametrize(("role", "inputs"), [("noop", {}), ("echo", {"a": 1, "b": "xyz", "c": [1, 2, 3]})])
async def test_ten_thousand_attempts_a_second(role: str, inputs: Any) -> None:
    async with Stand([noop, echo], clock=SystemClock(), slots=64) as stand:
        tail = await stand._eye.tail(stand.topics.facts)
        partition = partition_of(WORKER, WORK_PARTITIONS)
        sent = done = 0
        began = time.process_time()
        while done < ATTEMPTS:
            while sent < ATTEMPTS and sent - done < 512:
                accept_by = stand.clock.mono() + 5
                jobs = [
                    Job(
                        f"task-{n:036}",
                        "default",
                        "me",
                        n % PARTITIONS,
                        "node",
                        role,
                        1,
                        f"c-1.{n}",
                        0,
                        accept_by,
                        inputs,
                    )
                    for n in range(sent, sent + AT_ONCE)
                ]
                value = encode_work(WORKER, stand.runtime.incarnation, "c-test", jobs)
                await stand._eye.publish([Record(stand.topics.work, partition, value, WORKER.encode())])
                sent += AT_ONCE
            for record in await tail.fetch(1.0):
                done += len(decode_facts_batch(record.value).items)
        rate = done / (time.process_time() - began)

    print(f"{role}: {rate:,.0f} attempts/s")
    assert rate > 10_000
