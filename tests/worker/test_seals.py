"""What a worker makes of messages that it cannot verify."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from flowkit.adapters.memory import MemoryBroker, MemoryBus
from flowkit.adapters.sealed_bus import SealedBus
from flowkit.service import Supervisor
from flowkit.telemetry import Telemetry
from flowkit.wire.seals import Seals
from flowkit.wire.stream import Ring
from flowkit.wire.topics import Topics
from flowkit.worker.stream_hub import StreamHub
from tests.wire.test_seals import ring as keys

TOPICS = Topics("flowkit.", 8)


class Hubs:
    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._broker = MemoryBroker()
        self.telemetry = Telemetry()

    async def hub(self, worker: str, key: str) -> StreamHub:
        bus = SealedBus(MemoryBus(self._broker), Seals(keys(key), TOPICS, require=True))
        await bus.ensure_topics(TOPICS.specs())
        supervisor = Supervisor(worker, self.telemetry)
        hub = StreamHub(
            bus=bus, topics=TOPICS, supervisor=supervisor, telemetry=self.telemetry, worker_id=worker,
            incarnation="i", send=lambda letter: None,
        )  # fmt: skip
        await hub.open()
        self._stack.push_async_callback(hub.close)
        self._stack.push_async_callback(supervisor.stop)
        return hub


@pytest.fixture
async def hubs() -> AsyncIterator[Hubs]:
    async with AsyncExitStack() as stack:
        yield Hubs(stack)


@pytest.mark.parametrize(("writer", "key", "body"), [("plain/a", "plain/1", "[1]"), ("fine/a", "fine/1", "")])
async def test_a_block_from_another_pool_is_not_believed_but_looked_up(
    hubs: Hubs, writer: str, key: str, body: str
) -> None:
    here = await hubs.hub("plain/w", "plain/1")
    there = await hubs.hub(writer, key)
    ring = Ring("t", 0, "n", 1, 1, 1, writer, "i", body="[1]")
    heard: asyncio.Queue[Ring] = asyncio.Queue()
    here.listen(ring.stream, heard.put_nowait)

    there.ring(ring, [here.me], readers=[here.me])

    got = await asyncio.wait_for(heard.get(), 10)
    assert (got.seq, got.body) == (1, body)
    assert hubs.telemetry.counts["unverified_rings"] == (0 if body else 1)
