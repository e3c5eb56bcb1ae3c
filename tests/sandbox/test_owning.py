"""A folder that a sweeper takes for nobody's before its owner has its lock is made once more."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowkit.sandbox import owning
from flowkit.sandbox.cgroups import Cgroups
from flowkit.sandbox.hierarchies import Controller
from flowkit.sandbox.landlock import _new_folder
from flowkit.sandbox.owning import own


def test_whoever_owns_a_folder_keeps_others_from_it(tmp_path: Path) -> None:
    lock = own(tmp_path)
    assert lock is not None
    assert own(tmp_path) is None
    os.close(lock)
    again = own(tmp_path)
    assert again is not None
    os.close(again)


def test_what_is_gone_already_cannot_be_owned(tmp_path: Path) -> None:
    assert own(tmp_path / "gone") is None


def test_what_goes_while_it_is_locked_is_not_owned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, locked = tmp_path / "f", fcntl.flock
    folder.mkdir()

    def late(lock: int, how: int) -> None:
        folder.rmdir()
        locked(lock, how)

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(fcntl, "flock", late)
    assert own(folder) is None
    assert len(os.listdir("/proc/self/fd")) == before


def by_cgroups(parent: Path) -> list[Path]:
    groups = Cgroups([Controller("pids", 1, parent)])
    groups.open()
    found = list(parent.iterdir())
    groups.close()
    return found


def by_landlock(parent: Path) -> list[Path]:
    folder, lock = _new_folder(parent)
    os.close(lock)
    return [folder]


@pytest.mark.parametrize("make", [by_cgroups, by_landlock])
def test_a_folder_that_a_sweeper_was_faster_with_is_made_again(
    make: Callable[[Path], list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[str] = []

    class Swept:
        """`os`, where a sweeper strikes right before the first folder is opened."""

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def open(self, path: Path, *more: Any) -> int:
            if not swept:
                swept.append(path.name)
                path.rmdir()
            return os.open(path, *more)

    monkeypatch.setattr(owning, "os", Swept())
    (found,) = make(tmp_path)
    assert len(swept) == 1
    assert found.name not in swept
