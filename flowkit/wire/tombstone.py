"""The commit that ends a task's history for good: whoever deletes the task inserts it under the next number, as any
decision would be, so that one of the two fails."""

from __future__ import annotations

import uuid
from typing import Final

from flowkit.ports import Commit

TOMBSTONE: Final = '[["deleted"]]'
"""No fact: nothing is folded any more. To a version that does not know it, it is one of a newer version."""


def tombstone(task_id: str, seq: int, *, at: float, by: str) -> Commit:
    return Commit(task_id, seq, uuid.uuid4().hex, "", at, by, TOMBSTONE)


def is_tombstone(commit: Commit) -> bool:
    return commit.body == TOMBSTONE
