"""JSON in and out: every JSON value comes back, and nothing but `Corrupt` comes of anything else."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.errors import Corrupt
from flowkit.wire import codec
from flowkit.wire.codec import MAX_DEPTH, check_depth, dumps, loads, loads_as
from tests.wire.values import NASTY, values


def nested(depth: int, left: bytes = b"[", right: bytes = b"]") -> bytes:
    return left * depth + right * depth


# Round trips.


@pytest.mark.parametrize("value", NASTY, ids=lambda value: ascii(value)[:20])
def test_what_json_can_say_comes_back(value: Any) -> None:
    assert loads(dumps(value)) == value
    assert type(loads(dumps(value))) is type(value)


@settings(max_examples=300)
@given(values)
def test_any_value_comes_back(value: Any) -> None:
    data = dumps(value)

    assert loads(data) == value
    assert loads(data.decode()) == value
    assert json.loads(data) == value


def test_texts_are_compact_utf8() -> None:
    assert dumps({"a": [1, "ä", None]}) == '{"a":[1,"ä",null]}'.encode()
    assert dumps([2**70]) == b"[1180591620717411303424]"
    assert dumps(["\ud800", "ä"]) == b'["\\ud800","\\u00e4"]'


def test_floats_come_back_to_the_bit() -> None:
    for value in (0.1, 1 / 3, 1e22, 1.7976931348623157e308, 5e-324, -0.0, 1700000000.123456):
        assert repr(loads(dumps(value))) == repr(value)


def test_structs_are_written_alike_whichever_way() -> None:
    class Row(msgspec.Struct, array_like=True, tag="row"):
        value: Any
        more: str = ""

    class Record(msgspec.Struct, tag="record", tag_field="type"):
        value: Any

    for build in (Row, Record):
        plain = loads(dumps([build(1)]))
        odd = loads(dumps([build("\ud800")]))
        assert json.dumps(odd) == json.dumps(plain).replace("1", '"\\ud800"', 1)


# What JSON cannot say.


@pytest.mark.parametrize(
    "value",
    [object(), {(1,): 2}, {None: 1}, 10**5000, ["\ud800", float("nan")], ["\ud800", object()], 1 + 2j],
    ids=["object", "tuple key", "null key", "5000 digits", "NaN and surrogate", "object and surrogate", "complex"],
)
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        dumps(value)


def test_what_is_nested_beyond_reason_is_refused_and_breaks_nothing() -> None:
    deep: list[Any] = []
    for _ in range(sys.getrecursionlimit() * 20):
        deep = [deep]

    with pytest.raises(ValueError, match="nested"):
        dumps(deep)


# What is not JSON.

NOT_JSON = {
    "nothing": b"",
    "blank": b"  ",
    "half": b'{"a":',
    "more": b"[1]x",
    "two": b"1 2",
    "NaN": b"NaN",
    "infinity": b"[-Infinity]",
    "beyond all floats": b"[1e999]",
    "bad UTF-8": b'"\xff"',
    "UTF-16": '"a"'.encode("utf-16"),
    "UTF-16 without a mark": '{"a":1}'.encode("utf-16-le"),
    "surrogates as UTF-8": b'"\xed\xa0\x80"',
    "a byte order mark": b"\xef\xbb\xbf1",
    "a control character": b'"\x01"',
    "single quotes": b"{'a':1}",
    "a trailing comma": b"[1,]",
    "too many digits": b"1" * 5000,
    "too deep": nested(200_000),
    "endless": b"[" * 60_000,
    "zeros": b"\x00" * 100,
}


@pytest.mark.parametrize("data", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_not_json_is_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        loads(data)


def test_a_text_that_is_no_text_is_corrupt() -> None:
    with pytest.raises(Corrupt):
        loads("\ud800")


@settings(max_examples=300)
@given(st.binary(max_size=60) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_json_or_corrupt(data: bytes) -> None:
    with contextlib.suppress(Corrupt):
        loads(data)


@settings(max_examples=300)
@given(values.map(dumps), st.integers(0, 10**6), st.binary(max_size=2))
def test_damaged_json_is_json_or_corrupt(data: bytes, place: int, damage: bytes) -> None:
    at = place % (len(data) + 1)
    with contextlib.suppress(Corrupt):
        loads(data[:at] + damage + data[at + 1 :])


# Depth.


def depth_of(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if parts is None else 1 + max(map(depth_of, parts), default=0)


@pytest.mark.parametrize(("left", "right"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"]":"\\"[",', b"}]")])
def test_the_deepest_that_may_travel(left: bytes, right: bytes) -> None:
    step = left.count(b"[") + left.count(b"{") - (b'"[' in left)
    most = MAX_DEPTH // step

    check_depth(nested(most, left, right))
    with pytest.raises(Corrupt, match="nested"):
        check_depth(nested(most + 1, left, right))


def test_many_shallow_values_are_not_deep() -> None:
    check_depth(b"[" + b'[{"a":[1]}],' * 5000 + b"1]")


def test_brackets_in_strings_are_not_depth() -> None:
    check_depth(dumps(["[" * 1000, "]" * 1000, '"[{' * 500, "\\"]))


def test_brackets_in_strings_hide_no_depth() -> None:
    with pytest.raises(Corrupt):
        check_depth(nested(300, b'["]",', b',"["]'))
    with pytest.raises(Corrupt):
        check_depth(nested(300, b'["\\\\","]\\"",', b"1]"))


@settings(max_examples=200)
@given(values, st.integers(0, 300))
def test_depth_is_judged_as_it_is(value: Any, more: int) -> None:
    for _ in range(more):
        value = [value, "]]"]
    data = dumps(value)

    if depth_of(value) <= MAX_DEPTH:
        check_depth(data)
    else:
        with pytest.raises(Corrupt):
            check_depth(data)


@given(st.dictionaries(st.text(max_size=5), st.lists(values, max_size=7) | values, max_size=4), st.integers(1, 4))
def test_writing_in_parts_gives_the_same_text(value: dict[str, Any], items: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "PART_ITEMS", items)

        assert loads(codec.dumps_in_parts(value)) == loads(dumps(value))


class Pair(msgspec.Struct, array_like=True):
    name: str
    rest: Any


def test_a_typed_text_is_read_also_where_msgspec_cannot_say_it() -> None:
    decoder = msgspec.json.Decoder(Pair)

    assert loads_as(decoder, b'["a",1]', "a pair") == Pair("a", 1)
    assert loads_as(decoder, f'["a",[{2**70},"\\ud800"]]', "a pair") == Pair("a", [2**70, "\ud800"])
    for text in ("[1,2]", f"[{2**70},2]", "{}", "[", '["a"]'):
        with pytest.raises(Corrupt):
            loads_as(decoder, text, "a pair")
    with pytest.raises(Corrupt, match="not a pair: Expected `str`"):
        loads_as(decoder, "[1,2]", "a pair")
