"""Cuts a decision into commits that a store takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import count
from typing import Final

from flowkit.coordinator.cell import Cell
from flowkit.core import facts as f
from flowkit.ports import Commit
from flowkit.wire.facts import body_of, encode_body, encode_facts

SLICE: Final = 32
"""So many facts are written at once."""


class Portions:
    """`by` is the coordinator, whose commits have ids of their own; `most_bytes` is what a commit's facts may take."""

    def __init__(self, by: str, most_bytes: int) -> None:
        self._by = by
        self._most_bytes = most_bytes
        self._ids = count(1)

    def of(self, cell: Cell, recorded: Sequence[f.Fact], at: float) -> deque[Commit]:
        """The decision as consecutive commits, each under the size limit and each prefix a legal state (rule 14).

        `at` is the time that the decision was made with: a replay must fold with the very same.
        """
        if (body := self._in_one(recorded)) is not None:  # nearly always
            return deque((self._next(cell, cell.acked + 1, cell.prev, at, body),))
        commits: deque[Commit] = deque()
        chunk: list[bytes] = []
        size, seq, prev = 0, cell.acked, cell.prev
        texts = encode_facts(recorded)
        for place, text in enumerate(texts):
            chunk.append(text)
            size += len(text) + 1
            last = place == len(texts) - 1
            # An answered request and what it did are one: the next fact belongs to it.
            whole = not isinstance(recorded[place], f.RequestApplied)
            if last or (whole and size + len(texts[place + 1]) > self._most_bytes):
                seq += 1
                commits.append(self._next(cell, seq, prev, at, body_of(chunk)))
                prev, chunk, size = commits[-1].id, [], 0
        return commits

    def _in_one(self, recorded: Sequence[f.Fact]) -> str | None:
        """The body of a commit with all of them; None where it would be too large. Written in slices, so that no more
        is written in vain than one commit holds, and another slice."""
        slices: list[bytes] = []
        left = self._most_bytes
        for start in range(0, len(recorded), SLICE):
            text = encode_body(recorded[start : start + SLICE])
            left -= len(text)
            if left < 0:
                return None
            slices.append(text[1:-1])
        return body_of(slices)

    def _next(self, cell: Cell, seq: int, prev: str, at: float, body: str) -> Commit:
        commit_id = f"{self._by}.{next(self._ids)}"
        return Commit(cell.task_id, seq, commit_id, prev, at, self._by, body)
