"""Runtimes that are closed in the end, and one way to run a program to its end."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from flowkit.sandbox.bubblewrap import BubblewrapRuntime
from flowkit.sandbox.landlock import LandlockRuntime

ROOT = Path(__file__).resolve().parents[2]


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


@pytest.fixture(scope="session")
def tree() -> Iterator[Path]:
    """What the trial needs, where every user can read it."""
    with TemporaryDirectory(prefix="flowkit-trial-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "flowkit" / "sandbox", folder / "flowkit" / "sandbox", ignore=ignore)
        shutil.copytree(ROOT / "tests" / "sandbox", folder / "tests" / "sandbox", ignore=ignore)
        for name in ("__init__.py", "lazy.py"):  # what importing the package takes
            shutil.copy(ROOT / "flowkit" / name, folder / "flowkit")
        yield folder
