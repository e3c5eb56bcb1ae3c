"""All places where a canary could turn up, read as they are: topics, collections, files, the table of processes."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from flowkit.wire.messages import Job, decode_work
from tests.integration.canary.forms import Needles

CHUNK = 1024 * 1024
EVERY_SEC = 0.02
Hits = dict[str, set[tuple[str, str]]]
"""By place, what was found there: which canary, in which encoding."""


async def in_topics(address: str, prefix: str, needles: Needles) -> Hits:
    """Every record of every topic from the first on: its key, its headers, its value."""
    hits: Hits = {}
    async for topic, parts in _records(address, prefix):
        found = hits.setdefault(f"topic {topic}", set())
        for part in parts:
            found |= needles.found_in(part)
    return hits


async def _records(address: str, prefix: str) -> AsyncIterator[tuple[str, list[bytes]]]:
    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(
        bootstrap_servers=address, auto_offset_reset="earliest", enable_auto_commit=False, check_crcs=False,
        max_partition_fetch_bytes=8 * 1024 * 1024,
    )  # fmt: skip
    await consumer.start()
    try:
        counts = await partitions(address, prefix)
        assert counts, f"no topic begins with {prefix}"
        places = [TopicPartition(topic, number) for topic, count in counts.items() for number in range(count)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        starts = await consumer.beginning_offsets(places)
        left = {place for place in places if starts[place] < ends[place]}
        for topic in counts:
            yield topic.removeprefix(prefix), []
        await consumer.seek_to_beginning(*places)
        async with asyncio.timeout(120):
            while left:
                for place, records in (await consumer.getmany(timeout_ms=200, max_records=2000)).items():
                    for record in records:
                        headers = [part for name, value in record.headers for part in (name.encode(), value or b"")]
                        yield place.topic.removeprefix(prefix), [record.key or b"", record.value or b"", *headers]
                left = {place for place in left if await consumer.position(place) < ends[place]}
    finally:
        await consumer.stop()


async def jobs(address: str, prefix: str) -> AsyncIterator[Job]:
    """The attempts that were given to workers, as whoever may read the topic sees them."""
    async for topic, parts in _records(address, prefix):
        for item in decode_work(parts[1]).items if topic == "work.v1" and parts else ():
            if isinstance(item, Job):
                yield item


async def partitions(address: str, prefix: str) -> dict[str, int]:
    """How many partitions each topic has that begins so."""
    from aiokafka.admin import AIOKafkaAdminClient

    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        topics = [topic for topic in await admin.list_topics() if topic.startswith(prefix)]
        described = await admin.describe_topics(topics)
    finally:
        await admin.close()
    return {one["topic"]: len(one["partitions"]) for one in described}


async def in_collections(url: str, needles: Needles, *, whole: bool = False) -> Hits:
    """Every document of every collection of the database, as BSON; `whole`: of all databases of the server, its own
    record of all writes included."""
    from bson.codec_options import CodecOptions
    from bson.raw_bson import RawBSONDocument
    from pymongo import AsyncMongoClient

    hits: Hits = {}
    options = CodecOptions(document_class=RawBSONDocument)
    async with AsyncMongoClient(url, serverSelectionTimeoutMS=10_000) as client:
        own = client.get_default_database().name
        for database in await client.list_database_names() if whole else [own]:
            for name in await client[database].list_collection_names():
                place = f"collection {name}" if database == own else f"collection {database}.{name}"
                found = hits.setdefault(place, set())
                with suppress(_forbidden()):
                    async for document in client[database].get_collection(name, options).find({}, batch_size=500):
                        found |= needles.found_in(document.raw)
    return hits


def _forbidden() -> type[Exception]:
    from pymongo.errors import OperationFailure

    return OperationFailure  # a view of the server's own that nobody may read


def in_files(folder: Path, needles: Needles, *, what: str = "file") -> Hits:
    """Names and bytes of all files below a folder; what was never written to is left out."""
    hits: Hits = {}
    for path in folder.rglob("*"):
        place = f"{what} {path.relative_to(folder)}"
        if found := needles.found_in(os.fsencode(path.name)):
            hits.setdefault(place, set()).update(found)
        if path.is_file() and not path.is_symlink():
            with suppress(FileNotFoundError):
                for data in _chunks(path, needles.longest):
                    hits.setdefault(place, set()).update(needles.found_in(data))
    return hits


def _chunks(path: Path, overlap: int) -> Iterator[bytes]:
    """What is in a file; a form that stands on the border of two chunks is whole in one of them."""
    with path.open("rb") as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        while at < size:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
                end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            except OSError:  # nothing but a hole follows
                return
            at = start
            while at < end:
                data = os.pread(file.fileno(), min(CHUNK, end - at) + overlap, at)
                if data.strip(b"\0"):  # servers set much aside that they have not written to
                    yield data
                at += CHUNK
            at = max(at, end)


@dataclass(frozen=True)
class Seen:
    """Where in the table of processes something was found: the process, and whether it is in namespaces of its own."""

    argument0: str
    apart: bool
    what: str
    canary: str
    encoding: str


@dataclass
class ProcessTable:
    """Looks at the arguments and the variables of all processes of the machine, again and again, in a thread."""

    needles: Needles
    seen: set[Seen] = field(default_factory=set)
    looks: int = 0
    processes: set[int] = field(default_factory=set)
    trouble: list[BaseException] = field(default_factory=list)
    known: dict[tuple[int, str], bytes] = field(default_factory=dict)

    def __enter__(self) -> ProcessTable:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(30)
        assert not self.trouble, self.trouble

    def _watch(self) -> None:
        try:
            ours = os.readlink("/proc/self/ns/pid")
            while not self._over.wait(EVERY_SEC):
                self.looks += 1
                for name in os.listdir("/proc"):
                    if name.isdigit():
                        self._look(int(name), ours)
        except BaseException as error:
            self.trouble.append(error)

    def _look(self, pid: int, ours: str) -> None:
        self.processes.add(pid)
        for what in ("cmdline", "environ"):
            try:
                with open(f"/proc/{pid}/{what}", "rb") as file:
                    data = file.read()
                if self.known.get((pid, what)) == data:
                    continue
                self.known[pid, what] = data
                found = self.needles.found_in(data)
                if not found:
                    continue
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    argument0 = file.read().partition(b"\0")[0].decode(errors="replace")
                apart = os.readlink(f"/proc/{pid}/ns/pid") != ours
            except (OSError, ProcessLookupError):
                continue  # it has ended
            self.seen |= {Seen(argument0, apart, what, *one) for one in found}
