"""What the doctor looks at where tasks live in MongoDB and travel over Kafka."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from flowkit.cli.checks import Finding, contents_of, fail, ok, warn
from flowkit.cli.checks_policies import Served, of_graphs
from flowkit.cli.checks_transit import of_kafka_road, of_mongo_road, of_seals, of_signers
from flowkit.cli.fleet import roles_of, roll_call
from flowkit.cli.times import show_seconds
from flowkit.config import CoordinatorConfig
from flowkit.connections import kafka_bus, kafka_clients, message_seals, mongo_handle, mongo_store
from flowkit.coordinator.lease_times import dangers
from flowkit.errors import ConfigError, FlowKitError
from flowkit.wire.messages import Hello
from flowkit.wire.topics import Topics

ANSWER_SEC = 5.0
SKEW_SEC, WRONG_CLOCK_SEC = 1.0, 60.0
OVERDUE_SEC = 10.0
PINGS = 5
TRIES, PAUSE_SEC = 8, 0.5


# -------------------------------------------------------------------------------------------------- MongoDB


async def of_mongo(db: str, cfg: CoordinatorConfig, here: Served) -> AsyncIterator[Finding]:
    """The server, its clock, whether tasks move, and what flows say of their code."""
    try:
        from flowkit.adapters.mongo_security import USUAL, what_to_do

        handle = mongo_handle(db, cfg)
    except ConfigError as error:
        yield fail("mongo", str(error))
        return
    import pymongo
    from pymongo.errors import PyMongoError

    try:
        with pymongo.timeout(ANSWER_SEC):
            build = await handle.database.command("buildInfo")
            hello = await handle.database.command("hello")
            yield ok("mongo", f"MongoDB {build['version']} at {handle.address}")
            yield _of_topology(hello)
            yield of_mongo_road(handle.encrypted, handle.servers)
            yield clock(*await _skew(handle.database))
            names = await handle.database.list_collection_names()
    except (PyMongoError, OSError) as error:
        said = re.split(r" \(configured timeouts|, Timeout:", str(error))[0]
        hint = "start it, or name it: --db mongodb://HOST/flowkit (a file needs no server: --db flow.db)"
        if (known := what_to_do(error)) != USUAL:
            hint = known
        yield fail("mongo", f"{handle.address}: {said}", hint)
        return
    finally:
        await handle.close()
    if "tasks" in names:
        async for finding in _of_tasks(db, cfg, here):
            yield finding
    else:
        yield ok("tasks", "there are none yet")


def _of_topology(hello: Mapping[str, Any]) -> Finding:
    name = hello.get("setName")
    if name is None:
        return warn("mongo", "a standalone server: good for trials", "a replica set outlives the loss of a server")
    members = len(hello.get("hosts", ()))
    said = f"replica set {name!r} of {members}, primary {hello.get('primary', 'unknown')}"
    if members < 3:
        return warn("mongo", said, "three members outlive the loss of one")
    return ok("mongo", said)


async def _skew(database: Any) -> tuple[float, float]:
    """How far the server's clock is ahead of ours, and how wrong that may be: from the fastest of some answers."""
    best = (0.0, float("inf"))
    for _ in range(PINGS):
        before = time.time()
        there = (await database.command("hello"))["localTime"].replace(tzinfo=None)
        after = time.time()
        half = (after - before) / 2
        if half < best[1]:
            best = (_epoch(there) - (before + half), half)
    return best


def _epoch(utc: Any) -> float:
    from datetime import UTC

    return float(utc.replace(tzinfo=UTC).timestamp())


def clock(skew: float, uncertain: float) -> Finding:
    """What a difference between this machine's clock and MongoDB's means: durable timers are wall-clock times."""
    said = f"this machine's is {show_seconds(abs(skew))} {'behind' if skew > 0 else 'ahead of'} MongoDB's"
    said += f" (give or take {show_seconds(uncertain)})"
    if abs(skew) - uncertain > WRONG_CLOCK_SEC:
        return fail("clock", said, "timers fire by so much late or early: synchronise the clocks (NTP)")
    if abs(skew) - uncertain > SKEW_SEC:
        return warn("clock", said, "timers fire by so much late or early: synchronise the clocks (NTP)")
    return ok("clock", said)


async def _of_tasks(db: str, cfg: CoordinatorConfig, here: Served) -> AsyncIterator[Finding]:
    store = mongo_store(db, cfg, start_timeout=ANSWER_SEC)
    try:
        await store.start()
        about = await store.describe()
        now = time.time()
        late = await store.due_heads(range(cfg.facts_partitions), now - OVERDUE_SEC, limit=1000)
        said = contents_of(about)
        if late:
            longest = show_seconds(now - min(head.next_wake or now for head in late))
            hint = "is a coordinator running, and does it reach both services? flowkit coordinator"
            yield warn("tasks", f"{said}; {len(late)} overdue, the longest for {longest}", hint)
        else:
            yield ok("tasks", f"{said}; none is overdue")
        for finding in await of_graphs(store, here):
            yield finding
    except FlowKitError as error:
        yield fail("tasks", str(error))
    finally:
        await store.stop()


# -------------------------------------------------------------------------------------------------- Kafka


async def of_kafka(db: str, cfg: CoordinatorConfig) -> AsyncIterator[Finding]:
    """The brokers, the topics, the coordinators' group, and the workers that answer a roll call."""
    try:
        from flowkit.adapters.kafka_client import FAILURES

        clients = kafka_clients(cfg, "flowkit-doctor", request_sec=ANSWER_SEC)
        seals = message_seals(cfg)
    except ConfigError as error:
        yield fail("kafka", str(error))
        return
    topics = Topics(cfg.topic_prefix, cfg.facts_partitions)
    try:
        async with clients.admin(ANSWER_SEC * 2) as admin:
            cluster = await admin.describe_cluster()
            brokers = [f"{broker['host']}:{broker['port']}" for broker in cluster["brokers"]]
            yield ok("kafka", f"{len(brokers)} broker{'s' * (len(brokers) != 1)}: {', '.join(brokers)}")
            yield of_kafka_road(cfg)
            yield of_seals(seals)
            known = {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics()}
            found = list(of_topics(topics, known))
            for finding in found:
                yield finding
            if topics.facts not in known:
                yield warn("coordinator", "none has been here yet", "flowkit coordinator")
                return
            yield await _of_group(admin, cfg.consumer_group)
    except FAILURES as error:
        said = str(error) or f"no answer within {ANSWER_SEC * 2:g} s"
        if (refused := await clients.why_refused()) is not None:
            said = refused.why
        yield fail("kafka", f"{cfg.kafka_bootstrap}: {said}", "start it, or name it: --kafka HOST:PORT")
        return
    if all(finding.level == "ok" for finding in found):
        async for finding in _of_traffic(clients, topics, cfg):
            yield finding


def of_topics(topics: Topics, known: Mapping[str, list[Any]]) -> list[Finding]:
    """Whether each topic is there, with the partitions that the settings say."""
    found, missing = [], []
    for name, spec in topics.specs().items():
        count = len(known.get(name, ()))
        if count == 0:
            missing.append(name)
        elif count != spec.partitions:
            mend = "set FLOWKIT_FACTS_PARTITIONS to that" if name == topics.facts else "delete the topic"
            hint = f"{mend}, or use another prefix (FLOWKIT_TOPIC_PREFIX)"
            found.append(fail("topics", f"{name} has {count} partitions, not {spec.partitions}", hint))
    if missing:
        found.append(warn("topics", f"not there: {', '.join(missing)}", "the first coordinator or worker makes them"))
    return found or [ok("topics", ", ".join(f"{name} ({spec.partitions})" for name, spec in topics.specs().items()))]


async def _of_group(admin: Any, group: str) -> Finding:
    from aiokafka.errors import KafkaError

    for _ in range(TRIES):
        try:
            answers = await admin.describe_consumer_groups([group])
            break
        except KafkaError as error:  # a new cluster makes the groups' topic when it is first asked
            if not error.retriable:
                raise
        await asyncio.sleep(PAUSE_SEC)
    else:
        return warn("coordinator", "Kafka does not tell of consumer groups yet", "ask again in a moment")
    members = sum(len(described[5]) for answer in answers for described in answer.groups)
    if not members:
        return warn("coordinator", f"none is in the group {group!r}", "flowkit coordinator")
    return ok("coordinator", f"{members} in the group {group!r}")


async def _of_traffic(clients: Any, topics: Topics, cfg: CoordinatorConfig) -> AsyncIterator[Finding]:
    seals = message_seals(cfg)
    bus = kafka_bus(cfg, seals=seals, client_id="flowkit-doctor", start_timeout=ANSWER_SEC)
    try:
        await bus.start()
        await bus.ensure_topics(topics.specs())  # they are there: nothing is made
        began = time.monotonic()
        unsigned: set[str] = set()
        workers = await roll_call(bus, topics, unsigned=unsigned)
        spent = show_seconds(time.monotonic() - began)
        if workers:
            roles = ", ".join(roles_of(workers.values())) or "nothing: they drain"
            yield ok("workers", f"{len(workers)} answered the roll call: they serve {roles}")
            for said in workers.values():
                for danger in dangers(said, cfg.lease_ttl_sec, cfg.heartbeat_sec) if isinstance(said, Hello) else ():
                    yield warn("leases", f"{danger.code}: {danger.message}")
            if seals is not None:
                yield of_signers(workers, unsigned)
        else:
            yield warn("workers", f"none answered the roll call within {spent}", "flowkit worker MODULE")
        yield await _of_dead_letters(clients, topics)
    except FlowKitError as error:
        yield fail("workers", str(error))
    finally:
        await bus.stop()


async def _of_dead_letters(clients: Any, topics: Topics) -> Finding:
    from aiokafka import TopicPartition

    from flowkit.adapters.kafka_client import stop_consumer

    consumer = clients.consumer()
    where = [TopicPartition(topics.dead, 0)]
    try:
        async with asyncio.timeout(ANSWER_SEC):
            await consumer.start()
            first, end = await consumer.beginning_offsets(where), await consumer.end_offsets(where)
    finally:
        await stop_consumer(consumer)
    count = sum(end[place] - first[place] for place in where)
    if count:
        return warn(
            "dead letters", f"{count} messages in {topics.dead}", "nobody could read them: their headers say why"
        )
    return ok("dead letters", "none")
