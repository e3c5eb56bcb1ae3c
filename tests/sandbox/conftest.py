"""Runtimes that are closed in the end, and one way to run a program to its end."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

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


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that every user can enter."""
    with TemporaryDirectory(prefix="flowkit-test-") as path:
        os.chmod(path, 0o755)  # noqa: S103  programs that root starts are other users
        yield Path(path)
