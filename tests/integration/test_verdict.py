"""The judge of the kills has teeth: a run that shows what it must passes, and each thing that it may not show is told.

No server is needed: the runs are written down by hand.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pymongo")

from flowkit.core import facts as f
from flowkit.core.dialect import parse_graph
from flowkit.core.payload import Payload
from flowkit.ports import Commit, Head
from flowkit.testing import Violation
from flowkit.wire.facts import body_of, encode_facts
from tests.integration.harness.demands import of_kills, of_load
from tests.integration.harness.ledger import Ledger
from tests.integration.harness.verdict import Facts, Fault, Verdict

KILLED_AT = 100.0
TASKS, HIT = 30, 4
PLAN = {"worker_kill": 1}


class ByHand(Verdict):
    """What the independent checker says is its own tests' affair."""

    def violations(self) -> list[Violation]:
        return []


@dataclass
class Story:
    """Thirty tasks of one node run when worker `w0` is killed, which has four of them; these run again on `w1`."""

    folder: Path
    again_at: float = 110.5
    lines: list[tuple[float, str, str, int, str]] = field(default_factory=list)
    commits: dict[str, list[Commit]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=lambda: [Fault("worker_kill", "w0", KILLED_AT)])
    lost: set[str] = field(default_factory=set)
    graph: Any = field(default_factory=lambda: {"nodes": [{"node_id": "n", "type": "step"}]})

    def __post_init__(self) -> None:
        for n in range(TASKS):
            task_id = f"t{n}"
            if n < HIT:
                self.run(task_id, 1, "w0", 99.0, None)
                self.commit(task_id, self.again_at, f.LeaseLost("n", 1, "k1", "expired", self.again_at, True))
                self.run(task_id, 2, "w1", self.again_at, self.again_at + 1)
            else:
                self.run(task_id, 1, "w1", 99.0, 101.0)

    def run(self, task_id: str, attempt: int, worker: str, began: float, ended: float | None) -> None:
        """A start, its lease just before, and if it ended well its result just after."""
        self.lines.append((began, "start", task_id, attempt, worker))
        self.commit(task_id, began - 0.01, f.AttemptLeased("n", attempt, f"k{attempt}", worker, "i", 0.0))
        if ended is not None:
            self.lines.append((ended, "done", task_id, attempt, worker))
            self.commit(task_id, ended + 0.01, f.AttemptSucceeded("n", attempt, f"k{attempt}", Payload(1)))

    def commit(self, task_id: str, at: float, *facts: f.Fact) -> None:
        history = self.commits.setdefault(task_id, [])
        seq = len(history) + 1
        history.append(Commit(task_id, seq, f"{task_id}-{seq}", "", at, "c0.0-x", body_of(encode_facts(facts))))

    def verdict(self) -> Verdict:
        path = self.folder / "ledger"
        with path.open("w") as file:
            for at, what, task_id, attempt, worker in sorted(self.lines):
                line = [at, what, task_id, "n", attempt, worker, 1, f"{task_id}:0:n"]
                file.write(json.dumps(line) + "\n")
        heads = {
            task_id: Head(task_id, 0, "ref", created_at=98.0, status="running" if task_id in self.lost else "finished")
            for task_id in self.commits
        }
        facts = Facts(heads, {"ref": parse_graph(self.graph)}, self.commits)
        return ByHand(self.faults, Ledger(path), facts, [f"t{n}" for n in range(TASKS)])

    def missed(self, plan: dict[str, int] = PLAN) -> list[str]:
        return [demand.what for demand in of_kills(self.verdict(), plan) if not demand.met]


@pytest.fixture
def story(tmp_path: Path) -> Story:
    return Story(tmp_path)


def test_a_run_that_shows_what_it_must_misses_nothing(story: Story) -> None:
    assert story.missed() == []


def test_a_fault_that_did_not_strike_is_missed(story: Story) -> None:
    assert story.missed({"worker_kill": 2}) == ["faults: worker_kill"]


def test_too_few_that_ran_when_it_struck_are_told_by_the_ledger(story: Story) -> None:
    story.faults[0].at = 101.5  # most had ended

    assert "attempts that ran when a fault struck, the fewest" in story.missed()


def test_what_ran_on_those_killed_before_does_not_count_as_running(tmp_path: Path) -> None:
    story = Story(tmp_path)
    story.faults.insert(0, Fault("worker_kill", "w1", 99.5))

    assert "attempts that ran when a fault struck, the fewest" in story.missed({"worker_kill": 2})


def test_a_lost_task_is_told(story: Story) -> None:
    story.lost.add("t7")

    assert story.missed() == ["tasks lost"]


def test_a_result_that_was_applied_twice_is_told(story: Story) -> None:
    story.commit("t7", 102.0, f.AttemptSucceeded("n", 1, "k1", Payload(1)))

    assert story.missed() == ["results applied twice"]


def test_one_run_more_than_a_fault_hit_is_told_though_others_were_saved(story: Story) -> None:
    story.run("t7", 2, "w1", 105.0, 106.0)

    assert "re-executions of attempts that no fault hit" in story.missed()


def test_more_runs_than_attempts_were_hit_are_told(story: Story) -> None:
    for n in range(HIT):
        story.run(f"t{n}", 3, "w1", 112.0, 113.0)

    assert "re-executions" in story.missed()


def test_a_result_that_was_on_its_way_excuses_a_run_and_one_that_arrived_does_not(story: Story) -> None:
    story.lines += [(99.0, "start", "t40", 1, "w0"), (99.9, "done", "t40", 1, "w0")]
    story.commit("t40", 98.9, f.AttemptLeased("n", 1, "k1", "w0", "i", 0.0))
    story.commit("t40", 110.4, f.LeaseLost("n", 1, "k1", "expired", 110.4, True))
    story.run("t40", 2, "w1", 110.5, 111.0)
    assert story.missed() == []

    story.run("t41", 1, "w0", 99.0, 99.9)
    story.run("t41", 2, "w1", 110.5, 111.0)
    assert "re-executions of attempts that no fault hit" in story.missed()


def test_what_began_between_the_look_at_the_clock_and_the_kill_was_hit_and_holds_nothing(story: Story) -> None:
    story.run("t40", 1, "w0", KILLED_AT + 0.002, None)
    story.commit("t40", 110.4, f.LeaseLost("n", 1, "k1", "expired", 110.4, True))
    story.run("t40", 2, "w1", 110.5, 111.0)
    assert story.missed() == []
    assert limited(story, TASKS).missed() == []
    story.run("t41", 1, "w0", KILLED_AT + 0.002, KILLED_AT + 0.5)  # no dead process ends anything
    story.run("t41", 2, "w1", 110.5, 111.0)
    assert "re-executions of attempts that no fault hit" in story.missed()


def test_what_a_freeze_caught_between_the_last_look_and_the_first_line_is_excused_once(story: Story) -> None:
    story.faults.append(Fault("worker_stop", "w2", 120.0, 140.0))
    plan = {"worker_kill": 1, "worker_stop": 1}

    def late_start(task_id: str) -> None:
        story.commit(task_id, 119.9, f.AttemptLeased("n", 1, "k1", "w2", "i", 0.0))
        story.commit(task_id, 130.0, f.LeaseLost("n", 1, "k1", "expired", 130.0, True))
        story.run(task_id, 2, "w1", 130.1, 131.0)
        story.lines += [(140.1, "start", task_id, 1, "w2"), (140.2, "done", task_id, 1, "w2")]

    late_start("t40")
    assert "re-executions of attempts that no fault hit" not in story.missed(plan)
    late_start("t41")
    assert "re-executions of attempts that no fault hit" in story.missed(plan)


def test_a_slow_recovery_is_told(tmp_path: Path) -> None:
    assert Story(tmp_path, again_at=111.9).missed() == []
    assert Story(tmp_path, again_at=112.1).missed() == ["worker_kill: what ran there runs again, p99 s"]


def test_what_never_ran_again_is_no_recovery(story: Story) -> None:
    story.lines = [line for line in story.lines if line[2:4] != ("t0", 2)]
    story.commits["t0"] = story.commits["t0"][:1]

    assert "worker_kill: what ran there runs again, p99 s" in story.missed()


def test_a_kill_that_hit_nothing_proves_nothing(story: Story) -> None:
    story.faults[0].victim = "w9"

    assert "worker_kill: what ran there runs again, cases" in story.missed()


@pytest.mark.parametrize(
    ("resumed", "missed"), [(7.9, []), (8.1, ["partitions"]), (9.9, ["partitions"]), (10.1, ["partitions", "tasks"])]
)
def test_a_coordinators_partitions_and_tasks_must_go_on_in_time(
    tmp_path: Path, resumed: float, missed: list[str]
) -> None:
    story = Story(tmp_path)
    story.faults.append(Fault("coordinator_kill", "c0.0", 105.0))
    story.run("t50", 1, "w1", 104.0, 105.0 + resumed)
    last = story.commits["t50"].pop()
    story.commits["t50"].append(Commit(last.task_id, 2, "x", "", 105.0 + resumed, "c1.0-y", last.body))
    for n in range(HIT):  # these are another partition's business
        del story.commits[f"t{n}"]
        story.lines = [line for line in story.lines if line[2] != f"t{n}"]
    for n in range(HIT, TASKS):
        story.lines.append((104.0, "start", f"busy{n}", 1, "w1"))

    found = [what for what in story.missed({"coordinator_kill": 1}) if what.startswith("coordinator_kill")]
    assert found == [f"coordinator_kill: its {what} go on, p99 s" for what in missed]


# ------------------------------------------------------------------------------------------ limits, and the load


def limited(story: Story, most: int) -> Story:
    limits = [{"key": "all", "max": most}]
    story.graph = {"nodes": [{"node_id": "n", "type": "step", "limits": limits}]}
    return story


def test_more_at_once_than_a_limit_allows_is_told_and_what_was_killed_holds_nothing(story: Story) -> None:
    assert limited(story, TASKS).missed() == []
    assert limited(story, TASKS - 1).missed() == ["limits of which more was in use than there is"]

    # Those that were killed run again beside all others, whose end comes later.
    for n in range(HIT):
        story.run(f"t{n + 50}", 1, "w1", 100.2, 100.8)
    assert limited(story, TASKS).missed() == []


def test_a_run_that_stood_still_holds_nothing_while_it_does(story: Story) -> None:
    story.faults.append(Fault("worker_stop", "w1", 99.5, 119.5))
    for n in range(TASKS):
        story.run(f"t{n + 50}", 1, "w2", 100.1, 100.9)

    assert story.verdict().held() == {}
    assert limited(story, TASKS).verdict().held() == {"all": (TASKS, TASKS)}


def test_a_load_without_a_kind_of_task_or_of_which_nothing_waited_proves_nothing(story: Story) -> None:
    story.commit("t7", 102.0, f.NodeFinished("n", Payload(1), cached=True))

    def missed(ended: dict[str, int]) -> list[str]:
        return [demand.what for demand in of_load(story.verdict(), ended) if not demand.met]

    unused = "limits that were used up, if only for a moment"
    assert missed({"a": 1, "b": 0}) == ["tasks that ended of each kind, the fewest", unused]
    limited(story, TASKS)
    assert missed({"a": 1, "b": 1}) == []
    story.commits["t7"].pop()
    assert missed({"a": 1, "b": 1}) == ["outputs that were kept, and not run for"]
