"""Kafka and MongoDB that let nobody in without a certificate, a password and rights: who gets in, who does not and is
told why, and a graph that runs over both, signed."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiokafka")
pytest.importorskip("pymongo")
pytest.importorskip("cryptography")

from deploy.local import ServiceUnavailable
from flowkit import Context, Coordinator, CoordinatorConfig, Worker, WorkerConfig
from flowkit.adapters.kafka import KafkaBus
from flowkit.cli.checks_cluster import of_kafka, of_mongo
from flowkit.cli.checks_policies import Served
from flowkit.connections import kafka_bus, kafka_security, message_seals, mongo_store
from flowkit.errors import BusUnavailable, FlowKitError, StoreUnavailable
from flowkit.ports import Commit, Outcome, Record, Request
from flowkit.sandbox.levels import Report
from flowkit.wire.logs import encode_logs
from flowkit.wire.messages import Hello, Knock, encode_facts_batch, encode_message
from flowkit.wire.topics import FLEET_PARTITIONS, WORK_PARTITIONS, Topics, partition_of
from tests.conftest import _cannot_have
from tests.integration.guarded import PASSWORDS, Guarded, grant, guarded, scrubbed
from tests.integration.harness.puppet import Stranger, headers_of
from tests.integration.site import Site, until

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.mongo,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("guarded_servers"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]

PREFIX = "guarded."
CONNECT_SEC = 3.0
PATIENT_SEC = 20.0
"""Where the machine halted meanwhile, and the first was over before anybody was refused."""
KEYS = {
    name: base64.b64encode(f"canary key of {name} ".encode() * 4).decode()
    for name in ("coordinator/1", "plain/1", "app/1", "other/1")
}

HANDLERS = """
async def shout(text):
    return text.upper()
"""
GRAPH = {
    "nodes": [
        *({"node_id": f"n{i}", "type": "shout", "inputs": {"text": f"no {i}"}} for i in range(20)),
        {"node_id": "last", "type": "shout", "depends_on": ["n0", "n19"], "inputs": {"text": {"$from": "n19"}}},
    ]
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    try:
        with guarded(tmp_path_factory.mktemp("guarded")) as place:
            asyncio.run(grant(place.kafka.address, PREFIX))
            yield place
    except ServiceUnavailable as error:
        _cannot_have("kafka", error)


def keys(*names: str) -> dict[str, str]:
    return {name: KEYS[name] for name in names}


def config(place: Guarded, user: str = "flowkit-coordinator", **changed: Any) -> CoordinatorConfig:
    return CoordinatorConfig(**{**place.settings(user), "topic_prefix": PREFIX, **changed})


# Kafka


def ways_in(place: Guarded) -> dict[str, dict[str, Any]]:
    client = {"kafka_cert_file": str(place.client.cert), "kafka_key_file": str(place.client.key)}
    nobody = {"kafka_user": None, "kafka_password_file": None, "kafka_security_protocol": "SSL"}
    return {
        "SCRAM-SHA-512": {},
        "SCRAM-SHA-256": {"kafka_sasl_mechanism": "SCRAM-SHA-256"},
        "PLAIN": {"kafka_sasl_mechanism": "PLAIN"},
        "a certificate": {**nobody, **client, "kafka_bootstrap": place.kafka.mutual},
        "a certificate and its key in one file": {
            **nobody, "kafka_cert_file": str(place.client.both), "kafka_bootstrap": place.kafka.mutual,
        },
    }  # fmt: skip


async def test_kafka_lets_in_by_password_or_certificate_and_all_clients_of_a_bus_come_in_that_way(
    place: Guarded,
) -> None:
    for name, changed in ways_in(place).items():
        bus = kafka_bus(config(place, "flowkit-worker", **changed), seals=None)
        await bus.start()
        try:
            described = await bus.describe()
        finally:
            await bus.stop()
        assert described["kind"] == "kafka", name


def refusals(place: Guarded) -> dict[str, tuple[dict[str, Any], str]]:
    password = {"kafka_password": "canary-wrong-4799", "kafka_password_file": None}
    nobody = {"kafka_user": None, "kafka_password_file": None, "kafka_security_protocol": "SSL"}
    plain = {**nobody, "kafka_security_protocol": "PLAINTEXT", "kafka_ca_file": None}
    stranger = place.stranger.issue("flowkit-worker")
    _, _, port = place.kafka.secure.partition(":")
    return {
        "wrong password": (password, r"refuses the user 'flowkit-worker' by SCRAM-SHA-512.*kafka_user"),
        "unknown user": ({"kafka_user": "eve"}, r"refuses the user 'eve'"),
        "wrong CA": ({"kafka_ca_file": str(place.stranger.ca)}, r"not to be trusted.*kafka_ca_file"),
        "no CA": ({"kafka_ca_file": None}, r"not to be trusted.*kafka_ca_file"),
        "expired": ({**nobody, "kafka_bootstrap": place.kafka.stale}, r"certificate has expired; renew it"),
        "another host": ({"kafka_bootstrap": f"localhost:{port}"}, r"[Hh]ostname mismatch.*name that the certificate"),
        "no TLS of ours": (plain, r"speaks TLS, and we do not: set kafka_security_protocol"),
        "password without TLS": (
            {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_ca_file": None}, r"speaks TLS, and we do not"),
        "no TLS of theirs": ({"kafka_bootstrap": place.kafka.address}, r"speaks no TLS: set kafka_security_protocol"),
        "no login": (nobody, r"does it ask for a login"),
        "no certificate": ({**nobody, "kafka_bootstrap": place.kafka.mutual}, r"set kafka_cert_file and"),
        "a stranger's certificate": (
            {**nobody, "kafka_bootstrap": place.kafka.mutual, "kafka_cert_file": str(stranger.both)},
            r"client's certificate that it can trust"),
        "nobody there": ({"kafka_bootstrap": "127.0.0.1:1"}, r"is it running, is the address right"),
    }  # fmt: skip


async def is_refused(name: str, made: Callable[[float], tuple[Any, Any]], kind: type[FlowKitError],
                     words: str) -> tuple[FlowKitError, Any]:  # fmt: skip
    """What is made for a connect timeout is let in by nobody, and says so by `words`: with a longer timeout, where a
    halt of the machine took the first one up. The error, and the settings it was made with."""
    for connect_sec in (CONNECT_SEC, PATIENT_SEC):
        cfg, made_so = made(connect_sec)
        began = time.monotonic()
        with pytest.raises(kind) as raised:
            await made_so.start()
        assert time.monotonic() - began < connect_sec + 20.0, name
        if re.search(words, str(raised.value)):
            break
    assert re.search(words, str(raised.value)), (name, str(raised.value))
    return raised.value, cfg


async def test_kafka_lets_nobody_else_in_and_the_error_says_why_within_the_connect_timeout(place: Guarded) -> None:
    async def refused(name: str, changed: dict[str, Any], words: str) -> None:
        def made(connect_sec: float) -> tuple[Any, Any]:
            cfg = config(place, "flowkit-worker", connect_timeout_sec=connect_sec, **changed)
            return cfg, kafka_bus(cfg, seals=None)

        error, cfg = await is_refused(name, made, BusUnavailable, words)
        assert "canary" not in str(error) + repr(error.__cause__) + repr(cfg) + repr(kafka_security(cfg))

    async with asyncio.TaskGroup() as group:
        for name, (changed, words) in refusals(place).items():
            group.create_task(refused(name, changed, words))


async def test_the_name_of_a_broker_need_not_be_checked(place: Guarded) -> None:
    _, _, port = place.kafka.secure.partition(":")
    changed = {"kafka_bootstrap": f"localhost:{port}", "kafka_check_hostname": False}
    bus = kafka_bus(config(place, "flowkit-worker", **changed), seals=None)
    await bus.start()
    await bus.stop()


async def test_a_user_without_rights_is_told_that_it_is_the_rights(place: Guarded) -> None:
    bus = kafka_bus(config(place, "flowkit-app", topic_prefix="forbidden."), seals=None)
    await bus.start()
    try:
        with pytest.raises(FlowKitError, match=r"refuses to make the topic 'forbidden\.\w+\.v1'.*uthorization"):
            await bus.ensure_topics(Topics("forbidden.").specs())
    finally:
        await bus.stop()


# MongoDB


async def test_mongodb_lets_in_by_password_over_tls(place: Guarded) -> None:
    store = mongo_store(config(place).mongo_url, config(place))
    await store.start()
    try:
        assert (await store.describe())["kind"] == "mongo"
    finally:
        await store.stop()


async def test_mongodb_lets_nobody_else_in_and_the_error_says_why_within_the_connect_timeout(place: Guarded) -> None:
    password = {"mongo_password": "canary-wrong-4798", "mongo_password_file": None}
    plain = {"mongo_tls": False, "mongo_ca_file": None}
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "wrong password": (password, r"[Aa]uthentication failed.*mongo_user"),
        "wrong CA": ({"mongo_ca_file": str(place.stranger.ca)}, r"CERTIFICATE_VERIFY_FAILED.*mongo_ca_file"),
        "no TLS of ours": (plain, r"does it want TLS \(mongo_tls\)"),
    }

    async def refused(name: str, changed: dict[str, Any], words: str) -> None:
        def made(connect_sec: float) -> tuple[Any, Any]:
            cfg = config(place, connect_timeout_sec=connect_sec, **changed)
            return cfg, mongo_store(cfg.mongo_url, cfg)

        error, cfg = await is_refused(name, made, StoreUnavailable, words)
        assert "canary" not in str(error) + repr(cfg)

    async with asyncio.TaskGroup() as group:
        for name, (changed, words) in cases.items():
            group.create_task(refused(name, changed, words))


@pytest.mark.slow
async def test_the_doctor_says_why_it_was_not_let_in(place: Guarded) -> None:
    wrong = str(place.stranger.ca)
    cfg, here = config(place, kafka_ca_file=wrong, mongo_ca_file=wrong), Served(Report(()), WorkerConfig())
    found = [finding async for finding in of_mongo(cfg.mongo_url, cfg, here)]
    found += [finding async for finding in of_kafka(cfg.mongo_url, cfg)]
    assert [(finding.subject, finding.level) for finding in found] == [("mongo", "FAIL"), ("kafka", "FAIL")]
    assert "mongo_ca_file" in found[0].hint
    assert "kafka_ca_file" in found[1].message
    assert "canary" not in repr(found)


# A graph from end to end, by the command line


def environment(place: Guarded, user: str, *names: str) -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    return {
        **scrubbed(),
        **place.environment(user),
        "FLOWKIT_TOPIC_PREFIX": PREFIX,
        "FLOWKIT_MESSAGE_KEYS": ",".join(f"{name}={KEYS[name]}" for name in names),
        "PYTHONPATH": os.pathsep.join([root, str(place.folder)]),
    }


@contextmanager
def begun(place: Guarded, name: str, env: dict[str, str], *words: str) -> Iterator[Path]:
    log = place.folder / f"{name}.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "flowkit", *words], env=env, stdout=out, stderr=out, cwd=place.folder, text=True
        )
    try:
        yield log
    finally:
        process.terminate()
        assert process.wait(60) == 0, log.read_text()


def ran(place: Guarded, env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flowkit", *words]
    return subprocess.run(command, env=env, cwd=place.folder, text=True, capture_output=True, timeout=120, check=False)


def appears(log: Path, words: str, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while words not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def test_a_graph_runs_encrypted_and_signed_with_no_more_rights_than_the_files_in_deploy_give(place: Guarded) -> None:
    (place.folder / "guarded_app.py").write_text(HANDLERS)
    (place.folder / "graph.json").write_text(json.dumps(GRAPH))
    whole = ("coordinator/1", "plain/1", "app/1")
    coordinator = environment(place, "flowkit-coordinator", *whole)
    worker = environment(place, "flowkit-worker", "plain/1")
    app = environment(place, "flowkit-app", "app/1")

    with begun(place, "coordinator", coordinator, "coordinator") as log:
        appears(log, "coordinator c-")
        with begun(place, "worker", worker, "worker", "guarded_app") as other:
            appears(other, "worker plain/w-")
            run = ran(place, app, "run", "graph.json", "--db", config(place).mongo_url)
            assert run.returncode == 0, run.stderr + log.read_text() + other.read_text()
            assert json.loads(run.stdout)["last"] == "NO 19"

            doctor = ran(place, coordinator, "doctor", "--json")
            findings = {(f["subject"], f["level"]): f["message"] for f in json.loads(doctor.stdout)["findings"]}

    assert findings["transit", "ok"].startswith("Kafka: TLS, SCRAM-SHA-512 as 'flowkit-coordinator'")
    assert findings["messages", "ok"] == "signed with coordinator/1 of 3 keys; unsigned ones are refused"
    assert findings["signatures", "ok"] == "known for all of 1 workers"
    assert findings["dead letters", "ok"] == "none"
    said = run.stdout + run.stderr + doctor.stdout + doctor.stderr + log.read_text() + other.read_text()
    for secret in (*PASSWORDS.values(), *KEYS.values()):
        assert secret not in said


# Signatures on a real Kafka


async def test_messages_that_nobody_signed_are_buried_and_stop_nothing(place: Guarded) -> None:
    site = Site(place.kafka.address, PREFIX, "")
    topics = Topics(PREFIX, 8)

    async def shout(text: str, ctx: Context) -> str:
        ctx.log.info("shouting")
        return text.upper()

    common = config(place, message_keys=keys("coordinator/1", "plain/1"))
    db = common.mongo_url
    served = WorkerConfig(**place.settings("flowkit-worker"), topic_prefix=PREFIX, message_keys=keys("plain/1"))
    async with (
        Coordinator(db=db, cfg=common) as coordinator,
        Worker(db=db, cfg=served, handlers=[shout]) as worker,
        Stranger(site) as stranger,
    ):
        await until("the worker is known", lambda: coordinator.runtime.fleet.workers)
        hello = Hello("plain/w-evil", "i", ["shout"], 99, 1.0)
        forged = [
            Record(topics.facts, 3, encode_facts_batch("api", "", -1, [Knock("t", "default", "new")]), b"t"),
            Record(
                topics.fleet, partition_of("plain/w-evil", FLEET_PARTITIONS), encode_message(hello), b"plain/w-evil"
            ),
            Record(topics.work, partition_of(worker.worker_id, WORK_PARTITIONS), b"[]", worker.worker_id.encode()),
            Record(topics.logs, 3, encode_logs(worker.worker_id, "i", []), worker.worker_id.encode()),
        ]
        sealed = message_seals(config(place, message_keys=keys("other/1")))
        assert sealed is not None
        empty: Any = ("flowkit-seal", None)  # Kafka knows headers without a value
        both = [*forged, *map(sealed.seal, forged[:2]), replace(forged[0], headers=(empty,))]
        for record in both:
            await stranger.write(record.topic, record.partition, record.value, record.key, record.headers)

        ids = [await coordinator.create_task(graph=GRAPH) for _ in range(5)]
        results = await asyncio.gather(*(coordinator.wait_task(task_id, timeout=30) for task_id in ids))
        assert {result.status for result in results} == {"finished"}
        await until("all are buried", lambda: coordinator.telemetry.counts["DeadLettered"] == 6)
        await until("the worker buries its own", lambda: worker.telemetry.counts["DeadLettered"] == 1)
        assert "plain/w-evil" not in coordinator.runtime.fleet.workers
        assert coordinator.telemetry.counts["LoopFailed"] == worker.telemetry.counts["LoopFailed"] == 0

        async def all_seen() -> bool:
            await stranger.look()
            return len(stranger.dead) == 7

        await until("all dead letters are there", all_seen)
        assert topics.logs in {headers_of(letter)["topic"] for letter in stranger.dead}
        signed = [[line.message async for line in coordinator.logs(task_id, follow=True)] for task_id in ids]
        assert signed == [["shouting"] * len(GRAPH["nodes"])] * len(ids)
        reasons = {headers_of(letter)["reason"] for letter in stranger.dead}
        assert reasons == {
            "not signed",
            *(f"signed with a key that is not known here: {key!r}" for key in ("other/1", "")),
        }


def test_the_bus_takes_the_options_of_the_settings_and_no_others(place: Guarded) -> None:
    bus = KafkaBus("127.0.0.1:1", security=kafka_security(config(place)).options())
    assert "canary" not in repr(bus.__dict__)


async def test_the_rights_in_deploy_are_no_wider_than_the_roles(place: Guarded) -> None:
    """A worker that was taken over gives no orders, reads no facts, and changes no task's history."""
    topics = Topics(PREFIX, 8)
    common = config(place)
    async with Coordinator(db=common.mongo_url, cfg=common):
        pass  # it makes the topics and the indexes
    cfg = config(place, "flowkit-worker")
    bus = kafka_bus(cfg, seals=None)
    await bus.start()
    try:
        await bus.ensure_topics(topics.specs())
        orders = [Record(topic, 0, b"{}", b"k") for topic in (topics.work, topics.control, topics.events)]
        assert await bus.publish(orders) == [False] * 3
        assert await bus.publish([Record(topics.streams, 0, b"{}", b"k")]) == [True]
    finally:
        await bus.stop()
    store = mongo_store(cfg.mongo_url, cfg)
    await store.start()
    try:
        commit = Commit("t", 1, "c", "", 0.0, "evil", "{}")
        assert await store.insert_commits([commit]) == [Outcome.UNKNOWN]
        assert (
            await store.insert_request(Request("t", 1, "r", "cancel", "{}", 0, "default", "evil", 0.0))
            is Outcome.UNKNOWN
        )
        with pytest.raises(StoreUnavailable, match="not authorized"):
            await store.read_commits(["t"])
    finally:
        await store.stop()
