"""What a machine gives is found by trying, and what it does not give is refused with the reason."""

from __future__ import annotations

import pytest

from flowkit.sandbox import landlock, levels
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.levels import Report, detect
from flowkit.sandbox.runtime import Level


async def test_this_machine_gives_all_levels() -> None:
    report = await detect()

    assert report.refused == {}
    assert report.highest is Level.L3
    report.require(Level.L3)
    assert {fact.name for fact in report.facts if fact.there} >= {"seccomp", "landlock", "bubblewrap"}


async def test_a_machine_without_bubblewrap_and_landlock_gives_l1_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/there/is/nothing")
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    monkeypatch.setattr(levels, "abi", lambda: 0)

    report = await detect()

    assert report.highest is Level.L1
    assert report.refused[Level.L3] == "bubblewrap is not installed"
    assert report.refused[Level.L2] == "this kernel has no Landlock"
    assert {fact.name for fact in report.facts if not fact.there} >= {"landlock", "bubblewrap"}


def test_what_is_not_given_is_refused_with_what_to_do() -> None:
    report = Report((), {Level.L3: "bubblewrap is not installed"})

    report.require(Level.L2)
    with pytest.raises(
        CannotStart, match="does not give L3: bubblewrap is not installed: install bubblewrap"
    ) as caught:
        report.require(Level.L3)

    assert caught.value.code == "E_SANDBOX_LEVEL"
