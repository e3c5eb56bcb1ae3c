"""Whatever is thrown at the language, it answers with a value or one of its two errors, and soon."""

from __future__ import annotations

import pytest

from tests.core.expr.fuzz import run

SHORT = 20_000
LONG = 1_000_000


def test_twenty_thousand_texts_are_read_or_refused() -> None:
    check(run(1, SHORT), SHORT)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_million_texts_are_read_or_refused() -> None:
    check(run(2, LONG), LONG)


def check(became: dict[str, int], cases: int) -> None:
    assert sum(became.values()) == cases
    assert min(became["refused"], became["computed"], became["failed"]) > cases / 10, "too few of one kind to mean much"
