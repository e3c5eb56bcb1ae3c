"""Many seeds are summed up, for people and for other processes; the command line shows, lists and replays."""

from __future__ import annotations

import json

import pytest

from flowkit.testing import runner
from flowkit.testing.__main__ import main
from flowkit.testing.evidence import Violation
from flowkit.testing.runner import Tally, describe, from_json, replay, run_in_processes, run_seeds, to_json
from flowkit.testing.world import Report


def report(seed: int, *violations: Violation) -> Report:
    return Report(
        seed=seed, mode="chaos", violations=list(violations), counts={"F_kafka_down": 2, "kafka_lost": 3},
        recover_sec=float(seed), digest="x", steps=100, virtual_sec=50.0, runs=11, needed=10, most_runs=2,
    )  # fmt: skip


def test_reports_add_up_and_tallies_merge() -> None:
    one, other = Tally("chaos", ["token"], []), Tally("chaos", ["token"], [])
    one.add(report(1))
    other.add(report(2, Violation("overlap", "t", "x")))
    one.merge(from_json(to_json(other)))

    assert (one.seeds, one.runs, one.needed, one.most_runs) == (2, 22, 20, 2)
    assert one.counts["F_kafka_down"] == 4
    assert one.bad == {"overlap": [(2, "t x")]}
    assert one.bad_seeds == {2}
    text = describe(one)
    assert "5.00 faults per seed, 2.00 of them planned" in text
    assert "1.100 runs per needed run" in text
    assert "overlap: in 1 seeds (50.0 %)" in text
    assert "replay: python -m flowkit.testing trace 2 --mode chaos --without token" in text


def test_the_command_that_replays_names_everything() -> None:
    tally = Tally("calm", ["a", "b"], ["c"])

    assert replay(7, tally) == "python -m flowkit.testing trace 7 --mode calm --without a --without b --directed c"


def test_a_world_that_fails_itself_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowkit.testing import play

    def broken(*args: object, **more: object) -> Report:
        raise LookupError("lost")

    monkeypatch.setattr(play, "simulate", broken)

    [(seed, detail)] = run_seeds([3]).bad["world_failed"]
    assert seed == 3
    assert "LookupError: lost" in detail


def test_a_budget_of_time_is_kept() -> None:
    assert run_seeds(range(100), "calm", budget_sec=0.0).seeds == 1


def test_it_stops_at_the_first_seed_that_breaks_a_promise() -> None:
    tally = run_seeds(range(100), without=["unique"], until_bad=True)

    assert 0 < tally.seeds < 20
    assert tally.bad_seeds == {tally.seeds - 1}


def test_several_processes_come_to_the_same_as_one() -> None:
    alone, together = run_seeds(range(4), "chaos"), run_in_processes(0, 4, "chaos", jobs=2)

    assert together.seeds == 4
    assert (alone.steps, alone.runs, alone.counts) == (together.steps, together.runs, together.counts)


def test_a_process_that_fails_is_not_overlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner.sys, "executable", "/bin/false")

    with pytest.raises((RuntimeError, json.JSONDecodeError)):
        run_in_processes(0, 2, jobs=1)


def test_the_command_line_shows_a_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trace", "5", "--mode", "calm"]) == 0

    shown = capsys.readouterr().out
    assert "ACCEPTED t0" in shown
    assert "TaskCreated" in shown
    assert "trace hash" in shown


def test_the_command_line_runs_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--seeds", "0:2", "--mode", "calm"]) == 0
    assert "2 seeds, mode calm" in capsys.readouterr().out

    assert main(["run", "--seeds", "3", "--mode", "calm", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seeds"] == 1


def test_the_command_line_takes_guards_away(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--seeds", "0:3", "--mode", "chaos", "--without", "full_ttl", "--without", "unique"]) == 1
    assert "--without full_ttl --without unique" in capsys.readouterr().out

    assert main(["guards"]) == 0
    assert "publish_after        rule  3" in capsys.readouterr().out


def test_a_wrong_mode_is_refused() -> None:
    with pytest.raises(SystemExit):
        main(["run", "--mode", "stormy"])
