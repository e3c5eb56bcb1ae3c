"""Measures what an evaluation takes, in CPU time of this process."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from flowkit.core.expr import ExprError, Expression

MOST_NS = 1_000_000
ATTEMPTS = 2_000


def duration(expression: Expression, scope: Mapping[str, Any]) -> int:
    """Nanoseconds of one evaluation, whether it gives a value or fails."""
    start = time.process_time_ns()
    with suppress(ExprError):
        expression.evaluate(scope)
    return time.process_time_ns() - start


def is_fast(expression: Expression, scope: Mapping[str, Any]) -> bool:
    """Whether it can be done in a millisecond: on a busy machine not every time, so the best of many counts."""
    return any(duration(expression, scope) <= MOST_NS for _ in range(ATTEMPTS))
