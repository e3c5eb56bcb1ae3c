"""Runtimes that are closed in the end, and one way to run a program to its end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from flowkit.sandbox.bubblewrap import BubblewrapRuntime
from flowkit.sandbox.landlock import LandlockRuntime


@pytest.fixture
async def l3() -> AsyncIterator[BubblewrapRuntime]:
    runtime = BubblewrapRuntime()
    yield runtime
    await runtime.close()


@pytest.fixture
async def l2() -> AsyncIterator[LandlockRuntime]:
    runtime = LandlockRuntime()
    yield runtime
    await runtime.close()
