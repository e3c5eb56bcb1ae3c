"""A worker on strings: it speaks the protocol as a worker does, but says whatever the test wants, and runs nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from flowkit.adapters.kafka import KafkaBus
from flowkit.core.payload import Payload
from flowkit.core.reports import Succeeded
from flowkit.ports import Record, Tail
from flowkit.wire.facts import row_of
from flowkit.wire.messages import Heartbeat, Held, Job, decode_work, encode_message
from flowkit.wire.topics import FLEET_PARTITIONS, WORK_PARTITIONS, Topics, partition_of
from tests.integration.site import Site, until

BEAT_SEC = 1.0


class Puppet:
    """Serves `role`; the jobs that it was sent are in `jobs`, and it keeps their leases alive."""

    def __init__(self, site: Site, role: str, slots: int = 200) -> None:
        self.worker = "puppet"
        self.incarnation = "first"
        self.jobs: list[Job] = []
        self._role = role
        self._slots = slots
        self._topics = Topics(site.prefix)
        self._bus = KafkaBus(site.kafka)
        self._doing: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._bus.start()
        await self._bus.ensure_topics(self._topics.specs())
        tail = await self._bus.tail(self._topics.work, [partition_of(self.worker, WORK_PARTITIONS)])
        self._doing = [asyncio.create_task(self._listen(tail)), asyncio.create_task(self._beat())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._doing:
            task.cancel()
        await asyncio.gather(*self._doing, return_exceptions=True)
        await self._bus.stop()

    async def job(self, task_id: str, node: str = "") -> Job:
        """The dispatch of a node, once it is here."""

        def found() -> Job | None:
            fitting = [job for job in self.jobs if job.task_id == task_id and node in ("", job.node)]
            return fitting[-1] if fitting else None

        job: Job = await until(f"the puppet is sent {task_id}", found)
        return job

    def success(self, job: Job, output: Any) -> list[Any]:
        """An item of `facts` that says that a job is done."""
        report = Succeeded(job.node, job.attempt, job.token, Payload(output))
        return [job.task_id, job.tenant, row_of(report)]

    def envelope(self, items: Sequence[Any], version: int = 1) -> list[Any]:
        return [version, self.worker, self.incarnation, len(self.jobs), list(items)]

    async def _listen(self, tail: Tail) -> None:
        while True:
            for record in await tail.fetch(0.5):
                if record.key == self.worker.encode():
                    self.jobs += [item for item in decode_work(record.value).items if isinstance(item, Job)]

    async def _beat(self) -> None:
        while True:
            held = [Held(j.token, j.task_id, j.tenant, j.partition, j.node, j.attempt) for j in self.jobs]
            beat = Heartbeat(self.worker, self.incarnation, [self._role], self._slots, time.monotonic(), held)
            partition = partition_of(self.worker, FLEET_PARTITIONS)
            record = Record(self._topics.fleet, partition, encode_message(beat), self.worker.encode())
            await self._bus.publish([record])
            await asyncio.sleep(BEAT_SEC)


class Stranger:
    """Somebody with access to the topics and no manners: writes bytes, reads what became of them."""

    def __init__(self, site: Site) -> None:
        self.topics = Topics(site.prefix)
        self._producer = AIOKafkaProducer(bootstrap_servers=site.kafka, acks="all")
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=site.kafka, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        self.dead: list[Any] = []

    async def __aenter__(self) -> Self:
        await self._producer.start()
        await self._consumer.start()
        self._consumer.assign([TopicPartition(self.topics.dead, 0)])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()
        await self._producer.stop()

    async def write(self, topic: str, partition: int, value: bytes | None, key: bytes | None = None,
                    headers: Sequence[tuple[str, bytes]] = ()) -> int:  # fmt: skip
        """Its offset."""
        batch = self._producer.create_batch()  # `send` itself refuses what has neither key nor value
        assert batch.append(key=key, value=value, timestamp=None, headers=list(headers)) is not None
        sent = await (await self._producer.send_batch(batch, topic, partition=partition))
        return int(sent.offset)

    async def look(self) -> None:
        """Take in what has come to `dead.v1`."""
        for messages in (await self._consumer.getmany(timeout_ms=100)).values():
            self.dead += messages

    async def buried(self, topic: str, partition: int, offset: int, *, copies: int = 1) -> list[dict[str, str]]:
        """The headers of the dead letters about one record, once there are so many."""
        place = {"topic": topic, "partition": str(partition), "offset": str(offset)}
        return await self._letters(f"{topic}/{partition}/{offset} is in dead.v1", place, copies)

    async def about(self, task_id: str) -> list[dict[str, str]]:
        """The headers of the dead letters about a task."""
        return await self._letters(f"a dead letter about {task_id}", {"task_id": task_id}, 1)

    async def _letters(self, what: str, fitting: dict[str, str], copies: int) -> list[dict[str, str]]:
        async def found() -> list[dict[str, str]]:
            letters = [headers for headers in map(headers_of, self.dead) if fitting.items() <= headers.items()]
            if len(letters) >= copies:
                return letters
            await self.look()
            return []

        letters: list[dict[str, str]] = await until(what, found, every=0)
        return letters


def headers_of(message: Any) -> dict[str, str]:
    return {name: text.decode("utf-8", "replace") for name, text in message.headers}
