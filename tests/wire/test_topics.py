"""Topic names, and the partitions that keys choose: for ever, since tasks stay where they were put."""

from __future__ import annotations

from collections import Counter

from flowkit.wire.topics import SHORT_RETENTION_SEC, Topics, partition_of


def test_partitions_never_change() -> None:
    assert [partition_of(key, 8) for key in ("", "a", "task-1", "ä", "\ud800")] == [0, 3, 7, 3, 0]


def test_keys_spread_over_the_partitions() -> None:
    counts = Counter(partition_of(f"0190-{n:06d}", 8) for n in range(8000))

    assert set(counts) == set(range(8))
    assert min(counts.values()) > 800


def test_every_topic_is_created_under_the_prefix() -> None:
    topics = Topics("acme.", 12)

    assert set(topics.specs()) == {
        f"acme.{name}.v1" for name in ("facts", "work", "fleet", "control", "events", "streams", "logs", "dead")
    }
    assert topics.specs()[topics.facts].partitions == 12


def test_what_is_only_of_the_moment_is_kept_for_minutes() -> None:
    topics = Topics()
    short = {name for name, spec in topics.specs().items() if spec.retention_sec == SHORT_RETENTION_SEC}

    assert short == {topics.work, topics.fleet, topics.control, topics.streams}
