"""The checks have teeth: with a guard taken out of the real code, promises are broken, and that is noticed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from flowkit.testing.guards import GUARDS, LOOKED_FOR
from flowkit.testing.runner import describe, run_in_processes, run_seeds

# What shows within a few seeds, and how: what takes a hundred, or more, shows in one version of the code and not in the
# next. All of them are taken away in `make nightly`.
PLAIN = {
    "unique": "commit_lost",
    "unknown_no_yes": "phantom_event",
    "duplicate_no_yes": "phantom_event",
    "confirm_task": "accepted_task_lost",
    "publish_after": "start_without_commit",
    "dedupe": "token_ran_twice",
    "held_until_ack": "finished_work_rerun",
    "resend": "not_ended",
    "exp_facts": "wasted_result",
    "renew_in_store": "rerun_of_running",
    "full_ttl": "overlap",
    "republish": "event_missed",
    "head_published": "head_open",
    "evict_head": "head_open",
    "confirm_request": "request_twice",
    "generation": "timer_early",
    "attempts_grow": "bad_lease",
}
CALM = ("lost_stops",)
# These change how the world is: there is nothing to count.
TILTS = ("stale_loads", "late_heads", "restart_before_timeout")


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("name", "kind"), PLAIN.items())
def test_a_missing_guard_shows_at_once(name: str, kind: str) -> None:
    guard = GUARDS[name]
    for first in range(0, 100, 2):
        without = (name, *guard.seconds)
        if kind in run_seeds(range(first, first + 2), guard.mode, without=without, directed=guard.directed).bad:
            return
    pytest.fail(f"100 seeds without {name!r}, and no {kind}")


def test_a_failing_seed_is_printed_with_the_command_that_replays_it() -> None:
    for first in range(0, 60, 3):
        tally = run_in_processes(first, first + 3, without=["republish"], jobs=1)
        if "event_missed" in tally.bad:
            break

    said = describe(tally)
    [command, *_] = re.findall(r"replay: (python -m flowkit\.testing trace .*)", said)
    done = subprocess.run([sys.executable, *shlex.split(command)[1:]], capture_output=True, text=True, check=False)

    assert "event_missed: in" in said
    assert done.returncode == 1
    assert "event_missed: " in done.stdout
    assert "LOSES" in done.stdout or "CRASH" in done.stdout or "REBALANCE" in done.stdout, "it shows what happened"


FAULTS = sorted({fault for faults in LOOKED_FOR.values() for fault in faults})


@pytest.mark.timeout(240)
@pytest.mark.parametrize("fault", FAULTS)
def test_with_all_guards_a_directed_fault_breaks_nothing(fault: str) -> None:
    for first in range(0, 40, 4):
        tally = run_seeds(range(first, first + 4), "calm" if fault in CALM else "chaos", directed=[fault])

        assert not tally.bad, "\n" + describe(tally)
        if tally.counts[f"D_{fault}"] > 0 or fault in TILTS:
            return
    pytest.fail(f"no {fault} in 40 seeds")


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_with_all_guards_hundreds_of_directed_faults_break_nothing(fault: str) -> None:
    tally = run_in_processes(0, 300, "calm" if fault in CALM else "chaos", directed=[fault])

    assert not tally.bad, "\n" + describe(tally)
    assert tally.counts[f"D_{fault}"] > 0 or fault in TILTS


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["chaos", "calm", "outage", "ccrash"])
def test_thousands_of_seeds(mode: str) -> None:
    tally = run_in_processes(1000, 6000 if mode == "chaos" else 2000, mode)

    assert not tally.bad, "\n" + describe(tally)
