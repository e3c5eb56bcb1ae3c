"""Frames: what was written is read again, and nothing that a program sends hurts whoever reads it."""

from __future__ import annotations

import json
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.sandbox.frames import MOST_DEPTH, BadFrame, FrameReader, decode, encode

CAP = 1000
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def read(data: bytes, cap: int = CAP) -> list[dict[str, object]]:
    reader = FrameReader(cap)
    messages = [decode(body) for body in reader.feed(data)]
    reader.end()
    return messages


@settings(max_examples=50)
@given(st.lists(st.dictionaries(st.text(), JSON, max_size=4).map(lambda said: said | {"do": "x"}), max_size=4),
       st.integers(1, 40))  # fmt: skip
def test_what_is_written_is_read_again_however_it_is_cut(messages: list[dict[str, object]], step: int) -> None:
    data = b"".join(map(encode, messages))
    reader = FrameReader(1_000_000)

    bodies = [body for at in range(0, len(data), step) for body in reader.feed(data[at : at + step])]

    reader.end()
    assert [decode(body) for body in bodies] == messages


@given(st.binary(max_size=3000))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        messages = read(data)
    except BadFrame as refused:
        assert str(refused)
    else:
        assert all(isinstance(message["do"], str) for message in messages)


@given(st.binary(max_size=200), st.integers(0, 50), st.integers(0, 255))
def test_a_frame_with_a_wrong_byte_is_read_or_refused(tail: bytes, at: int, byte: int) -> None:
    data = bytearray(encode({"do": "result", "output": {"a": [1, 2.5, "x"], "b": None}}) + tail)
    data[at] = byte
    try:
        read(bytes(data))
    except BadFrame as refused:
        assert str(refused)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not JSON"),
        (b"[]", "not an object"),
        (b'{"do": 1}', "not an object with `do`"),
        (b'{"do": "x", "n": NaN}', "NaN is not JSON"),
        (b'{"do": "x", "n": 1e999}', "beyond all floats"),
        (b'{"do": "x", "n": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"do": "x", "do": "y"}', "twice"),
        (b'{"do": "\xff"}', "not JSON"),
        (b'{"do": "x"} ', None),
        (b'{"do": "x"}{}', "not JSON"),
        (b'{"do": "x", "n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested"),
        (b'{"do": "x", "n": ' + b"[" * 100_000, "nested"),
        (b'{"do": "x", "n": "' + b"[" * 1000 + b'"}', None),
        (b'{"do": "x", "n": "\\"' + b"[" * 1000 + b'"}', None),
    ],
)
def test_a_body_that_is_no_message_is_refused_in_words(body: bytes, why: str | None) -> None:
    if why is None:
        assert decode(body)["do"] == "x"
        return
    with pytest.raises(BadFrame, match=why):
        decode(body)


def test_as_deep_as_allowed_is_read_and_one_more_is_not() -> None:
    def nested(depth: int) -> bytes:
        return json.dumps({"do": "x", "n": json.loads("[" * (depth - 1) + "]" * (depth - 1))}).encode()

    assert decode(nested(MOST_DEPTH))["do"] == "x"
    with pytest.raises(BadFrame, match="nested more than"):
        decode(nested(MOST_DEPTH + 1))


def test_a_length_beyond_the_cap_is_refused_before_anything_of_it_is_kept() -> None:
    with pytest.raises(BadFrame, match=r"4,294,967,295 bytes; at most 1,000"):
        FrameReader(CAP).feed(struct.pack(">I", 0xFFFFFFFF))


def test_a_frame_that_is_not_whole_is_refused_at_the_end() -> None:
    reader = FrameReader(CAP)

    assert reader.feed(encode({"do": "x"})[:-1]) == []
    with pytest.raises(BadFrame, match="not whole"):
        reader.end()


def test_brackets_by_the_million_are_counted_in_no_time() -> None:
    began = time.process_time()

    with pytest.raises(BadFrame):
        decode(b'{"do": "x", "n": ' + b"[]," * 1_000_000 + b"}")

    assert time.process_time() - began < 5
