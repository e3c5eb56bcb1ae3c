"""The tags on messages: only who holds the key makes one, and it is over all that anybody acts on."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.errors import ConfigError
from flowkit.ports import Record
from flowkit.wire.seals import HEADER, KeyRing, Seals, in_pool, may_speak_for, pool_of
from flowkit.wire.topics import Topics

TOPICS = Topics("flowkit.", 8)
SEALED = (TOPICS.facts, TOPICS.fleet, TOPICS.streams, TOPICS.logs)


def secret(name: str) -> str:
    return base64.b64encode(f"the key of {name} ".encode() * 4).decode()


def ring(*names: str) -> KeyRing:
    return KeyRing.read({name: secret(name) for name in names})


def seals(*names: str, require: bool = True) -> Seals:
    return Seals(ring(*names), TOPICS, require=require)


texts = st.text(max_size=12)
headers = st.lists(st.tuples(st.sampled_from(["flowkit-a", "flowkit-b", "traceparent"]), st.binary(max_size=8)))
records = st.builds(
    Record,
    topic=st.sampled_from(SEALED),
    partition=st.integers(0, 7),
    value=st.none() | st.binary(max_size=200),
    key=st.none() | st.binary(max_size=20),
    headers=headers.map(tuple),
)


@given(records)
def test_what_a_pool_seals_is_known_as_its_own_by_whoever_holds_the_key(record: Record) -> None:
    sealed = seals("plain/1").seal(record)
    seen = seals("coordinator/1", "plain/1", "fine/1").look(replace(sealed, offset=7))
    assert (seen.signer, seen.refused, seen.offset) == ("plain", "", 7)
    assert (seen.topic, seen.partition, seen.key, seen.value) == (
        record.topic, record.partition, record.key, record.value,
    )  # fmt: skip
    assert [header for header in seen.headers if header[0] != HEADER] == list(record.headers)


@given(records.filter(lambda record: record.value), st.data())
def test_any_flipped_bit_is_refused(record: Record, data: st.DataObject) -> None:
    sealed = seals("plain/1").seal(record)
    assert sealed.value is not None

    def flipped(whole: bytes) -> bytes:
        bit = data.draw(st.integers(0, 8 * len(whole) - 1))
        return bytes(byte ^ (1 << bit % 8 if place == bit // 8 else 0) for place, byte in enumerate(whole))

    changed = [replace(sealed, value=flipped(sealed.value))]
    if sealed.key:
        changed.append(replace(sealed, key=flipped(sealed.key)))
    for place, (name, value) in enumerate(sealed.headers):
        if name.startswith("flowkit-") and value:
            more = [*sealed.headers]
            more[place] = (name, flipped(value))
            changed.append(replace(sealed, headers=tuple(more)))
    for other in changed:
        for reader in (seals("plain/1"), seals("plain/1", require=False)):
            seen = reader.look(other)
            # A key's id that was changed is one that nobody knows: for those who need no signature, none.
            assert seen.refused or (not reader.require and not seen.signer)


@given(records, records)
def test_no_two_messages_have_one_tag(one: Record, two: Record) -> None:
    def acted_on(record: Record) -> object:
        own = [header for header in record.headers if header[0].startswith("flowkit-")]
        return record.topic, record.partition, record.key, record.value, own

    stamps = [seals("plain/1").seal(record).headers[-1] for record in (one, two)]
    assert (stamps[0] == stamps[1]) == (acted_on(one) == acted_on(two))


@given(records)
def test_a_tag_does_not_count_elsewhere(record: Record) -> None:
    sealed = seals("plain/1").seal(record)
    elsewhere = [
        replace(sealed, topic=SEALED[(SEALED.index(record.topic) + 1) % 3]),
        replace(sealed, topic=TOPICS.work),
        replace(sealed, partition=(record.partition + 1) % 8),
        replace(sealed, key=b"" if record.key is None else None),
        replace(sealed, value=b"" if record.value is None else None),
        replace(sealed, headers=(*sealed.headers, ("flowkit-more", b""))),
    ]
    for moved in elsewhere:
        assert "wrong" in seals("plain/1").look(moved).refused


@given(records, st.binary(max_size=100))
def test_any_bytes_for_a_tag_are_refused_with_a_reason(record: Record, stamp: bytes) -> None:
    forged = replace(record, headers=(*record.headers, (HEADER, stamp)))
    assert seals("plain/1").look(forged).refused
    twice = replace(record, headers=((HEADER, stamp), *seals("plain/1").seal(record).headers))
    assert seals("plain/1").look(twice).refused == "signed twice"


@given(records)
def test_headers_that_others_add_on_the_way_change_nothing(record: Record) -> None:
    sealed = seals("plain/1").seal(record)
    seen = seals("plain/1").look(replace(sealed, headers=(("traceparent", b"00-1"), *sealed.headers)))
    assert seen.signer == "plain"


def test_what_has_no_tag_or_an_unknown_one_is_refused_only_where_signatures_are_required() -> None:
    record = Record(TOPICS.facts, 1, b"[]", b"t")
    other = seals("other/1").seal(record)
    assert seals("plain/1").look(record).refused == "not signed"
    assert seals("plain/1").look(other).refused == "signed with a key that is not known here: 'other/1'"
    for one in (record, other):
        seen = seals("plain/1", require=False).look(one)
        assert (seen.signer, seen.refused) == ("", "")


def test_a_wrong_tag_of_a_known_key_is_refused_even_where_none_is_required() -> None:
    sealed = seals("plain/1").seal(Record(TOPICS.facts, 1, b"[]", b"t"))
    forged = replace(sealed, value=b"[1]")
    assert "wrong" in seals("plain/1", require=False).look(forged).refused


def test_work_is_sealed_for_the_pool_of_its_worker() -> None:
    coordinator = seals("coordinator/1", "plain/2", "plain/1", "fine/1")
    work = Record(TOPICS.work, 1, b"[]", b"plain/w-1")
    assert seals("plain/1", "plain/2").look(coordinator.seal(work)).signer == "plain"
    assert seals("fine/1").look(coordinator.seal(work)).refused
    unknown = Record(TOPICS.work, 1, b"[]", b"w-of-no-pool")
    assert coordinator.seal(unknown) is unknown


def test_topics_for_the_world_are_left_alone() -> None:
    for topic in (TOPICS.events, TOPICS.dead, TOPICS.control):
        record = Record(topic, 0, b"{}")
        assert seals("plain/1").seal(record) is record
        assert seals("plain/1").look(record) is record


def test_several_keys_of_a_pool_count_at_once_so_that_they_can_be_exchanged_one_process_after_the_other() -> None:
    record = Record(TOPICS.facts, 1, b"[]", b"t")
    old, adding, exchanged, new = (
        seals("plain/old"), seals("plain/old", "plain/new"), seals("plain/new", "plain/old"), seals("plain/new"),
    )  # fmt: skip
    for here, there in ((old, adding), (adding, exchanged), (exchanged, new)):
        assert here.look(there.seal(record)).signer == "plain" or (here, there) == (exchanged, new)
        assert there.look(here.seal(record)).signer == "plain"
    assert exchanged.look(new.seal(record)).signer == "plain"


def test_sealing_again_replaces_the_tag() -> None:
    record = Record(TOPICS.facts, 1, b"[]", b"t")
    again = seals("fine/1").seal(seals("plain/1").seal(record))
    assert seals("fine/1").look(again).signer == "fine"


def test_names_tell_the_pool() -> None:
    assert (pool_of("plain/w-1"), pool_of("w-1"), pool_of("plain/a/b")) == ("plain", "", "plain")
    assert (in_pool("w-1", "plain"), in_pool("plain/w-1", "plain"), in_pool("w-1", "")) == (
        "plain/w-1", "plain/w-1", "w-1",
    )  # fmt: skip
    assert in_pool("fine/w-1", "plain") == "plain/fine/w-1"
    assert may_speak_for("plain", "plain/w-1")
    assert not may_speak_for("plain", "fine/w-1")
    assert not may_speak_for("plain", "w-1")
    assert may_speak_for("coordinator", "fine/w-1")


@pytest.mark.parametrize(
    ("key_id", "given", "words"),
    [
        ("plain", secret("x"), "POOL/NAME"),
        ("plain/a b", secret("x"), "POOL/NAME"),
        ("a/b/c", secret("x"), "POOL/NAME"),
        ("plain/1", "not base64!", "is not base64"),
        ("plain/1", base64.b64encode(b"canary").decode(), "has 6 bytes, and needs 32"),
    ],
)
def test_a_key_that_is_none_is_refused_and_not_shown(key_id: str, given: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as raised:
        KeyRing.read({key_id: given})
    assert given not in str(raised.value)


def test_a_ring_shows_the_names_of_its_keys_alone() -> None:
    assert repr(ring("plain/1", "fine/1")) == "KeyRing(plain/1, fine/1)"
    assert "the key of" not in repr(ring("plain/1").own)
