"""The local Kafka and MongoDB are real: they keep what they acknowledged over crashes and restarts."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from deploy.local import KafkaServer, MongoServer, ServiceUnavailable, kafka, server

pytestmark = pytest.mark.xdist_group("servers_of_their_own")

# These tests crash their servers, so they have their own. The session's fixtures come first: they skip or
# fail where no server can be had.


@pytest.fixture(scope="module")
def broker(kafka_address: str) -> Iterator[KafkaServer]:
    kafka.archive_classes()  # as an installation does
    with KafkaServer() as own:
        yield own


@pytest.fixture(scope="module")
def store(mongo_url: str) -> Iterator[MongoServer]:
    with MongoServer() as own:
        yield own


@pytest.mark.kafka
async def test_kafka_keeps_an_acknowledged_record_over_a_crash(broker: KafkaServer) -> None:
    await _create_topic(broker.address, "crash")
    await _produce(broker.address, "crash", b"before")

    broker.kill()
    assert not broker.running
    await asyncio.to_thread(broker.start)
    await _produce(broker.address, "crash", b"after")

    assert await _consume(broker.address, "crash", 2) == [b"before", b"after"]


@pytest.mark.kafka
async def test_kafka_keeps_its_address_and_records_over_a_restart(broker: KafkaServer) -> None:
    await _create_topic(broker.address, "restart")
    await _produce(broker.address, "restart", b"before")

    await asyncio.to_thread(broker.restart)

    assert await _consume(broker.address, "restart", 1) == [b"before"]


@pytest.mark.kafka
def test_kafka_starts_with_the_classes_that_its_installation_has_loaded(broker: KafkaServer) -> None:
    archive = kafka.archive_classes()

    assert archive.stat().st_size > 10**7
    assert str(archive.resolve()) in Path(f"/proc/{broker.pid}/maps").read_text()


@pytest.mark.kafka
async def test_a_frozen_kafka_answers_nobody_and_goes_on_when_thawed(broker: KafkaServer) -> None:
    await _create_topic(broker.address, "frost")
    broker.freeze()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await _produce(broker.address, "frost", b"too early")
    broker.thaw()

    await _produce(broker.address, "frost", b"thawed")

    assert b"thawed" in await _consume(broker.address, "frost", 1)


@pytest.mark.mongo
async def test_mongo_keeps_a_majority_write_over_a_crash(store: MongoServer) -> None:
    async with _mongo(store.url) as client:
        await _durable(client).insert_one({"_id": "before"})

        store.kill()
        assert not store.running
        await asyncio.to_thread(store.start)
        await _durable(client).insert_one({"_id": "after"})  # the same client finds the server again

        assert [found["_id"] async for found in _durable(client).find().sort("_id", -1)] == [
            "before",
            "after",
        ]


@pytest.mark.mongo
async def test_mongo_keeps_its_address_and_documents_over_a_restart(store: MongoServer) -> None:
    async with _mongo(store.url) as client:
        await _durable(client).replace_one({"_id": "stays"}, {"n": 1}, upsert=True)

        await asyncio.to_thread(store.restart)

        assert await _durable(client).find_one({"_id": "stays"}) == {"_id": "stays", "n": 1}


@pytest.mark.mongo
async def test_a_frozen_mongo_answers_nobody_and_goes_on_when_thawed(store: MongoServer) -> None:
    from pymongo.errors import PyMongoError

    async with _mongo(store.url, timeoutMS=1000) as client:
        store.freeze()
        with pytest.raises(PyMongoError):
            await client.admin.command("ping")
        store.thaw()
    async with _mongo(store.url) as patient:
        await patient.admin.command("ping")


@pytest.mark.mongo
async def test_mongo_is_a_replica_set_with_fail_points(store: MongoServer) -> None:
    async with _mongo(store.url) as client:
        assert (await client.admin.command("hello"))["setName"] == "rs0"
        await client.admin.command("configureFailPoint", "failCommand", mode="off")


@pytest.mark.mongo
def test_a_server_started_by_a_short_lived_thread_outlives_it(mongo_url: str) -> None:
    with_own = MongoServer()
    try:
        thread = threading.Thread(target=with_own.start)
        thread.start()
        thread.join()
        time.sleep(0.2)
        assert with_own.running
    finally:
        with_own.close()
    assert not with_own.data_dir.exists()


@pytest.mark.mongo
@pytest.mark.skipif(sys.platform != "linux", reason="needs a parent-death signal")
def test_a_server_dies_with_its_parent(mongo_url: str, tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time; from deploy.local import MongoServer\n"
        f"server = MongoServer(data_dir=pathlib.Path({str(tmp_path)!r})).start()\n"
        "print(server.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=server.ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    assert _alive(pid)

    parent.kill()
    parent.wait()

    deadline = time.monotonic() + 60
    while _alive(pid):
        assert time.monotonic() < deadline, "mongod outlived its parent"
        time.sleep(0.02)


@pytest.mark.mongo
@pytest.mark.kafka
def test_up_prints_the_addresses_and_ends_on_a_signal(kafka_address: str, mongo_url: str) -> None:
    up = subprocess.Popen(
        [sys.executable, "-m", "deploy.local", "up"], cwd=server.ROOT, stdout=subprocess.PIPE, text=True
    )
    assert up.stdout is not None
    with up.stdout:
        lines = [up.stdout.readline().strip() for _ in range(2)]
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0

    assert lines[0].startswith("FLOWKIT_TEST_KAFKA=127.0.0.1:")
    assert lines[1].startswith("FLOWKIT_TEST_MONGO=mongodb://127.0.0.1:")


def test_ports_lie_below_those_of_outgoing_connections() -> None:
    assert all(20_000 <= server.free_port() < 32_000 for _ in range(20))


def test_a_missing_program_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    own = KafkaServer(data_dir=tmp_path / "data")
    try:
        with pytest.raises(ServiceUnavailable, match=r"`java` is missing: install Java"):
            own.start()
    finally:
        own.close()


def test_a_server_that_does_not_start_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = KafkaServer(data_dir=tmp_path)
    monkeypatch.setattr(own, "_command", lambda: ["/bin/sh", "-c", "echo the port is taken; exit 3"])
    try:
        with pytest.raises(ServiceUnavailable, match=r"ended with code 3 .*\n.*the port is taken"):
            own.start()
    finally:
        own.close()


def test_a_broken_off_download_leaves_nothing_that_looks_complete(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(server, "CACHE", tmp_path)
    target = tmp_path / "thing"

    with suppress(KeyboardInterrupt), server.installing(target) as folder:
        assert folder is not None
        (folder / "half").touch()
        raise KeyboardInterrupt
    assert not target.exists()

    with server.installing(target) as folder:
        assert folder is not None
        (folder / "whole").touch()
    assert (target / "whole").exists()

    with server.installing(target) as folder:
        assert folder is None
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["thing"]


def test_the_cluster_id_is_one_that_kafka_accepts() -> None:
    ids = {kafka._cluster_id() for _ in range(50)}
    assert len(ids) == 50
    assert all(len(one) == 22 and one.startswith("A") for one in ids)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # An orphan that nobody has buried yet is dead all the same.
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def _mongo(url: str, **options: int):
    from pymongo import AsyncMongoClient

    return AsyncMongoClient(url, serverSelectionTimeoutMS=20_000, **options)


def _durable(client):
    from pymongo import WriteConcern

    return client["services"].get_collection("kept", write_concern=WriteConcern(w="majority", j=True))


async def _create_topic(address: str, topic: str) -> None:
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def _produce(address: str, topic: str, value: bytes) -> None:
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all", enable_idempotence=True)
    try:
        await producer.start()
        await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def _consume(address: str, topic: str, count: int) -> list[bytes]:
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(topic, bootstrap_servers=address, auto_offset_reset="earliest", group_id=None)
    await consumer.start()
    try:
        async with asyncio.timeout(60):
            return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()
