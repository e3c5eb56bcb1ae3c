"""What every store refuses: each document has a rule, and no field of it is forgotten."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, get_args

import pytest

from flowkit.adapters.limits import CHUNK, MAX_INT, MAX_TEXT, Document, storable
from flowkit.ports import Commit, Head, SealedSecret, StreamId

STREAM = StreamId("t", 1, "n")
GOOD: dict[str, Any] = {
    "str": "x",
    "str | None": "x",
    "int": 7,
    "float": 1.5,
    "float | None": 1.5,
    "bytes": b"x",
    "bool": True,
    "StreamId": STREAM,
    "Mapping[str, str]": {"k": "v"},
    "tuple[str, ...]": ("x",),
    "Usage | None": {"cpu_sec": 0.5, "peak_memory_bytes": 1, "verdict": "ok"},
}
BAD: dict[str, list[Any]] = {
    "str": ["\ud800", "x" * (MAX_TEXT + 1)],
    "str | None": ["\ud800"],
    "int": [MAX_INT + 1, -MAX_INT - 1],
    "float": [float("nan")],
    "float | None": [float("nan")],
    "bytes": [b"x" * (CHUNK + 1)],
    "bool": [],
    "StreamId": [StreamId("\ud800", 1, "n"), StreamId("t", MAX_INT + 1, "n"), StreamId("t", 1, "\ud800")],
    "Mapping[str, str]": [{"\ud800": "v"}, {"k": "\ud800"}],
    "tuple[str, ...]": [("x", "\ud800")],
    "Usage | None": [
        {"cpu_sec": float("nan")},
        {"cpu_sec": MAX_INT + 1},
        {"\ud800": 1},
        {"verdict": "\ud800"},
        {"a": []},
    ],
}
KINDS = get_args(Document)


def document(kind: Any) -> Any:
    return kind(**{field.name: GOOD[str(field.type)] for field in fields(kind)})


def spoiled() -> list[Any]:
    return [
        pytest.param(kind, {field.name: bad}, id=f"{kind.__name__}.{field.name}")
        for kind in KINDS
        for field in fields(kind)
        if field.compare  # the others are the store's own to give
        for bad in BAD[str(field.type)]
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_document_that_every_backend_can_keep_is_taken(kind: Any) -> None:
    assert storable(document(kind))


@pytest.mark.parametrize(("kind", "change"), spoiled())
def test_a_document_is_refused_for_each_of_its_fields_that_some_backend_would_spoil(
    kind: Any, change: dict[str, Any]
) -> None:
    assert not storable(replace(document(kind), **change))


def test_text_beyond_ascii_is_taken_whole() -> None:
    assert storable(replace(document(Commit), body="ä" * 1000, by="Größe"))
    assert storable(replace(document(Head), name="日本", labels={"größe": "ü"}))


def test_text_is_measured_in_bytes() -> None:
    assert not storable(replace(document(Commit), body="ä" * (MAX_TEXT // 2 + 1)))


def test_a_head_of_which_nothing_optional_is_known_is_taken() -> None:
    assert storable(Head("t", 0, "g", timeout_sec=None, next_wake=None))


def test_a_sealed_value_is_as_large_as_a_chunk_at_the_most() -> None:
    assert storable(replace(document(SealedSecret), wrapped=b"", sealed=b"x" * CHUNK))
