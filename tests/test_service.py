"""Who owns background work."""

from __future__ import annotations

import inspect

import pytest

from flowkit.service import Supervisor
from flowkit.telemetry import Telemetry


def test_what_nobody_would_run_any_more_is_closed_and_not_left_behind() -> None:
    async def work() -> None: ...

    late = work()
    with pytest.raises(RuntimeError, match="no running event loop"):
        Supervisor("owner", Telemetry()).spawn(late, "late")

    assert inspect.getcoroutinestate(late) == inspect.CORO_CLOSED
