"""What became of many attempts, counted: the bodies of rollups, how they are made of records, and how they add up.

A body says of each node of a flow how many attempts ended how, by the bins of how long they ran, and has a few records
of those that took most of each measure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from flowkit.errors import Corrupt
from flowkit.monitor_ports import (
    DAY_SEC,
    HOUR_SEC,
    MEASURES,
    OUTCOMES,
    AttemptRecord,
    Bins,
    Rollup,
    bin_of,
)

T = TypeVar("T")

SPANS: Final = (HOUR_SEC, DAY_SEC)
KEPT: Final = 5
"""So many records a node has in a rollup, of each measure."""
OPEN_BYTES: Final = 128 * 1024
"""A body that has grown to this is added to no more..."""
ADDED_BYTES: Final = 256 * 1024
"""... and so much is added at most: so no document grows beyond their sum."""

Group = tuple[str, str, int, int]
"""`tenant`, `flow`, `span`, `start`."""
Row = tuple[str, str, int, int, str, str, str, str, float, float, float, float, int, dict[str, Any] | None]


class Cell(msgspec.Struct, array_like=True):
    """A node of the graph: `outcomes` has the bins of each of `OUTCOMES`, `most` the records of each of `MEASURES`, the
    largest first."""

    outcomes: list[Bins]
    most: list[list[Row]]


Cells = dict[str, Cell]


class _Counts(msgspec.Struct, array_like=True):
    """A cell of which the records are not wanted, which are most of it."""

    outcomes: list[Bins]
    most: msgspec.Raw


class _Most(msgspec.Struct, array_like=True):
    """A cell of which nothing else is wanted."""

    outcomes: msgspec.Raw
    most: list[msgspec.Raw]


_cells = msgspec.json.Decoder(Cells)
_raw_cells = msgspec.json.Decoder(dict[str, msgspec.Raw])
_counts = msgspec.json.Decoder(_Counts)
_most = msgspec.json.Decoder(_Most)
_rows = msgspec.json.Decoder(list[Row])
_encoder = msgspec.json.Encoder()


def groups_of(records: Iterable[AttemptRecord], spans: Sequence[int] = SPANS) -> dict[Group, Cells]:
    """The records counted, by flow, hour and day, and by node."""
    found: dict[Group, Cells] = {}
    count_into(found, records, spans)
    return found


def count_into(found: dict[Group, Cells], records: Iterable[AttemptRecord], spans: Sequence[int] = SPANS) -> None:
    """Count some more, as `groups_of`."""
    for record in records:
        for span in spans:
            group = (record.tenant, record.flow, span, int(record.ended_at // span) * span)
            cells = found.setdefault(group, {})
            cell = cells.get(record.base)
            if cell is None:
                cell = cells[record.base] = Cell([{} for _ in OUTCOMES], [[] for _ in MEASURES])
            _count(cell, record)


def pieces(cells: Cells) -> Iterator[bytes]:
    """The bodies of these cells: one, or several where they are many."""
    piece: Cells = {}
    size = 0
    for base, cell in cells.items():
        added = len(base) + len(_encoder.encode(cell)) + 4
        if piece and size + added > ADDED_BYTES:
            yield _encoder.encode(piece)
            piece, size = {}, 0
        piece[base] = cell
        size += added
    if piece:
        yield _encoder.encode(piece)


def counts_in(rollup: Rollup, base: str | None) -> dict[str, dict[str, Bins]]:
    """By node, or of this one alone, and by outcome: the bins. Raises `Corrupt`."""
    found = {}
    for name, cell in _wanted(rollup, base):
        counts = _read(_counts, cell).outcomes
        found[name] = {outcome: bins for outcome, bins in zip(OUTCOMES, counts, strict=True) if bins}
    return found


def added(one: bytes, other: bytes) -> bytes:
    """The body that says what both say together."""
    cells = _read(_cells, one)
    for base, cell in _read(_cells, other).items():
        known = cells.get(base)
        cells[base] = cell if known is None else _sum(known, cell)
    return _encoder.encode(cells)


def add_bins(into: Bins, more: Mapping[int, int]) -> None:
    for number, count in more.items():
        into[number] = into.get(number, 0) + count


def records_in(rollup: Rollup, base: str | None, by: str) -> list[AttemptRecord]:
    """The records with most of a measure that a rollup has kept, of this node or of all."""
    place = MEASURES.index(by)
    return [
        _record(rollup, name, row)
        for name, cell in _wanted(rollup, base)
        for row in _read(_rows, _read(_most, cell).most[place])
    ]


# ---------------------------------------------------------------------------------------------------- how


def _wanted(rollup: Rollup, base: str | None) -> list[tuple[str, msgspec.Raw]]:
    cells = _read(_raw_cells, rollup.body)
    return list(cells.items()) if base is None else [(base, cells[base])] if base in cells else []


def _read(decoder: msgspec.json.Decoder[T], body: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Corrupt(f"a rollup that cannot be read: {error}") from error


def _count(cell: Cell, record: AttemptRecord) -> None:
    bins = cell.outcomes[OUTCOMES.index(record.outcome)]
    number = bin_of(record.run_sec)
    bins[number] = bins.get(number, 0) + 1
    for place, by in enumerate(MEASURES):
        value = record.measure(by)
        if not value:
            continue
        most = cell.most[place]
        if len(most) < KEPT or value > _measure(most[-1], place):
            cell.most[place] = _largest([*most, _row(record)], place)


def _sum(one: Cell, other: Cell) -> Cell:
    for into, more in zip(one.outcomes, other.outcomes, strict=True):
        add_bins(into, more)
    most = [
        _largest([*mine, *theirs], place) for place, (mine, theirs) in enumerate(zip(one.most, other.most, strict=True))
    ]
    return Cell(one.outcomes, most)


def _largest(rows: Sequence[Row], place: int) -> list[Row]:
    return sorted(rows, key=lambda row: (-_measure(row, place), row[0], row[1], row[2]))[:KEPT]


def _measure(row: Row, place: int) -> float:
    if place == 0:
        return row[11]
    usage = row[13] or {}
    return float(usage.get("cpu_sec" if place == 1 else "peak_memory_bytes", 0))


def _row(one: AttemptRecord) -> Row:
    return (
        one.task_id, one.node, one.attempt, one.generation, one.role, one.outcome, one.code, one.worker, one.ready_at,
        one.leased_at, one.ended_at, one.run_sec, one.seq, one.usage,
    )  # fmt: skip


def _record(rollup: Rollup, base: str, row: Row) -> AttemptRecord:
    task_id, node, attempt, generation, role, outcome, code, worker, ready, leased, ended, run_sec, seq, usage = row
    names = (task_id, rollup.tenant, rollup.flow, node, base, role)
    return AttemptRecord(*names, attempt, generation, outcome, code, worker, ready, leased, ended, run_sec, seq, usage)
