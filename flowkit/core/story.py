"""What somebody saw recorded of a task, commit by commit: as long as it is at hand, nobody needs to read it again."""

from __future__ import annotations

from collections.abc import Sequence

from flowkit.core.facts import Fact
from flowkit.core.immutable import immutable


@immutable
class Step:
    """One commit as its facts. `at` is epoch seconds."""

    seq: int
    at: float
    facts: Sequence[Fact]
