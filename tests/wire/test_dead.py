"""A dead letter is the message as it was found, and always one that a bus can carry."""

from __future__ import annotations

import pytest

from flowkit.adapters.limits import check_record
from flowkit.ports import Record
from flowkit.wire.dead import dead_letter
from flowkit.wire.topics import Topics

TOPICS = Topics("p.")


def test_it_is_the_message_as_it_was_found_and_why() -> None:
    found = Record("p.facts.v1", 3, b"\xff", b"k", (("h", b"1"),), offset=17)

    letter = dead_letter(TOPICS, found, "no JSON", "t1")

    assert (letter.topic, letter.partition, letter.value, letter.key) == ("p.dead.v1", 0, b"\xff", b"k")
    assert dict(letter.headers) == {
        "reason": b"no JSON", "topic": b"p.facts.v1", "partition": b"3", "offset": b"17", "task_id": b"t1",
    }  # fmt: skip


def test_nothing_stays_nothing() -> None:
    letter = dead_letter(TOPICS, Record("p.facts.v1", 0, None, None), "empty")

    assert (letter.value, letter.key) == (None, None)


@pytest.mark.parametrize("size", [64 * 1024, 900 * 1024, 1024 * 1024, 8 * 1024 * 1024])
def test_a_monster_loses_its_tail_and_can_be_carried(size: int) -> None:
    monster = Record("p.facts.v1", 0, b"v" * size, b"k" * size, (("h", b"h" * size),))

    letter = dead_letter(TOPICS, monster, "r\u20ac" * size, "t\ud800" * size)

    check_record(letter, 1)
    assert letter.value is not None and letter.value[:1] == b"v"


def test_an_honest_message_loses_nothing() -> None:
    value, key = b"v" * 70_000, b"k" * 1_000

    letter = dead_letter(TOPICS, Record("p.facts.v1", 0, value, key), "too long")

    assert (letter.value, letter.key) == (value, key)
