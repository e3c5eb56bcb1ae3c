"""The chain of what was done with a tenant's secrets: each row has the digest of the one before, and its own.

A digest is the SHA-256 of the row's canonical bytes, the digest before included; so no row can be changed, removed or
put in between without changing all behind it. The last one stands for all: whoever has noted it elsewhere can tell
whether any of them was touched since.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from flowkit.ports import AuditRow

_DOMAIN: Final = b"flowkit audit v1\x00"
_TEXTS: Final = struct.Struct(">I")
_NUMBERS: Final = struct.Struct(">dqqq")


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a chain ends, or ended once: its last row's number, and digest. The number 0: no row yet."""

    seq: int = 0
    digest: str = ""


def chained(row: AuditRow, last: Mark) -> AuditRow:
    """The row as the next one behind `last`."""
    linked = replace(row, seq=last.seq + 1, previous=last.digest)
    return replace(linked, digest=digest_of(linked))


def mark_of(row: AuditRow) -> Mark:
    return Mark(row.seq, row.digest)


def digest_of(row: AuditRow) -> str:
    """The digest that the row must have: over all of it but that itself."""
    parts = [_DOMAIN, _NUMBERS.pack(row.at, row.version, row.attempt, row.seq)]
    for text in (
        row.id, row.tenant, row.principal, row.action, row.name, row.outcome, row.flow, row.task_id, row.node,
        row.worker, row.note, row.previous,
    ):  # fmt: skip
        data = text.encode()
        parts += (_TEXTS.pack(len(data)), data)  # with its length before it: no two rows are the same bytes
    return hashlib.sha256(b"".join(parts)).hexdigest()


class Check:
    """Goes along a chain, row by row in the order of their numbers. `problem` says what is wrong at the first place
    where something is."""

    def __init__(self, noted: Mark | None = None) -> None:
        self.problem = ""
        self.rows = 0
        self._noted = noted
        self._last: AuditRow | None = None

    @property
    def last(self) -> Mark:
        return Mark() if self._last is None else mark_of(self._last)

    def take(self, rows: Iterable[AuditRow]) -> None:
        """Look at these, until something is wrong."""
        for row in rows:
            if self.problem:
                return
            self.problem = self._look(row)
            self._last = row
            self.rows += 1

    def end(self) -> None:
        """There are no more rows."""
        if not self.problem and self._noted is not None and self._noted.seq > self.last.seq:
            self.problem = f"row {self.last.seq + 1} was removed, with all behind it: row {self._noted.seq} was noted"

    def _look(self, row: AuditRow) -> str:
        number, before = self.last.seq + 1, self._last
        if row.seq > number:
            return f"row {number} was removed: the next one is row {row.seq}"
        if row.seq < number:
            return f"row {row.seq} was inserted ({_said(row)}): there is another one of this number"
        if row.previous != self.last.digest:
            if before is None:
                return f"row {number} was inserted ({_said(row)}): it says that there was one before it"
            return f"row {before.seq} was changed ({_said(before)}): row {number} was written behind another one"
        if row.digest != digest_of(row):
            return f"row {number} was changed ({_said(row)})"
        if self._noted is not None and self._noted.seq == number and self._noted.digest != row.digest:
            return f"row {number} or one before it was changed, and all behind it with it: it is not the one noted"
        return ""


def _said(row: AuditRow) -> str:
    return f"{row.action} {row.name!r} by {row.principal!r}"
