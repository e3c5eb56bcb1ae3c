"""The messages of every topic: round trips, and what becomes of poison."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.core import facts as f
from flowkit.core import reports as r
from flowkit.core.payload import Artifact, Payload
from flowkit.errors import Corrupt, UnknownFact
from flowkit.ports import Commit
from flowkit.wire.codec import dumps, loads
from flowkit.wire.events import decode_event, encode_event, event_headers
from flowkit.wire.facts import body_of, encode_facts, fact_row
from flowkit.wire.messages import (
    VERSION,
    Beacon,
    FactsBatch,
    Goodbye,
    Heartbeat,
    Held,
    Hello,
    Job,
    Knock,
    Mail,
    SayHello,
    Stop,
    Told,
    Unreadable,
    WorkBatch,
    decode_control,
    decode_facts_batch,
    decode_fleet,
    decode_work,
    encode_facts_batch,
    encode_message,
    encode_work,
    pack_artifacts,
    unpack_artifacts,
)
from flowkit.wire.topics import MAX_MESSAGE_BYTES
from tests.thorough import at_night
from tests.wire.values import LETTERS, NASTY, REPORTS, junk, texts, values

BIG = Artifact("ref", 9, "json", ("a", 0))
JOB = Job("t", "acme", "ada", 3, "n", "role", 1, "tok", 0, 7.5, {"x": 1}, [], {"p": 1}, 5.0, 2.0, 60.0)
STOP = Stop("tok", "t", "n", 1, "why", 30.0)
HELD = Held("tok", "t", "acme", 3, "n", 1)
FLEET = [
    Hello("w", "i", ["a", "b"], 4, 12.5, {"zone": "eu"}, "0.1", True),
    Heartbeat("w", "i", ["a"], 4, 12.5, [HELD], {"zone": "eu"}, 0.5, 100.0, True),
    Goodbye("w", "i"),
    Beacon("c", "c.1"),
]
COMMIT = Commit("t", 2, "c.2", "c.1", 1700000000.5, "c", body_of(encode_facts([f.RetryDue("a")])))

DECODERS: dict[str, Callable[[bytes | None], Any]] = {
    "facts": decode_facts_batch,
    "work": decode_work,
    "fleet": decode_fleet,
    "control": decode_control,
    "event": decode_event,
}
GOOD: dict[str, Any] = {
    "facts": [1, "w", "i", 2, [["t", "acme", ["started", "a", 1, "tok"]], ["t", "acme", ["knock", "new"]]]],
    "work": [1, "w", "i", "c", [["stop", "tok", "t", "n", 1, "why", 30.0]]],
    "fleet": {"type": "goodbye", "worker": "w", "incarnation": "i"},
    "control": {"type": "say_hello", "coordinator": "c"},
    "event": {
        "task_id": "t", "tenant": "acme", "seq": 1, "at": 1.5, "commit_id": "c.1", "status": "running", "facts": [],
    },
}  # fmt: skip


# Facts.


def test_a_batch_of_facts_comes_back() -> None:
    items = [Told("t1", "acme", r.Succeeded("a", 1, "tok", Payload([1]))), Knock("t2", "acme", "request")]

    assert decode_facts_batch(encode_facts_batch("w", "i", 3, items)) == FactsBatch("w", "i", 3, items)


def test_any_batch_of_facts_comes_back() -> None:
    ids = st.text(max_size=6)  # those of tasks and tenants are real characters
    told = st.builds(Told, ids, ids, st.one_of(*REPORTS.values()))
    mail = st.builds(Mail, ids, ids, st.one_of(*LETTERS.values()))
    knocks = st.builds(Knock, ids, ids, texts)

    @settings(max_examples=at_night(200))
    @given(texts, texts, st.integers(-1, 2**40), st.lists(told | mail | knocks, max_size=3))
    def check(sender: str, incarnation: str, held: int, items: list[Told | Mail | Knock]) -> None:
        data = encode_facts_batch(sender, incarnation, held, items)
        if len(data) <= MAX_MESSAGE_BYTES:
            assert decode_facts_batch(data) == FactsBatch(sender, incarnation, held, items)

    check()


@pytest.mark.parametrize("value", NASTY, ids=lambda value: ascii(value)[:20])
def test_no_output_of_a_user_spoils_a_batch(value: Any) -> None:
    items = [Told("t", "acme", r.Succeeded(name, 1, "tok", Payload(value))) for name in "ab"]

    assert decode_facts_batch(encode_facts_batch("w", "i", 0, items)).items == items


BAD_ITEMS: list[Any] = [
    None, 5, "abc", {"a": 1, "b": 2, "c": 3}, [], ["t", "acme"], ["t", "acme", ["started", "a", 1, "tok"], 1],
    ["\ud800", "acme", ["started", "a", 1, "tok"]], ["t", "\ud800", ["knock", "new"]],
    [5, "acme", ["started", "a", 1, "tok"]], ["t", None, ["started", "a", 1, "tok"]], ["t", "acme", None],
    ["t", "acme", []], ["t", "acme", "started"], ["t", "acme", ["started", "a", "1", "tok"]],
    ["t", "acme", ["succeeded", "a", 1, "tok", []]], ["t", "acme", ["knock"]], ["t", "acme", ["knock", 5]],
    ["t", "acme", ["succeeded", "a", 1, "tok", [None, ["r"]]]], ["t", "acme", [5]],
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_ITEMS, ids=lambda item: ascii(item)[:40])
def test_one_unreadable_item_never_spoils_the_others(bad: Any) -> None:
    good = GOOD["facts"][4]

    batch = decode_facts_batch(dumps([1, "w", "i", 2, [good[0], bad, good[1]]]))

    first, second, third = batch.items
    assert first == Told("t", "acme", r.Started("a", 1, "tok"))
    assert third == Knock("t", "acme", "new")
    assert isinstance(second, Unreadable)
    assert loads(second.text) == bad
    assert second.why
    assert not second.newer


def test_an_item_of_a_newer_version_says_so_and_whose_it_is() -> None:
    (item,) = decode_facts_batch(dumps([1, "w", "i", 2, [["t", "acme", ["married", "a"]]]])).items

    assert isinstance(item, Unreadable)
    assert (item.newer, item.task_id) == (True, "t")


def test_an_unreadable_item_may_hold_anything() -> None:
    bad = ["t", "acme", ["started", "\ud800", 10**4000, {"x": [None]}]]

    (item,) = decode_facts_batch(dumps([1, "w", "i", 2, [bad]])).items

    assert isinstance(item, Unreadable)
    assert loads(item.text) == bad


def test_an_output_that_is_nested_beyond_reason_is_refused() -> None:
    deep: Any = 1
    for _ in range(300):
        deep = [deep]

    with pytest.raises(Corrupt, match="nested"):
        decode_facts_batch(
            encode_facts_batch("w", "i", 0, [Told("t", "acme", r.Succeeded("a", 1, "k", Payload(deep)))])
        )


# Work.


def test_a_batch_of_work_comes_back() -> None:
    items = [JOB, STOP, msgspec.structs.replace(JOB, inputs=None, params=None, body_ref="ref")]

    assert decode_work(encode_work("w", "i", "c", items)) == WorkBatch("w", "i", "c", items)


@pytest.mark.parametrize("value", NASTY, ids=lambda value: ascii(value)[:20])
def test_no_input_of_a_user_spoils_a_dispatch(value: Any) -> None:
    job = msgspec.structs.replace(JOB, inputs=value, params={"p": value})

    assert decode_work(encode_work("w", "i", "c", [job, STOP])).items == [job, STOP]


def test_any_job_comes_back() -> None:
    jobs = st.builds(Job, texts, texts, texts, st.integers(0, 9), texts, texts, st.integers(0, 2**40), texts,
                     st.integers(0, 9), st.floats(0, 1e9), inputs=values, params=values)  # fmt: skip

    @settings(max_examples=at_night(100))
    @given(st.lists(jobs, max_size=2))
    def check(items: list[Job]) -> None:
        data = encode_work("w", "i", "c", items)
        if len(data) <= MAX_MESSAGE_BYTES:
            assert decode_work(data).items == items

    check()


@pytest.mark.parametrize("bad", [None, 5, [], ["dance", 1], ["stop", "tok"], ["stop", 1, "t", "n", 1, "why", 30.0], {}])
def test_one_unreadable_job_never_spoils_the_others(bad: Any) -> None:
    batch = decode_work(dumps([1, "w", "i", "c", [JOB, bad, STOP]]))

    assert batch.items == [JOB, STOP]
    assert [loads(item.text) for item in batch.unreadable] == [bad]


def test_the_idempotency_key_is_the_same_for_every_attempt_of_a_generation() -> None:
    again = msgspec.structs.replace(JOB, attempt=2, token="other")
    later = msgspec.structs.replace(JOB, generation=1)

    assert JOB.idempotency_key == again.idempotency_key == "t:0:n"
    assert later.idempotency_key == "t:1:n"


def test_artifacts_in_inputs_travel_with_their_places() -> None:
    found: list[tuple[tuple[str | int, ...], Artifact]] = [((), BIG), (("a", 0, "b"), BIG)]

    assert unpack_artifacts(loads(dumps(pack_artifacts(found)))) == found


@pytest.mark.parametrize("rows", [None, 5, "ab", [1], [[]], [["a"]], [[[], None]], [[[1.5], ["r", 1, "json", []]]],
                                  [["ab", ["r", 1, "json", []]]]])  # fmt: skip
def test_artifacts_that_are_none_are_corrupt(rows: Any) -> None:
    with pytest.raises(Corrupt):
        unpack_artifacts(rows)


# Fleet and control.


@pytest.mark.parametrize("message", FLEET, ids=lambda message: type(message).__name__)
def test_every_message_of_the_fleet_comes_back(message: Any) -> None:
    assert decode_fleet(encode_message(message)) == message


def test_control_comes_back() -> None:
    assert decode_control(encode_message(SayHello("c"))) == SayHello("c")


def test_a_message_of_the_fleet_says_its_type_by_name() -> None:
    assert json.loads(encode_message(Goodbye("w", "i"))) == GOOD["fleet"]


def test_fields_of_a_newer_worker_are_passed_over() -> None:
    assert decode_fleet(dumps(GOOD["fleet"] | {"mood": "good"})) == Goodbye("w", "i")


def test_a_heartbeat_of_an_older_worker_has_defaults() -> None:
    beat = {"type": "heartbeat", "worker": "w", "incarnation": "i", "roles": [], "slots": 1, "mono": 2}

    assert decode_fleet(dumps(beat)) == Heartbeat("w", "i", [], 1, 2.0)


def test_control_is_no_message_of_the_fleet() -> None:
    with pytest.raises(Corrupt):
        decode_fleet(encode_message(SayHello("c")))


# Events.


def test_an_event_tells_the_world_what_a_commit_says() -> None:
    event = decode_event(encode_event(COMMIT, "acme", "running"))

    assert (event.task_id, event.tenant, event.seq, event.at) == ("t", "acme", 2, 1700000000.5)
    assert (event.commit_id, event.status) == ("c.2", "running")
    assert event.facts is not None
    assert [fact_row(row) for row in event.facts] == [f.RetryDue("a")]


@pytest.mark.parametrize("value", NASTY, ids=lambda value: ascii(value)[:20])
def test_no_output_of_a_user_spoils_an_event(value: Any) -> None:
    fact = f.AttemptSucceeded("a", 1, "tok", Payload(value))
    commit = Commit("t", 1, "c.1", "", 1.0, "c", body_of(encode_facts([fact])))

    event = decode_event(encode_event(commit, "acme", "running"))

    assert event.facts is not None
    assert fact_row(event.facts[0]) == fact


@pytest.mark.parametrize("text", ["x" * 70_000, "ä" * 40_000, "\x00" * 20_000])
def test_an_event_too_large_to_travel_leaves_its_facts_at_home(text: str) -> None:
    fact = f.AttemptSucceeded("a", 1, "tok", Payload(text))
    commit = Commit("t", 1, "c.1", "", 1.0, "c", body_of(encode_facts([fact])))

    data = encode_event(commit, "acme", "running")

    assert len(data) < 2048
    assert decode_event(data).facts is None


def test_event_headers_are_those_of_cloudevents() -> None:
    headers = dict(event_headers(COMMIT))

    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_id"] == b"t:2"
    assert headers["ce_type"] == b"flowkit.task.committed.v1"
    assert headers["ce_subject"] == b"t"
    assert headers["ce_time"] == b"2023-11-14T22:13:20.500000Z"
    assert headers["content-type"] == b"application/json"


def test_the_time_of_an_event_is_rounded_to_microseconds_across_a_second() -> None:
    headers = dict(event_headers(Commit("t", 1, "c.1", "", 1700000000.9999997, "c", "[]")))

    assert headers["ce_time"] == b"2023-11-14T22:13:21.000000Z"


# Poison, on every topic.

POISON: dict[str, bytes | None] = {
    "none": None,
    "nothing": b"",
    "70 KB": b'"' + b"x" * 70_000 + b'"',
    "depth 1,000": b"[" * 1000 + b"]" * 1000,
    "depth 30,000": b"[" * 30_000 + b"]" * 30_000,
    "an endless object": b'{"a":' * 10_000,
    "bad UTF-8": b'[1,"\xff","i",0,[]]',
    "another encoding": dumps(GOOD["facts"]).decode().encode("utf-16"),
    "null": b"null",
    "a number": b"5",
    "a text": b'"text"',
    "an empty list": b"[]",
    "an empty object": b"{}",
    "not JSON": b"hello",
    "half of it": dumps(GOOD["facts"])[:-5],
    "NaN": b"[NaN]",
    "a version that is none": b'[true,"w","i",0,[]]',
    "version nought": b'[0,"w","i",0,[]]',
    "a version in words": b'["1","w","i",0,[]]',
}


@pytest.mark.parametrize("topic", DECODERS)
@pytest.mark.parametrize("data", POISON.values(), ids=POISON.keys())
def test_poison_is_corrupt(topic: str, data: bytes | None) -> None:
    with pytest.raises(Corrupt):
        DECODERS[topic](data)


@pytest.mark.parametrize("topic", DECODERS)
def test_what_is_tried_here_is_good_before_it_is_spoilt(topic: str) -> None:
    DECODERS[topic](dumps(GOOD[topic]))


@pytest.mark.parametrize("topic", ["facts", "work"])
def test_an_envelope_of_a_newer_version_is_unknown(topic: str) -> None:
    for newer in ([VERSION + 1, *GOOD[topic][1:]], [VERSION + 1, {"all": "new"}]):
        with pytest.raises(UnknownFact, match="version 2"):
            DECODERS[topic](dumps(newer))


@pytest.mark.parametrize("topic", ["facts", "work"])
def test_an_envelope_has_exactly_its_parts(topic: str) -> None:
    for wrong in (GOOD[topic][:-1], [*GOOD[topic], 1]):
        with pytest.raises(Corrupt):
            DECODERS[topic](dumps(wrong))


WRONG = [None, True, 1.5, "x", -1, [], {}, [None], {"a": 1}]


@pytest.mark.parametrize("topic", DECODERS)
def test_a_wrong_type_in_any_place_of_a_message_is_corrupt(topic: str) -> None:
    good = GOOD[topic]
    for place in good if isinstance(good, dict) else range(len(good)):
        for wrong in WRONG:
            if type(wrong) is type(good[place]) or (topic, place, wrong) == ("event", "facts", None):
                continue
            if isinstance(good[place], float) and type(wrong) is int:
                continue
            spoilt = dict(good) if isinstance(good, dict) else list(good)
            spoilt[place] = wrong
            with pytest.raises(Corrupt):
                DECODERS[topic](dumps(spoilt))


@pytest.mark.parametrize("topic", DECODERS)
def test_any_message_is_read_or_refused_and_nothing_else(topic: str) -> None:
    good = GOOD[topic]

    @settings(max_examples=at_night(200))
    @given(st.data())
    def check(data: st.DataObject) -> None:
        spoilt = json.loads(json.dumps(good))
        for _ in range(data.draw(st.integers(1, 3))):
            spoil(data.draw, spoilt)
        text = dumps(spoilt)
        if data.draw(st.booleans()):
            at = data.draw(st.integers(0, len(text)))
            text = text[:at] + data.draw(st.binary(max_size=2)) + text[at + 1 :]
        with suppress(Corrupt, UnknownFact):
            DECODERS[topic](text)

    check()


def spoil(draw: Callable[[Any], Any], whole: Any) -> None:
    part = whole
    while True:
        keys = list(part) if isinstance(part, dict) else list(range(len(part)))
        if not keys:
            return
        key = draw(st.sampled_from(keys))
        if isinstance(part[key], dict | list) and part[key] and draw(st.booleans()):
            part = part[key]
            continue
        if draw(st.integers(0, 3)):
            part[key] = draw(junk)
        else:
            del part[key]
        return
