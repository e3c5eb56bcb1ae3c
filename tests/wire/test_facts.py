"""Facts and reports as rows: every one comes back as it was, and a wrong one is `Corrupt` or `UnknownFact`."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.core import facts as f
from flowkit.core import permits as p
from flowkit.core import reports as r
from flowkit.core.payload import Artifact, Payload
from flowkit.errors import Corrupt, UnknownFact
from flowkit.wire.codec import dumps, loads
from flowkit.wire.facts import (
    body_of,
    decode_facts,
    decode_report,
    encode_facts,
    fact_row,
    read_artifact,
    read_payload,
    row_of,
    write_artifact,
    write_payload,
)
from tests.thorough import at_night
from tests.wire.values import FACTS, LETTERS, NASTY, REPORTS, junk

ROWS = {
    "created": ["created", ["x"]],
    "leased": ["leased", "a", 1, "tok", "w", "i", 7.5, ["limit:x"]],
    "started": ["started", "a", 1, "tok"],
    "succeeded": ["succeeded", "a", 1, "tok", [{"x": 1}], ["b"], 0.5, {"verdict": "finished"}],
    "failed": ["failed", "a", 1, "tok", {"code": "x"}, 12.5, "Rare", 0.5, {"verdict": "oom"}],
    "lost": ["lost", "a", 1, "tok", "expired", 12.5, True, {"code": "worker_lost"}, {"verdict": "cancelled"}],
    "retry_due": ["retry_due", "a"],
    "node_failed": ["node_failed", "a", {"code": "x"}],
    "skipped": ["skipped", "a", "not_taken", False, "b"],
    "node_cancelling": ["node_cancelling", "a", "why", 12.5, False],
    "node_cancelled": ["node_cancelled", "a", "why", True, {"verdict": "cancelled"}],
    "request": ["request", 1, "id", "pause", True, "", "ada"],
    "paused": ["paused", "why"],
    "resumed": ["resumed"],
    "routed": ["routed", "a", ["b"]],
    "opened": ["opened", "a"],
    "expanded": ["expanded", "a", 3, [1, "x", None]],
    "repeated": ["repeated", "a", 2, 12.5],
    "gathered": ["gathered", "a"],
    "waiting": ["waiting", "a", 12.5, "approval"],
    "node_finished": ["node_finished", "a", [{"x": 1}], True],
    "signal": ["signal", "approval", [{"x": 1}], "a"],
    "child": ["child", "a", 1, "child-1"],
    "function": ["function", "a", [["set", ["n"], 1]], [{"ok": True}]],
    "held": ["held", "a", "why"],
    "node_released": ["node_released", "a"],
    "undo": ["undo", ["a"], "failed", {"code": "x"}],
    "cancelling": ["cancelling", "why", "cancelled", 12.5, {"code": "timeout"}, "stop"],
    "restarted": ["restarted", 1, ["a"], "ref", {"p": 1}, ["a"], 2, 12.5, True],
    "ended": ["ended", "failed", {"code": "x"}],
    "stream_begun": ["stream_begun", "a"],
    "permits_returned": ["permits_returned", "a"],
    "child_continued": ["child_continued", "a", 2, "child-1"],
    "deadline_set": ["deadline_set", "a", 12.5],
    "parent_waits": ["parent_waits", 2, {"params": None}],
}

REPORT_ROWS = {
    "streams": ["streams", "a", 1, "tok", True],
    "started": ["started", "a", 1, "tok"],
    "succeeded": ["succeeded", "a", 1, "tok", [{"x": 1}], ["b"], 0.5],
    "failed": ["failed", "a", 1, "tok", {"code": "x"}, True, 5.0, 0.5],
    "declined": ["declined", "a", 1, "tok", "full"],
    "released": ["released", "a", 1, "tok", "drain"],
    "child_ended": ["child_ended", "a", 1, "child-1", "finished", [{"x": 1}], None],
}


def travelled(fact: f.Fact) -> f.Fact:
    (read,) = decode_facts(body_of(encode_facts([fact])))
    return read


# Round trips.


def test_every_fact_and_report_is_tried() -> None:
    assert set(FACTS) == set(ROWS) == set(f.TAGS)
    assert set(REPORTS) == set(REPORT_ROWS) == set(r.TAGS)


@pytest.mark.parametrize("tag", FACTS)
def test_every_fact_comes_back(tag: str) -> None:
    @settings(max_examples=40)
    @given(FACTS[tag])
    def check(fact: f.Fact) -> None:
        assert travelled(fact) == fact
        assert fact_row(loads(dumps(row_of(fact)))) == fact

    check()


@pytest.mark.parametrize("tag", REPORTS)
def test_every_report_comes_back(tag: str) -> None:
    @settings(max_examples=40)
    @given(REPORTS[tag])
    def check(report: r.AttemptReport) -> None:
        assert decode_report(loads(dumps(row_of(report)))) == report

    check()


@pytest.mark.parametrize("tag", LETTERS)
def test_every_letter_comes_back(tag: str) -> None:
    @settings(max_examples=40)
    @given(LETTERS[tag])
    def check(letter: p.Letter) -> None:
        assert decode_report(loads(dumps(row_of(letter)))) == letter

    check()
    assert set(LETTERS) == set(p.TAGS)


@pytest.mark.parametrize("value", NASTY, ids=lambda value: ascii(value)[:20])
def test_no_output_of_a_user_can_spoil_a_commit(value: Any) -> None:
    facts = [f.TaskCreated(), f.AttemptSucceeded("a", 1, "t", Payload(value)), f.TaskEnded("finished")]

    assert decode_facts(body_of(encode_facts(facts))) == facts


def test_the_body_is_one_json_list_cut_at_facts() -> None:
    texts = encode_facts([f.TaskCreated(), f.RetryDue("a")])

    assert texts == [b'["created",[]]', b'["retry_due","a"]']
    assert body_of(texts) == '[["created",[]],["retry_due","a"]]'
    assert body_of([]) == "[]"
    assert decode_facts("[]") == []


@pytest.mark.parametrize("tag", ROWS)
def test_what_was_written_once_is_read_for_ever(tag: str) -> None:
    fact = fact_row(ROWS[tag])

    assert type(fact) is f.TAGS[tag]
    assert loads(dumps(row_of(fact))) == ROWS[tag]


@pytest.mark.parametrize("tag", REPORT_ROWS)
def test_what_an_older_worker_says_is_understood(tag: str) -> None:
    report = decode_report(REPORT_ROWS[tag])

    assert type(report) is r.TAGS[tag]
    assert loads(dumps(row_of(report)))[: len(REPORT_ROWS[tag])] == REPORT_ROWS[tag]


@pytest.mark.parametrize("tag", ROWS)
def test_fields_that_an_older_writer_did_not_know_have_their_defaults(tag: str) -> None:
    fields = dataclasses.fields(f.TAGS[tag])
    required = sum(field.default is dataclasses.MISSING for field in fields)

    fact = fact_row(ROWS[tag][: required + 1])

    assert all(getattr(fact, field.name) == field.default for field in fields[required:])
    if required:
        with pytest.raises(Corrupt):
            fact_row(ROWS[tag][:required])


@pytest.mark.parametrize("tag", ROWS)
def test_fields_of_a_newer_writer_are_passed_over(tag: str) -> None:
    newer = [*ROWS[tag], "new", {"er": 1}]

    assert fact_row(newer) == fact_row(ROWS[tag])
    assert decode_facts(dumps([newer]).decode()) == [fact_row(ROWS[tag])]


# Payloads and artifacts.


def test_an_artifact_travels_as_a_reference() -> None:
    artifact = Artifact("ref", 9, "json", ("a", 0))
    fact = f.AttemptSucceeded("a", 1, "t", Payload(None, artifact))

    assert write_payload(fact.output) == [None, ["ref", 9, "json", ["a", 0]]]
    assert travelled(fact) == fact
    assert read_artifact(write_artifact(artifact)) == artifact


def test_null_is_an_output_and_not_the_want_of_one() -> None:
    assert travelled(f.AttemptSucceeded("a", 1, "t", Payload(None))).output == Payload(None, None)  # type: ignore[union-attr]


@pytest.mark.parametrize("row", [None, 5, "x", {}, [], [None, None], [None, 5], [None, ["r", 1, "json"]]])
def test_an_output_that_is_none_is_corrupt(row: Any) -> None:
    with pytest.raises(Corrupt):
        read_payload(row)


@pytest.mark.parametrize(
    "row",
    [None, "refs", [], ["r", 1, "json"], ["r", "1", "json", []], [5, 1, "json", []], ["r", 1, "json", "ab"],
     ["r", 1, "json", [1.5]], ["r", 1, "json", [None]], ["r", 1, "json", [], 1], {"ref": "r"}],
)  # fmt: skip
def test_an_artifact_that_is_none_is_corrupt(row: Any) -> None:
    with pytest.raises(Corrupt):
        read_artifact(row)


# Poison.


@pytest.mark.parametrize("row", [["married", "a"], ["succeeded2"], [""], ["expired", "a", 1, "t"]])
def test_a_tag_of_a_newer_version_is_unknown(row: list[Any]) -> None:
    for read in (fact_row, decode_report):
        with pytest.raises(UnknownFact, match="unknown fact"):
            read(row)
    with pytest.raises(UnknownFact):
        decode_facts(dumps([["resumed"], row]).decode())


def test_a_fact_is_no_report() -> None:
    with pytest.raises(UnknownFact):
        decode_report(["ended", "finished"])


@pytest.mark.parametrize("row", [None, 5, "started", {}, {"started": 1}, [], [None], [5, "a"], [["started"]], [True]])
def test_what_is_no_row_is_corrupt(row: Any) -> None:
    for read in (fact_row, decode_report):
        with pytest.raises(Corrupt):
            read(row)


@pytest.mark.parametrize("body", ["", "null", "{}", "5", '"x"', "[5]", "[null]", "[[]]", "[", '[["resumed"]', "[[[]]]"])
def test_a_body_that_is_none_is_corrupt(body: str) -> None:
    with pytest.raises(Corrupt):
        decode_facts(body)


WRONG: dict[str, list[Any]] = {
    "str": [None, 1, 1.5, True, [], {}],
    "int": [None, "1", 1.5, True, [], {}],
    "float": [None, "1", True, [], {}],
    "float | None": ["1", True, [], {}],
    "bool": [None, 0, 1, "true", []],
    "Payload": [None, 1, "x", {}, []],
    "dict[str, Any] | None": [1, "x", []],
    "ErrorInfo": [None, 1, "x", []],
    "ErrorInfo | None": [1, "x", []],
    "Usage | None": [1, "x", []],
    "list[Any]": [None, 1, "x", {}],
    "list[Any] | None": [1, "x", {}],
    "tuple[str, ...]": [None, 1, "ab", {}, [1], [None], ["a", 1]],
    "tuple[str, ...] | None": [1, "ab", {}, [1], [None], ["a", 1]],
}


def spoilt(rows: dict[str, list[Any]], tags: dict[str, Any]) -> list[Any]:
    """Every row with a value of every wrong type in every place."""
    cases = []
    for tag, row in rows.items():
        for place, field in enumerate(dataclasses.fields(tags[tag])[: len(row) - 1], 1):
            for wrong in WRONG[str(field.type).removeprefix("f.")]:
                case = [*row[:place], wrong, *row[place + 1 :]]
                cases.append(pytest.param(case, id=f"{tag}.{field.name}={wrong!r}"))
    return cases


@pytest.mark.parametrize("row", spoilt(ROWS, f.TAGS))
def test_a_wrong_type_in_any_place_of_a_fact_is_corrupt(row: list[Any]) -> None:
    with pytest.raises(Corrupt):
        fact_row(row)
    with pytest.raises(Corrupt):
        decode_facts(dumps([row]).decode())


@pytest.mark.parametrize("row", spoilt(REPORT_ROWS, r.TAGS))
def test_a_wrong_type_in_any_place_of_a_report_is_corrupt(row: list[Any]) -> None:
    with pytest.raises(Corrupt):
        decode_report(row)


def test_any_row_is_read_or_refused_and_nothing_else() -> None:
    @settings(max_examples=at_night(400))
    @given(st.lists(st.sampled_from([*f.TAGS, "newer"]) | junk, max_size=9))
    def check(row: list[Any]) -> None:
        for read in (fact_row, decode_report):
            with contextlib.suppress(Corrupt, UnknownFact):
                read(row)

    check()


def test_any_body_is_read_or_refused_and_nothing_else() -> None:
    rows = st.sampled_from(list(ROWS.values()))

    @settings(max_examples=at_night(300))
    @given(st.lists(rows | junk, max_size=3), st.integers(0, 10**6), st.text(max_size=2), st.booleans())
    def check(body: list[Any], place: int, damage: str, damaged: bool) -> None:
        text = dumps(body).decode()
        if damaged:
            at = place % (len(text) + 1)
            text = text[:at] + damage + text[at + 1 :]
        with contextlib.suppress(Corrupt, UnknownFact):
            decode_facts(text)

    check()


def test_both_ways_of_reading_agree() -> None:
    """The fast one reads what msgspec can say; a huge integer anywhere in the body takes the other."""
    rows = list(ROWS.values())
    slow = [*rows, ["succeeded", "a", 1, "t", [2**70]]]

    assert decode_facts(dumps(rows).decode()) == decode_facts(dumps(slow).decode())[:-1]
