"""A heart in a thread of its own beats while a handler blocks the worker's loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pytest

from flowkit.clock import SystemClock
from flowkit.core.reports import Succeeded
from flowkit.errors import BusUnavailable
from flowkit.ports import Member, Outcome, Record, Renewal, Tail, TopicSpec
from flowkit.wire.messages import Heartbeat, decode_fleet
from tests.worker.stand import Stand

BEAT = {"heartbeat_sec": 0.02, "lease_ttl_sec": 10.0}


class ThreadBus:
    """A bus that only collects what the heart's thread publishes."""

    def __init__(self) -> None:
        self.beats: list[Heartbeat] = []
        self.threads: set[str] = set()
        self.deaf = False
        self.running = False

    async def start(self) -> None:
        self.running = True

    async def stop(self) -> None:
        self.running = False

    async def ensure_topics(self, topics: Mapping[str, TopicSpec]) -> None: ...

    async def publish(self, records: Sequence[Record]) -> list[bool]:
        self.threads.add(threading.current_thread().name)
        for record in records:
            message = decode_fleet(record.value)
            assert isinstance(message, Heartbeat)
            self.beats.append(message)
        return [not self.deaf] * len(records)

    def partitions(self, topic: str) -> int:
        return 4

    def heard(self, topic: str) -> bool:
        return True

    async def join(self, *_: Any, **__: Any) -> Member:
        raise NotImplementedError

    async def tail(self, topic: str, partitions: Collection[int] | None = None) -> Tail:
        raise NotImplementedError

    async def describe(self) -> Mapping[str, Any]:
        return {}


class ThreadStore:
    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.renewals: list[Renewal] = []

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def renew(self, renewal: Renewal) -> Outcome:
        self.renewals.append(renewal)
        return self.outcome


def threaded(handlers: Any, bus: Any, store: ThreadStore | None = None, **cfg: Any) -> Stand:
    store = store or ThreadStore(Outcome.OK)
    options = {"heart_in_thread": True, "heart_bus": lambda: bus, "heart_store": lambda: store}
    return Stand(handlers, clock=SystemClock(), options=options, **(BEAT | cfg))


def ok() -> None: ...


def block_until(came: Callable[[], object]) -> None:
    limit = time.monotonic() + 60
    while not came() and time.monotonic() < limit:
        pass


async def test_a_handler_that_blocks_the_loop_keeps_its_lease() -> None:
    seen: list[int] = []

    async def hogs() -> None:
        before = len(bus.beats)
        block_until(lambda: len(bus.beats) >= before + 4)
        seen.append(len(bus.beats) - before)

    bus = ThreadBus()
    async with threaded([hogs], bus) as stand:
        job = stand.job("hogs")
        await stand.send(job)
        assert isinstance(await stand.result(job), Succeeded)
        assert seen[0] >= 4, "it beat while the loop was blocked"
        assert any(held.token == job.token for beat in bus.beats for held in beat.held)
        assert bus.threads == {"w-test-heart"}
    assert not bus.running


async def test_a_plain_cpu_bound_handler_keeps_its_lease() -> None:
    def with_its_token() -> list[Heartbeat]:
        return [beat for beat in bus.beats if any(held.token == job.token for held in beat.held)]

    def hogs() -> None:
        block_until(lambda: len(with_its_token()) >= 4)

    bus = ThreadBus()
    async with threaded([hogs], bus) as stand:
        job = stand.job("hogs")
        await stand.send(job)
        assert isinstance(await stand.result(job), Succeeded)
        assert len(with_its_token()) >= 4


async def test_the_thread_renews_in_its_own_store() -> None:
    bus, store = ThreadBus(), ThreadStore(Outcome.OK)
    bus.deaf = True

    def hogs() -> None:
        block_until(lambda: len(store.renewals) >= 3)

    async with threaded([hogs], bus, store) as stand:
        assert isinstance(await stand.run("hogs"), Succeeded)
        assert len(store.renewals) >= 3


async def test_the_thread_kills_what_is_lost_while_the_loop_is_blocked() -> None:
    exits: list[Any] = []

    async def hogs(ctx: Any) -> str:
        process = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
        ctx.register_subprocess(process)
        bus.deaf = True
        block_until(ctx.cancelled)
        exits.append((ctx.cancelled(), ctx._attempt.groups.killed))
        return "finished all the same"

    bus = ThreadBus()
    async with threaded([hogs], bus, ThreadStore(Outcome.UNKNOWN), lease_ttl_sec=0.2) as stand:
        job = stand.job("hogs")
        await stand.send(job)
        await stand.until(lambda: exits, timeout=60)
        await asyncio.sleep(0.05)
        await stand.read()
        assert exits == [(True, True)]
        assert stand.results(job) == []
        assert stand.runtime._slots.held == {}


async def test_a_drain_is_announced_by_the_thread() -> None:
    bus = ThreadBus()
    async with threaded([ok], bus, heartbeat_sec=60.0) as stand:
        await stand.runtime.drain(0)
        assert bus.beats[-1].draining


async def test_a_thread_that_cannot_connect_says_so_at_start() -> None:
    class Broken(ThreadBus):
        async def start(self) -> None:
            raise BusUnavailable("no Kafka at nowhere:1")

    stand = threaded([ok], Broken())
    with pytest.raises(BusUnavailable, match="nowhere:1"):
        await stand.runtime.start()
    assert not stand.runtime.running


async def test_a_thread_that_fails_later_says_so_too() -> None:
    class Broken(ThreadBus):
        async def stop(self) -> None:
            raise OSError("the socket is gone")

    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    async with threaded([ok], Broken()) as stand:
        await stand.runtime.stop()

    assert [(one["message"], str(one["exception"])) for one in told] == [
        ("the heart's thread failed", "the socket is gone")
    ]


async def test_a_worker_with_a_thread_can_be_started_again() -> None:
    bus = ThreadBus()
    async with threaded([ok], bus) as stand:
        await stand.runtime.stop()
        await stand.runtime.start()
        assert isinstance(await stand.run("ok"), Succeeded)
