"""How facts and reports are written down: `[tag, field, field, ...]` in the order of the dataclass's fields.

A reader fills fields that an older writer did not know with their defaults, passes over fields of a newer one, and
refuses a tag that it does not know itself (`UnknownFact`): then a newer version must take over. Every field's type is
checked: what `decide` and `evolve` are given is what their signatures say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from operator import attrgetter, or_
from typing import Any, get_type_hints

import msgspec
from msgspec.structs import astuple

from flowkit.core import facts, permits, reports
from flowkit.core.payload import Artifact, Payload
from flowkit.errors import Corrupt, UnknownFact
from flowkit.wire.codec import UNFIT, dumps, loads

# ---------------------------------------------------------------------------------------------- values


def write_payload(payload: Payload) -> list[Any]:
    artifact = payload.artifact
    return [payload.value] if artifact is None else [None, write_artifact(artifact)]


def read_payload(row: Any) -> Payload:
    """Raises `Corrupt`."""
    if not isinstance(row, list) or not row:
        raise Corrupt("an output is a list of a value and perhaps an artifact")
    return Payload(row[0]) if len(row) == 1 else Payload(None, read_artifact(row[1]))


def write_artifact(artifact: Artifact) -> list[Any]:
    return [artifact.ref, artifact.size, artifact.kind, list(artifact.path)]


def read_artifact(row: Any) -> Artifact:
    """Raises `Corrupt`."""
    try:
        return Artifact(*msgspec.convert(row, tuple[str, int, str, tuple[str | int, ...]]))
    except msgspec.ValidationError as error:
        raise Corrupt(f"not an artifact: {error}") from error


# ---------------------------------------------------------------------------------------------- one kind of row

Write = Callable[[Any], list[Any]]
Make = Callable[[Any], Any]


def _writer(kind: type, tag: str) -> Write:
    names = [field.name for field in dataclasses.fields(kind)]
    if not names:
        return lambda item: [tag]
    if len(names) == 1:
        only = attrgetter(names[0])
        return lambda item: [tag, only(item)]
    values = attrgetter(*names)
    place = names.index("output") + 1 if "output" in names else 0
    rarely = names[-1] == "usage"
    if not place and not rarely:
        return lambda item: [tag, *values(item)]

    def write(item: Any) -> list[Any]:
        row = [tag, *values(item)]
        if place:
            row[place] = write_payload(row[place])
        if rarely and row[-1] is None:  # only programs have one, and these are the facts of every node
            row.pop()
        return row

    return write


def _shape(kind: type, tag: str) -> type[msgspec.Struct]:
    """The struct that a row of this kind is read as."""
    types = get_type_hints(kind)
    fields: list[Any] = []
    for field in dataclasses.fields(kind):
        wanted = list if types[field.name] is Payload else types[field.name]
        default = () if field.default is dataclasses.MISSING else (field.default,)
        fields.append((field.name, wanted, *default))
    return msgspec.defstruct(kind.__name__, fields, array_like=True, tag=tag)


def _maker(kind: type) -> Make:
    names = [field.name for field in dataclasses.fields(kind)]
    if "output" not in names:
        return lambda row: kind(*astuple(row))
    place = names.index("output")

    def make(row: Any) -> Any:
        values = list(astuple(row))
        values[place] = read_payload(values[place])
        return kind(*values)

    return make


_TRAVELLERS: dict[str, type] = {**reports.TAGS, **permits.TAGS}
_TAG_OF: dict[type, str] = {kind: tag for tag, kind in [*facts.TAGS.items(), *_TRAVELLERS.items()]}
_WRITERS: dict[type, Write] = {kind: _writer(kind, tag) for kind, tag in _TAG_OF.items()}
_FACTS = {tag: _shape(kind, tag) for tag, kind in facts.TAGS.items()}
_REPORTS = {tag: _shape(kind, tag) for tag, kind in _TRAVELLERS.items()}
_MAKERS: dict[type[msgspec.Struct], Make] = {
    shape: _maker(kinds[tag])
    for shapes, kinds in ((_FACTS, facts.TAGS), (_REPORTS, _TRAVELLERS))
    for tag, shape in shapes.items()
}

REPORT_ROW: Any = reduce(or_, _REPORTS.values())
"""The type of a row that holds a worker's report, or a letter about permits; `made` turns what msgspec reads as it into
that."""

_body: msgspec.json.Decoder[Any] = msgspec.json.Decoder(list[reduce(or_, _FACTS.values())])  # type: ignore[misc]


def made(row: Any) -> Any:
    """The fact or report of a row that was read. Raises `Corrupt`."""
    return _MAKERS[type(row)](row)


# ---------------------------------------------------------------------------------------------- writing


def row_of(item: facts.Fact | reports.AttemptReport | reports.ChildEnded | permits.Letter) -> list[Any]:
    """A fact, a worker's report or a letter as a list that JSON can say."""
    return _WRITERS[type(item)](item)


def encode_facts(recorded: Sequence[facts.Fact]) -> list[bytes]:
    """One JSON text per fact, so that the caller can cut a large decision into commits."""
    return [dumps(row_of(fact)) for fact in recorded]


def encode_body(recorded: Sequence[facts.Fact]) -> bytes:
    """The body of a commit with all of these facts."""
    return dumps([row_of(fact) for fact in recorded])


def body_of(texts: Iterable[bytes]) -> str:
    """The body of a commit from its facts' texts."""
    return (b"[" + b",".join(texts) + b"]").decode()


# ---------------------------------------------------------------------------------------------- reading


def decode_facts(body: str) -> list[facts.Fact]:
    """The facts of a commit. Raises `UnknownFact` for a newer tag, `Corrupt` for anything unreadable."""
    try:
        return [_MAKERS[type(row)](row) for row in _body.decode(body)]
    except UNFIT:
        pass
    rows = loads(body)
    if not isinstance(rows, list):
        raise Corrupt("a commit's body is a list of facts")
    return [fact_row(row) for row in rows]


def fact_row(row: Any) -> facts.Fact:
    """One fact from its row, as `loads` gives it. Raises as `decode_facts`."""
    fact: facts.Fact = _read(_FACTS, row)
    return fact


def decode_report(row: Any) -> reports.AttemptReport | reports.ChildEnded | permits.Letter:
    """One worker's report, or a letter, from its row. Raises as `decode_facts`."""
    report: reports.AttemptReport | reports.ChildEnded | permits.Letter = _read(_REPORTS, row)
    return report


def _read(shapes: Mapping[str, type[msgspec.Struct]], row: Any) -> Any:
    if not isinstance(row, list) or not row or not isinstance(row[0], str):
        raise Corrupt("a fact is a list that begins with its tag")
    shape = shapes.get(row[0])
    if shape is None:
        raise UnknownFact(f"unknown fact {row[0][:40]!r}; this version knows {', '.join(shapes)}")
    try:
        return made(msgspec.convert(row, shape))
    except msgspec.ValidationError as error:
        raise Corrupt(f"fact {row[0]!r}: {error}") from error
