"""What operators allow at a time: which permits it asks for, and whose leases need them."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core import facts as f
from flowkit.core import reports as r
from flowkit.core.bounds import UNBOUNDED, Bounds
from flowkit.core.model import Task
from flowkit.core.permits import need_of, needs_of
from tests.core.builders import Play, graph, new_task, node, through_snapshot

DB = {"key": "db", "max": 3}


def bounded(most: dict[str, int], *nodes: dict[str, Any]) -> Task:
    task = new_task(graph(*nodes))
    task.bounds = Bounds(most)
    return task


def keys(task: Task, name: str = "a") -> set[str]:
    return {need.key for need in needs_of(task, name)}


def ready(task: Task) -> list[str]:
    return [name for names in task.ready.values() for name in names]


class TestNeeds:
    @pytest.mark.parametrize(
        ("most", "found"),
        [
            ({}, set()),
            ({"other": 1}, set()),
            ({"work": 2}, {"role work"}),
            ({"*": 2}, {"all roles"}),
            ({"work": 2, "*": 9, "other": 1}, {"role work", "all roles"}),
        ],
    )
    def test_a_node_needs_what_its_role_does_and_what_all_do(self, most: dict[str, int], found: set[str]) -> None:
        assert keys(bounded(most, node("a"))) == found

    def test_they_come_beside_the_limits_of_the_graph(self) -> None:
        assert keys(bounded({"work": 2}, node("a", limits=[DB]))) == {"role work", "db"}

    def test_they_are_asked_for_in_the_one_order_of_all_limits(self) -> None:
        api = {"key": "api", "rate": 10}
        ids = [need.limit_id for need in needs_of(bounded({"work": 2, "*": 3}, node("a", limits=[api, DB])), "a")]
        assert ids == [*sorted(ids[:3]), ids[3]]
        assert ids[3].startswith("rate:")

    def test_no_key_of_a_graph_is_that_of_a_role(self) -> None:
        [of_role] = Bounds({"work": 2}).of("work")
        key = of_role.limit_id.removeprefix("limit:")
        for text in ("work", "role work", "role-work", key):
            task = new_task(graph(node("a", limits=[{"key": text, "max": 2}])))
            assert need_of(task.node("a").limits[0], "", {}).limit_id != of_role.limit_id


class TestGate:
    def test_a_bounded_node_is_leased_with_its_permits_only(self) -> None:
        play = Play(graph(node("a"), node("b", type="free")), bounds=Bounds({"work": 1}))
        assert list(play.task.gated) == ["a"]
        assert ready(play.task) == ["b"]

        refused = play.tell(r.Placed("a", "k", "w", "i", 5.0))
        assert refused.recorded == []
        assert len(refused.unused) == 1

        play.task.let_through("a")
        permits = tuple(need.limit_id for need in needs_of(play.task, "a"))
        [lease] = play.tell(r.Placed("a", "k", "w", "i", 5.0, permits)).recorded
        assert lease == f.AttemptLeased("a", 1, "k", "w", "i", 5.0, permits)

    def test_what_runs_no_worker_needs_no_permit(self) -> None:
        play = Play(graph(node("a", type="sleep", inputs={"seconds": 5})), bounds=Bounds({"*": 1}))
        assert not play.task.gated

    def test_under_other_bounds_those_that_wait_need_other_permits(self) -> None:
        """The snapshot was written by a process that had none."""
        play = Play(graph(node("a"), node("b", limits=[DB]), node("c", type="free")))
        again = through_snapshot(play.task)
        again.bounds = Bounds({"work": 1})
        again.gate_anew()
        assert (sorted(again.gated), sorted(again.gated_anew), ready(again)) == (["a", "b"], ["a", "b"], ["c"])

        again.bounds = UNBOUNDED
        again.gate_anew()
        assert (list(again.gated), again.gated_anew, sorted(ready(again))) == (["b"], ["b"], ["a", "c"])
