"""How this suite runs: in which order, within which limits, and what its processes share."""

from __future__ import annotations

import gc
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import engine

from tests import shared
from tests.conftest import turn_of
from tests.shared import ENOUGH_BYTES, address_of, place_of_data


def test_making_a_failure_smaller_ends_before_a_test_is_taken_for_hung(pytestconfig: pytest.Config) -> None:
    # Beside it, the failure was found, and is run a few times more to be told.
    limit_sec = float(pytestconfig.getini("timeout"))

    assert limit_sec >= 3 * engine.MAX_SHRINKING_SECONDS


def test_the_limit_on_making_a_failure_smaller_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_SHRINKING_SECONDS", 0.0)
    at_once = runs_until_it_is_told()
    monkeypatch.setattr(engine, "MAX_SHRINKING_SECONDS", 60)

    assert at_once < runs_until_it_is_told() / 4


def runs_until_it_is_told() -> int:
    """How often something that fails is run, to find that and to make it smaller."""
    runs = 0

    @settings(database=None, phases=[Phase.generate, Phase.shrink])
    @given(st.lists(st.integers(0, 10**4), min_size=8, max_size=16))
    def fails(numbers: list[int]) -> None:
        nonlocal runs
        runs += 1
        assert sum(numbers) % 7 != 3 or len(set(numbers)) < 6

    with pytest.raises(AssertionError):
        fails()
    return runs


@pytest.mark.parametrize(
    ("path", "marks", "turn"),
    [
        ("tests/core/test_decide.py", [], 0),
        ("tests/integration/test_kills.py", ["crowd"], 1),
        ("tests/integration/test_durability.py", [], 2),
        ("tests/integration/test_end_to_end.py", [], 3),
    ],
)
def test_what_waits_comes_last_beside_what_needs_the_whole_machine(path: str, marks: list[str], turn: int) -> None:
    item: Any = SimpleNamespace(path=Path(path), get_closest_marker=lambda name: name if name in marks else None)

    assert turn_of(item) == turn


@pytest.mark.xdist_group("together")
def test_a_group_of_tests_is_known_to_whoever_deals_them_out(request: pytest.FixtureRequest) -> None:
    in_groups = request.config.getoption("loadgroup", default=False)

    assert request.node.nodeid.endswith("@together") is in_groups


def test_many_that_need_a_server_at_once_start_one(tmp_path: Path) -> None:
    started: list[int] = []

    def start() -> str:
        started.append(len(started) + 1)
        return f"address {len(started)}"

    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda _: address_of("kafka", tmp_path, start), range(8)))

    assert told == ["address 1"] * 8
    assert started == [1]
    assert address_of("mongo", tmp_path, start) == "address 2"


def test_who_comes_after_one_whose_server_did_not_start_tries_again(tmp_path: Path) -> None:
    def fails() -> str:
        raise LookupError("no java")

    with pytest.raises(LookupError):
        address_of("kafka", tmp_path, fails)

    assert address_of("kafka", tmp_path, lambda: "here") == "here"


@pytest.mark.parametrize(
    ("free", "available", "place"),
    [(ENOUGH_BYTES, 2 * ENOUGH_BYTES, "/dev/shm"), (ENOUGH_BYTES - 1, 2 * ENOUGH_BYTES, None), (ENOUGH_BYTES, 1, None)],
)
@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no memory file system")
def test_servers_keep_their_data_in_memory_where_there_is_plenty(
    monkeypatch: pytest.MonkeyPatch, free: int, available: int, place: str | None
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    monkeypatch.setattr(shared, "_available_bytes", lambda: available)

    assert place_of_data() == place


def test_the_suite_itself_is_not_collected_again_and_what_it_starts_compiles_once() -> None:
    assert gc.isenabled()
    assert gc.get_freeze_count() > 10_000
    assert "PYTHONDONTWRITEBYTECODE" not in os.environ
