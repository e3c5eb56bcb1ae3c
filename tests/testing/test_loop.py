"""The virtual loop: time jumps, processes interleave, freeze and die, and a standstill is told from patience."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from flowkit.testing.loop import PROCESS, Process, Stuck, VirtualLoop


def start(loop: VirtualLoop, process: Process, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    return process.context().run(loop.create_task, work)


def test_an_hour_takes_no_time() -> None:
    loop = VirtualLoop()
    began = time.perf_counter()

    async def main() -> float:
        await asyncio.sleep(3600)
        return loop.time()

    assert loop.run_until_complete(main()) == 3600
    assert time.perf_counter() - began < 60


def test_asyncio_works_on_it() -> None:
    loop = VirtualLoop(dice=random.Random(1))

    async def main() -> list[Any]:
        queue: asyncio.Queue[int] = asyncio.Queue(1)
        async with asyncio.TaskGroup() as group:
            group.create_task(queue.put(1))
            got = group.create_task(queue.get())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        done, _ = await asyncio.wait([asyncio.ensure_future(asyncio.sleep(n, n)) for n in (3, 1)], timeout=2)
        return [got.result(), loop.time(), [task.result() for task in done], await asyncio.to_thread(lambda: 7)]

    assert loop.run_until_complete(main()) == [1, 7, [1], 7]


def test_the_same_dice_give_the_same_order_and_others_another() -> None:
    def order(seed: int) -> list[str]:
        loop = VirtualLoop(dice=random.Random(seed))
        seen: list[str] = []

        async def tick(name: str) -> None:
            for _ in range(5):
                seen.append(name)
                await asyncio.sleep(1)

        async def main() -> None:
            for name in "abc":
                start(loop, loop.new_process(name), tick(name))
            await asyncio.sleep(10)

        loop.run_until_complete(main())
        loop.close()
        return seen

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(5)}) > 1


def test_within_one_process_callbacks_keep_their_order() -> None:
    loop = VirtualLoop(dice=random.Random(3))
    seen: list[int] = []

    async def main() -> None:
        for number in range(50):
            loop.call_soon(seen.append, number)
        await asyncio.sleep(1)

    loop.run_until_complete(main())

    assert seen == list(range(50))


def test_without_dice_the_first_to_be_ready_goes_first() -> None:
    loop = VirtualLoop()
    seen: list[str] = []

    async def main() -> None:
        for name in "abc":
            loop.new_process(name).context().run(loop.call_soon, seen.append, name)
        await asyncio.sleep(1)

    loop.run_until_complete(main())

    assert seen == ["a", "b", "c"]


def test_tasks_inherit_the_process_of_who_made_them() -> None:
    loop = VirtualLoop()

    async def name() -> str:
        return PROCESS.get().name

    async def parent() -> str:
        return await asyncio.create_task(name())

    async def main() -> str:
        return str(await start(loop, loop.new_process("W0"), parent()))

    assert loop.run_until_complete(main()) == "W0"


def test_a_frozen_process_does_afterwards_what_it_missed() -> None:
    loop = VirtualLoop()
    seen: list[float] = []

    async def tick() -> None:
        while True:
            seen.append(loop.time())
            await asyncio.sleep(1)

    async def main() -> None:
        process = loop.new_process("W0")
        start(loop, process, tick())
        await asyncio.sleep(1.5)
        loop.freeze(process)
        await asyncio.sleep(10)
        loop.thaw(process)
        await asyncio.sleep(1.2)

    loop.run_until_complete(main())
    loop.close()

    assert seen == [0, 1, 11.5, 12.5]


def test_a_killed_process_runs_nothing_not_even_its_finally() -> None:
    loop = VirtualLoop()
    seen: list[str] = []

    async def careful() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            seen.append("cleaned up")

    async def main() -> None:
        process = loop.new_process("W0")
        task = start(loop, process, careful())
        await asyncio.sleep(1)
        loop.kill(process)
        assert process.context().run(loop.call_soon, seen.append, "soon").owner is process
        await asyncio.sleep(10)
        assert not task.done()

    loop.run_until_complete(main())

    assert seen == []
    assert loop.faults == []
    loop.close()
    assert loop.faults == []


def test_a_future_set_for_a_dead_process_wakes_nobody() -> None:
    loop = VirtualLoop()
    seen: list[int] = []

    async def main() -> None:
        process, answer = loop.new_process("W0"), loop.create_future()

        async def wait() -> None:
            seen.append(await answer)

        start(loop, process, wait())
        await asyncio.sleep(1)
        loop.kill(process)
        answer.set_result(1)
        await asyncio.sleep(1)

    loop.run_until_complete(main())
    loop.close()

    assert seen == []


def test_an_exception_that_nobody_hears_is_kept() -> None:
    loop = VirtualLoop()

    async def main() -> None:
        loop.new_process("C0").context().run(loop.call_soon, lambda: 1 / 0)
        await asyncio.sleep(1)

    loop.run_until_complete(main())

    [(owner, error, _)] = loop.faults
    assert owner == "C0"
    assert isinstance(error, ZeroDivisionError)


def test_waiting_for_nothing_is_noticed() -> None:
    loop = VirtualLoop()

    async def main() -> None:
        await loop.create_future()

    with pytest.raises(Stuck, match="nothing is ready"):
        loop.run_until_complete(main())
    loop.close()


def test_polling_without_a_pause_is_noticed() -> None:
    loop = VirtualLoop()

    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match="root runs and runs without waiting"):
        loop.run_until_complete(main())
    loop.close()


def test_time_without_end_is_noticed() -> None:
    loop = VirtualLoop(limit=100)

    with pytest.raises(Stuck, match="limit of 100 s"):
        loop.run_until_complete(asyncio.sleep(101))
    loop.close()


async def test_it_does_not_run_within_another_loop() -> None:
    work = asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="plain function"):
        VirtualLoop().run_until_complete(work)
    work.close()
