"""Makes the topics that are missing, and refuses those that are not as they should be."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiokafka.admin import NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from flowkit.errors import ConfigError
from flowkit.ports import TopicSpec

REPLICATION = 3
POLL_SEC = 0.05


async def ensure(admin: Any, topics: Mapping[str, TopicSpec], replication: int | None) -> None:
    """Raises ConfigError for a wrong partition count, and what aiokafka raises when the broker is away."""
    if not topics:
        return
    known = await _known(admin)
    _check(known, topics)

    if missing := {name: spec for name, spec in topics.items() if name not in known}:
        if replication is None:
            cluster = await admin.describe_cluster()
            replication = min(REPLICATION, len(cluster["brokers"]))
        answer = await admin.create_topics([_new(name, spec, replication) for name, spec in missing.items()])
        for name, code, *message in answer.topic_errors:
            error = for_code(code)
            if code != 0 and error is not TopicAlreadyExistsError:
                raise ConfigError(f"Kafka refuses to make the topic {name!r}: {message or error.__name__}")

    # Made is not yet usable: each partition needs its leader, known to the broker that we ask.
    while not _usable(known, topics):
        await asyncio.sleep(POLL_SEC)
        known = await _known(admin)
    _check(known, topics)


def _new(name: str, spec: TopicSpec, replication: int) -> NewTopic:
    configs: dict[str, str] = {}
    if spec.retention_sec is not None:
        retention = int(spec.retention_sec * 1000)
        # Only whole segments go; a segment under writing stays however old its first record is.
        segment = max(60_000, retention // 2)
        configs = {"retention.ms": str(retention), "segment.ms": str(segment), "cleanup.policy": "delete"}
    return NewTopic(name, spec.partitions, replication, topic_configs=configs)


async def _known(admin: Any) -> dict[str, list[Any]]:
    # All of them, not those in question: to ask for a missing topic makes some brokers create it.
    return {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics()}


def _check(known: Mapping[str, list[Any]], topics: Mapping[str, TopicSpec]) -> None:
    for name, spec in topics.items():
        count = len(known.get(name, ()))
        if count not in (0, spec.partitions):
            raise ConfigError(
                f"topic {name!r} has {count} partitions, not {spec.partitions}: "
                f"set that many in the configuration, or use another prefix"
            )


def _usable(known: Mapping[str, list[Any]], topics: Mapping[str, TopicSpec]) -> bool:
    return all(
        len(known.get(name, ())) == spec.partitions and all(partition["leader"] >= 0 for partition in known[name])
        for name, spec in topics.items()
    )
