"""What a handler returns, as it travels."""

from __future__ import annotations

import enum
import hashlib
import json
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from flowkit.core.payload import Artifact, Payload
from flowkit.wire.codec import dumps, loads
from flowkit.worker.outcome import AttemptFailure
from flowkit.worker.outputs import AT_ONCE, LARGE_BYTES, Output, TooMuch, encode, split
from flowkit.worker.results import Next

MANY = 64 * 1024 * 1024


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Plain(enum.Enum):
    A = "a"


@dataclass
class Row:
    id: int
    tags: tuple[str, ...] = ()
    inner: Any = None


class Model(BaseModel):
    when: datetime
    rows: list[Row] = field(default_factory=list)


def value_of(value: Any) -> Any:
    return encode(value, most_bytes=MANY).payload.value


def refusal(value: Any, most_bytes: int = MANY) -> tuple[str, str]:
    with pytest.raises(AttemptFailure) as caught:
        encode(value, most_bytes=most_bytes)
    assert caught.value.permanent
    return caught.value.code, str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_json_values_stay_what_they_are(value: Any) -> None:
    output = encode(value, most_bytes=MANY)

    assert output.payload == Payload(value)
    assert json.dumps(output.payload.value) == json.dumps(value)
    assert output.blob is None


def test_the_output_shares_nothing_with_what_was_returned() -> None:
    rows: dict[str, Any] = {"rows": [1, {"a": []}]}
    payload = encode(rows, most_bytes=MANY).payload

    rows["rows"][1]["a"].append(float("nan"))

    assert payload.value == {"rows": [1, {"a": []}]}


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ((1, 2), [1, 2]),
        (Pair(1, 2), [1, 2]),
        (OrderedDict(a=1), {"a": 1}),
        (Colour.RED, "red"),
        ({Colour.RED: Level.LOW}, {"red": 1}),
        (Row(1, ("a",), Row(2)), {"id": 1, "tags": ["a"], "inner": {"id": 2, "tags": [], "inner": None}}),
        (Model(when=datetime(2026, 1, 1), rows=[Row(1)]),
         {"when": "2026-01-01T00:00:00", "rows": [{"id": 1, "tags": [], "inner": None}]}),
        (2**100, 2**100),
        (True, True),
        ("ä€😀", "ä€😀"),
    ],
)  # fmt: skip
def test_what_python_calls_otherwise_is_dumped(value: Any, plain: Any) -> None:
    got = value_of(value)
    assert got == plain
    assert json.dumps(got) == json.dumps(plain)


@pytest.mark.parametrize(
    ("value", "place", "says"),
    [
        (float("nan"), "output", "JSON has no nan"),
        ({"rows": [0, 1, 2, {"x": float("inf")}]}, "output.rows[3].x", "JSON has no inf"),
        ({"a": {1, 2}}, "output.a", "use a list"),
        ({"a": b"x"}, "output.a", "put_bytes"),
        ([datetime(2026, 1, 1)], "output[0]", "isoformat"),
        ([Decimal(1)], "output[0]", "string or a float"),
        ({"a": Plain.A}, "output.a", "use its value"),
        ({"a": object()}, "output.a", "JSON cannot say"),
        ({1: 2}, "output", "JSON keys are strings; found 1"),
        ({"a": {None: 2}}, "output.a", "JSON keys are strings; found null"),
        ({"a": "\ud800"}, "output.a", "lone surrogate"),
        ({"\ud800": 1}, "output", "in a key: a lone surrogate"),
        (Row(1, inner={3}), "output.inner", "use a list"),
        (lambda: 1, "output", "JSON cannot say"),
        (Row, "output", "JSON cannot say"),
        ((x for x in ()), "output", "generator"),
    ],
)
def test_what_json_cannot_say_is_named_by_its_place(value: Any, place: str, says: str) -> None:
    code, message = refusal(value)

    assert code == "bad_output"
    assert message.startswith(f"{place}: ")
    assert says in message


def test_depth_is_bounded_and_cycles_end() -> None:
    deep: Any = 1
    for _ in range(64):
        deep = [deep]
    assert value_of(deep) == deep
    assert "nested more than 64" in refusal([deep])[1]

    cycle: list[Any] = []
    cycle.append(cycle)
    assert "nested more than 64" in refusal(cycle)[1]


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    assert refusal(10**5000)[0] == "bad_output"


def test_bytes_become_an_artifact() -> None:
    for data in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
        output = encode(data, most_bytes=MANY)
        ref = hashlib.sha256(b"abc").hexdigest()
        assert output == Output(Payload(None, Artifact(ref, 3, "bytes")), output.size, b"abc")


def test_a_large_value_becomes_an_artifact() -> None:
    value = {"text": "x" * LARGE_BYTES}
    output = encode(value, most_bytes=MANY)

    assert output.blob is not None
    artifact = output.payload.artifact
    assert artifact == Artifact(hashlib.sha256(output.blob).hexdigest(), len(output.blob), "json")
    assert output.payload.value is None
    assert loads(output.blob) == value
    assert output.size < 200


def test_the_border_between_value_and_artifact_is_in_encoded_bytes() -> None:
    assert encode("x" * (LARGE_BYTES - 2), most_bytes=MANY).blob is None
    assert encode("x" * (LARGE_BYTES - 1), most_bytes=MANY).blob is not None
    assert encode("\x01" * (LARGE_BYTES // 4), most_bytes=MANY).blob is not None


@pytest.mark.parametrize("value", ["x" * 1000, b"x" * 1000])
def test_too_large_is_a_failure_that_says_so(value: Any) -> None:
    code, message = refusal(value, most_bytes=999)
    assert code == "output_too_large"
    assert "at most 999 are allowed" in message


@pytest.mark.parametrize("value", [[0] * (AT_ONCE + 1), "ä" * (64 * AT_ONCE + 64), b"x" * (64 * AT_ONCE + 64)])
def test_many_values_are_not_looked_at_in_the_loop(value: Any) -> None:
    with pytest.raises(TooMuch):
        encode(value, most_bytes=MANY, most_values=AT_ONCE)
    encode(value, most_bytes=MANY)


def test_next_is_split_from_the_output() -> None:
    assert split(Next(["a"], 5)) == (5, ("a",))
    assert split(5) == (5, None)


@pytest.mark.parametrize(
    "value",
    [None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**64 - 1, 1 - 2**64, 0.1, -1.7976931348623157e308, -5e-324],
)
def test_a_number_that_is_not_measured_takes_up_no_more_than_is_said(value: Any) -> None:
    output = encode(value, most_bytes=MANY)
    assert output.payload == Payload(value)
    assert len(dumps(value)) <= output.size


def test_where_hardly_anything_may_be_returned_a_number_is_measured_too() -> None:
    assert encode(123, most_bytes=3).size == 3
    with pytest.raises(AttemptFailure, match="the output has 4 bytes, at most 3 are allowed"):
        encode(1234, most_bytes=3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_in_json_is_refused_however_short_it_is(value: float) -> None:
    with pytest.raises(AttemptFailure, match="JSON has no"):
        encode(value, most_bytes=MANY)
