"""The chain of what was done with secrets: whatever is touched is found, at the first place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from flowkit.ports import AuditRow
from flowkit.wire.audit import Check, Mark, chained, digest_of, mark_of

Touch = Callable[[list[AuditRow]], list[AuditRow]]


def chain(length: int, *, start: Mark | None = None, note: str = "") -> list[AuditRow]:
    rows: list[AuditRow] = []
    for number in range(length):
        row = AuditRow(f"id{number}", 1.5 + number, "t", "ann", "use", f"KEY{number}", number, note=note)
        rows.append(chained(row, mark_of(rows[-1]) if rows else start or Mark()))
    return rows


def looked(rows: list[AuditRow], noted: Mark | None = None) -> str:
    check = Check(noted)
    check.take(rows)
    check.end()
    return check.problem


def changed(place: int, *, again: bool = False, **fields: object) -> Touch:
    def touch(rows: list[AuditRow]) -> list[AuditRow]:
        row = replace(rows[place], **fields)  # type: ignore[arg-type]
        rows[place] = replace(row, digest=digest_of(row)) if again else row
        return rows

    return touch


def removed(place: int) -> Touch:
    return lambda rows: rows[:place] + rows[place + 1 :]


def inserted(place: int) -> Touch:
    def touch(rows: list[AuditRow]) -> list[AuditRow]:
        forged = chained(AuditRow("evil", 1.0, "t", "eve", "use", "KEY"), mark_of(rows[place - 1]) if place else Mark())
        return [*rows[:place], forged, *rows[place:]]

    return touch


def test_a_chain_that_nobody_touched_is_whole_and_says_where_it_ends() -> None:
    rows = chain(5)
    check = Check(mark_of(rows[2]))
    check.take(rows[:3])
    check.take(rows[3:])
    check.end()

    assert (check.problem, check.rows, check.last) == ("", 5, Mark(5, rows[4].digest))
    assert looked([]) == looked(rows, mark_of(rows[4])) == ""


@pytest.mark.parametrize(
    ("touch", "said"),
    [
        *((changed(place, name="OTHER"), f"row {place + 1} was changed") for place in range(5)),
        *((changed(place, name="OTHER", again=True), f"row {place + 1} was changed") for place in range(4)),
        (changed(1, at=9.25), "row 2 was changed"),
        (changed(1, note="x"), "row 2 was changed"),
        (changed(2, previous="0" * 64), "row 2 was changed"),
        *((removed(place), f"row {place + 1} was removed: the next one is row {place + 2}") for place in range(4)),
        *((inserted(place), "there is another one of this number") for place in range(1, 5)),
        (lambda rows: rows[1:] and [replace(row, seq=row.seq - 1) for row in rows[1:]], "row 1 was inserted"),
        (lambda rows: [rows[1], rows[0], *rows[2:]], "row 1 was removed"),
    ],
)
def test_the_first_row_that_was_touched_is_told(touch: Touch, said: str) -> None:
    assert said in looked(touch(chain(5)))


def test_what_was_written_anew_or_removed_from_the_end_is_seen_by_who_noted_the_last_row() -> None:
    rows, anew = chain(5), chain(5, note="other")
    noted = mark_of(rows[3])

    assert looked(anew) == looked(rows[:2]) == ""  # by itself it does not show
    assert "it is not the one noted" in looked(anew, noted)
    assert looked(rows[:2], noted) == "row 3 was removed, with all behind it: row 4 was noted"
    assert looked([], noted) == "row 1 was removed, with all behind it: row 4 was noted"


def test_no_two_rows_are_the_same_bytes() -> None:
    one = AuditRow("id", 1.0, "t", "ann", "use", "KEY", note="")
    others = [
        replace(one, id="i", at=1.0, tenant="dt"), replace(one, principal="annu", action="se"), replace(one, at=1.5),
        replace(one, version=1), replace(one, attempt=1), replace(one, seq=1), replace(one, previous="a"),
        replace(one, worker="a"), replace(one, note="a"),
    ]  # fmt: skip
    assert len({digest_of(row) for row in (one, *others)}) == len(others) + 1
    # Fixed for ever: chains that were written must stay readable.
    assert digest_of(one) == "67cfcea68fb3667b0daa23ffb3dd4ed7d8f316e8b98166387fde937fb119937c"
