"""How facts and reports are written down: `[tag, field, field, ...]` in the order of the dataclass's fields.

A reader fills fields that an older writer did not know with their defaults and refuses a tag that it does not know
itself (`UnknownFact`): then a newer version must take over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

from flowkit.core import facts, reports
from flowkit.core.payload import Artifact, Payload
from flowkit.errors import Corrupt, UnknownFact
from flowkit.wire.codec import dumps, loads


def _writer(kind: type) -> Callable[[Any], list[Any]]:
    names = [field.name for field in dataclasses.fields(kind)]
    tag = _TAG_OF[kind]
    if not names:
        return lambda item: [tag]
    if len(names) == 1:
        only = attrgetter(names[0])
        return lambda item: [tag, only(item)]
    values = attrgetter(*names)
    if "output" not in names:
        return lambda item: [tag, *values(item)]
    place = names.index("output") + 1

    def write(item: Any) -> list[Any]:
        row = [tag, *values(item)]
        row[place] = write_payload(row[place])
        return row

    return write


def _reader(kind: type) -> Callable[[list[Any]], Any]:
    names = [field.name for field in dataclasses.fields(kind)]
    tuples = [i for i, field in enumerate(dataclasses.fields(kind)) if str(field.type).startswith("tuple")]
    count = len(names)
    output = names.index("output") if "output" in names else -1

    def read(row: list[Any]) -> Any:
        values = row[1 : count + 1]
        if output >= 0:
            values[output] = read_payload(values[output])
        for place in tuples:
            if place < len(values) and values[place] is not None:
                values[place] = tuple(values[place])
        return kind(*values)

    return read


def write_payload(payload: Payload) -> list[Any]:
    artifact = payload.artifact
    return [payload.value] if artifact is None else [None, write_artifact(artifact)]


def read_payload(row: Any) -> Payload:
    if not isinstance(row, list) or not row:
        raise Corrupt("an output is a list of a value and perhaps an artifact")
    return Payload(row[0]) if len(row) == 1 else Payload(None, read_artifact(row[1]))


def write_artifact(artifact: Artifact) -> list[Any]:
    return [artifact.ref, artifact.size, artifact.kind, list(artifact.path)]


def read_artifact(row: Any) -> Artifact:
    try:
        ref, size, kind, path = row
        return Artifact(str(ref), int(size), str(kind), tuple(path))
    except (TypeError, ValueError) as error:
        raise Corrupt(f"not an artifact: {error}") from error


_TAG_OF: dict[type, str] = {kind: tag for tag, kind in [*facts.TAGS.items(), *reports.TAGS.items()]}
_WRITERS: dict[type, Callable[[Any], list[Any]]] = {kind: _writer(kind) for kind in _TAG_OF}
_FACTS: dict[str, Callable[[list[Any]], facts.Fact]] = {tag: _reader(kind) for tag, kind in facts.TAGS.items()}
_REPORTS: dict[str, Callable[[list[Any]], reports.AttemptReport]] = {
    tag: _reader(kind) for tag, kind in reports.TAGS.items()
}


def row_of(item: facts.Fact | reports.AttemptReport) -> list[Any]:
    """A fact or a worker's report as a list that JSON can say."""
    return _WRITERS[type(item)](item)


def encode_facts(recorded: Sequence[facts.Fact]) -> list[bytes]:
    """One JSON text per fact, so that the caller can cut a large decision into commits."""
    return [dumps(row_of(fact)) for fact in recorded]


def body_of(texts: Iterable[bytes]) -> str:
    """The body of a commit from its facts' texts."""
    return (b"[" + b",".join(texts) + b"]").decode()


def decode_facts(body: str) -> list[facts.Fact]:
    """The facts of a commit. Raises `UnknownFact` for a newer tag, `Corrupt` for anything unreadable."""
    return [_read(_FACTS, row, facts.TAGS) for row in _rows(body)]


def decode_report(row: Any) -> reports.AttemptReport:
    """One worker's report from its row. Raises as `decode_facts`."""
    return _read(_REPORTS, row, reports.TAGS)


def fact_row(row: Any) -> facts.Fact:
    return _read(_FACTS, row, facts.TAGS)


def _rows(body: str) -> list[Any]:
    rows = loads(body)
    if not isinstance(rows, list):
        raise Corrupt("a commit's body is a list of facts")
    return rows


def _read(readers: dict[str, Callable[[list[Any]], Any]], row: Any, known: dict[str, Any]) -> Any:
    if not isinstance(row, list) or not row or not isinstance(row[0], str):
        raise Corrupt("a fact is a list that begins with its tag")
    reader = readers.get(row[0])
    if reader is None:
        raise UnknownFact(f"unknown fact {row[0]!r}; this version knows {', '.join(known)}")
    try:
        return reader(row)
    except (TypeError, IndexError, ValueError) as error:
        raise Corrupt(f"fact {row[0]!r}: {error}") from error
