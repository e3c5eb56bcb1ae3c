"""What a worker tells a program, and how it chooses the level that programs run at."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from flowkit.config import WorkerConfig
from flowkit.errors import ConfigError
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.outcome import Result
from flowkit.sandbox.runtime import Level
from flowkit.worker import program_setup
from flowkit.worker.attempt_secrets import put
from flowkit.worker.program_setup import make_programs, open_runtime, programs_if_likely
from flowkit.worker.programs import given, lift_bytes
from flowkit.worker.results import Next
from flowkit.worker.worker import Worker, runs_code


def test_a_value_is_put_into_a_copy() -> None:
    inputs: dict[str, Any] = {"a": [1, {"b": None}], "c": {}}

    filled = put(inputs, ("a", 1, "b"), "x")

    assert filled == {"a": [1, {"b": "x"}], "c": {}}
    assert inputs == {"a": [1, {"b": None}], "c": {}}
    assert filled["c"] is inputs["c"]
    assert put(None, (), "x") == "x"


def test_bytes_are_lifted_out_with_their_places() -> None:
    assert lift_bytes({"a": [b"\x00", 1], "b": "x"}) == ({"a": [None, 1], "b": "x"}, [[["a", 0], "AA=="]])
    assert lift_bytes(b"\xff") == (None, [[[], "/w=="]])
    plain: dict[str, Any] = {"a": [1]}
    assert lift_bytes(plain) == (plain, [])


def test_what_a_program_gave_chooses_successors_or_is_the_output_whole() -> None:
    chose = Result({"n": 1}, ("b",), "said")

    assert given(chose, whole=False) == Next(["b"], {"n": 1})
    assert given(Result({"n": 1}), whole=False) == {"n": 1}
    assert given(chose, whole=True) == {"nodes": ["b"], "outputs": {"n": 1}, "message": "said"}
    assert given(Result(None), whole=True) == {"nodes": [], "outputs": None, "message": ""}


@pytest.mark.parametrize(
    ("bwrap", "landlock", "settings", "level"),
    [
        (True, 4, {}, Level.L3),
        (False, 4, {}, Level.L2),
        (False, 0, {}, None),
        (False, 0, {"code_trusted": True}, Level.L1),
        (True, 4, {"code_trusted": True}, Level.L3),
        (True, 4, {"code_level": "L2"}, Level.L2),
        (True, 4, {"code_level": "L1"}, None),
        (True, 4, {"code_level": "L1", "code_trusted": True}, Level.L1),
    ],
)
def test_the_level_that_is_likely_is_told_from_what_can_be_seen(
    bwrap: bool, landlock: int, settings: dict[str, Any], level: Level | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.which

    def which(name: str, **options: Any) -> str | None:
        return ("/usr/bin/bwrap" if bwrap else None) if name == "bwrap" else real(name, **options)

    monkeypatch.setattr(shutil, "which", which)
    monkeypatch.setattr(program_setup, "abi", lambda: landlock)

    programs = programs_if_likely(WorkerConfig(**settings))

    assert (None if programs is None else programs.level) is level
    assert runs_code(WorkerConfig(**settings)) is (level is not None)
    if programs is not None and level is not None:
        assert programs.labels["flowkit.sandbox"] == level.name


async def test_level_one_is_never_a_fallback_that_nobody_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowkit.sandbox import levels

    async def nothing() -> levels.Report:
        return levels.Report((), {Level.L3: "no bwrap", Level.L2: "no Landlock"})

    monkeypatch.setattr(levels, "detect", nothing)

    with pytest.raises(CannotStart, match=r"no L3: no bwrap; no L2: no Landlock.*FLOWKIT_CODE_TRUSTED=1"):
        await open_runtime(WorkerConfig())
    with pytest.raises(CannotStart, match="does not give L2: no Landlock"):
        await open_runtime(WorkerConfig(code_level="L2", code_trusted=True))
    assert (await open_runtime(WorkerConfig(code_trusted=True))).level is Level.L1


def test_a_level_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="code_level is one of L1, L2, L3, not 'l3'"):
        make_programs(WorkerConfig(code_level="l3"))
    with pytest.raises(ConfigError, match="a worker needs handlers"):
        Worker(db=tmp_path / "flow.db")
