"""What a handler gives, without the secrets that its attempt holds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowkit.worker.attempt import Attempt
    from flowkit.worker.inputs import RunSync

Covered = Callable[[Any], Awaitable[Any]]
"""Makes of a value one that may be kept; of a tuple each, and of None itself."""


def covering(attempt: Attempt, run_sync: RunSync) -> Covered | None:
    """How to cover what the attempt gives; None where it holds no secrets."""
    cover = attempt.cover
    if cover is None:
        return None

    async def covered(value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, tuple):
            return tuple([await covered(one) for one in value])
        return await run_sync(lambda: cover.output(value))

    return covered
