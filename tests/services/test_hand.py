"""What a unit keeps of scripts that are run by hand."""

from __future__ import annotations

import time
import uuid

import pytest

from flowkit.services import hand
from flowkit.services.door import Refusal
from flowkit.services.hand import Hand
from flowkit.services.passes import Pass
from flowkit.services.secret_values import SecretValues
from flowkit.services.settings import KINDS, read_settings


@pytest.fixture
def unit() -> Hand:
    return Hand(SecretValues(read_settings(KINDS["npu"], None, {})))


def holder() -> Pass:
    return Pass(str(uuid.uuid4()), "step", (), time.time() + 60)


def test_a_script_gives_one_result(unit: Hand) -> None:
    mine = holder()
    unit.say(mine, "begun")
    unit.end(mine, ["next"], {"n": 1}, "done", "DONE")

    run = unit.find(mine.runner_id)
    assert run is not None
    assert (run.logs, run.nodes, run.outputs, run.status) == (["begun"], ["next"], {"n": 1}, "DONE")
    with pytest.raises(Refusal, match="gives one"):
        unit.end(mine, [], {}, "", "DONE")


def test_results_are_kept_within_so_many_bytes_and_the_oldest_ended_go_first(
    unit: Hand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand, "MOST_BYTES", 10_000)
    running, passes = holder(), [holder() for _ in range(12)]
    unit.say(running, "still at it")
    for one in passes:
        unit.end(one, [], {"text": "x" * 1000}, "", "DONE")

    known = [unit.find(one.runner_id) is not None for one in passes]
    assert known == [False] * (12 - sum(known)) + [True] * sum(known)
    assert 7 <= sum(known) <= 9
    assert unit.find(running.runner_id) is not None


def test_of_many_scripts_those_that_have_ended_are_forgotten_first(unit: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand, "MOST", 3)
    first, *others = [holder() for _ in range(4)]
    unit.say(first, "I take my time")
    for one in others:
        unit.end(one, [], {}, "", "DONE")

    assert [unit.find(one.runner_id) is not None for one in (first, *others)] == [True, False, True, True]


def test_one_result_is_kept_however_large_it_is(unit: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand, "MOST_BYTES", 10)
    mine = holder()
    unit.end(mine, [], {"text": "x" * 1000}, "", "DONE")

    assert unit.find(mine.runner_id) is not None
