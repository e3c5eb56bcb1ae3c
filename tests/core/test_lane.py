"""Lanes: what nodes say about who runs them, how it is read, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core.dialect import normalise, parse_graph
from flowkit.core.lane import Demand, Lane, plain
from flowkit.core.reports import Placed
from flowkit.core.schema import graph_schema
from flowkit.errors import GraphError
from tests.core.builders import Play, graph, node


def lane_of(**said: Any) -> Lane | None:
    return parse_graph(graph(node("load"), node("n", **said))).nodes["n"].lane


# Reading.


def test_a_node_that_says_nothing_has_the_lane_of_its_role() -> None:
    assert lane_of() is None
    assert lane_of(priority=0, worker_labels={}, prefer_labels={}) is None
    assert plain("work") == Lane("work", Demand("work"))


def test_a_node_says_who_may_run_it_and_how_urgently() -> None:
    lane = lane_of(
        priority=3,
        worker_labels={"zone": "eu", "gpu": ["h100", "a100"]},
        prefer_labels={"disk": "ssd"},
        sticky={"node": "load", "patience_sec": 30},
    )

    assert lane is not None
    assert lane.role == "work"
    assert lane.demand == Demand("work", (("gpu", ("a100", "h100")), ("zone", ("eu",))))
    assert (lane.priority, lane.prefers) == (3, (("disk", ("ssd",)),))
    assert (lane.follows, lane.patience_sec) == ("load", 30)


@pytest.mark.parametrize("sticky", ["task", {}, {"patience_sec": None}])
def test_sticky_without_a_node_follows_the_task(sticky: Any) -> None:
    lane = lane_of(sticky=sticky)

    assert lane is not None
    assert (lane.follows, lane.patience_sec) == ("", None)


def test_nodes_that_say_the_same_share_a_lane_whatever_the_order() -> None:
    one = lane_of(worker_labels={"a": "1", "b": ["2", "3"]})
    other = lane_of(worker_labels={"b": ["3", "2"], "a": ["1"]})

    assert one is not None
    assert one == other
    assert one.key != plain("work").key
    assert lane_of(worker_labels={"a": "1"}, priority=1) != lane_of(worker_labels={"a": "1"})


def test_a_graph_knows_the_lanes_of_its_roots_and_who_is_followed() -> None:
    read = parse_graph(
        graph(
            node("a"),
            node("b"),
            node("c", worker_labels={"zone": "eu"}),
            node("d", "a", sticky={"node": "a"}),
            node("e", "b", sticky="task"),
            node("f", "b", compensate={"type": "undo", "sticky": {"node": "f"}}),
        )
    )

    assert [lane.key for lane in read.root_lanes] == ["work", read.nodes["c"].lane.key]  # type: ignore[union-attr]
    assert read.anchors == {"", "a", "f"}
    assert parse_graph(graph(node("a"))).anchors == frozenset()


def test_what_is_run_for_a_node_goes_where_the_node_does() -> None:
    read = parse_graph(
        graph(
            node("items", foreach=[1, 2], worker_labels={"zone": "eu"}),
            node("poll", repeat={"until": "true"}, worker_labels={"zone": "eu"}),
            {"node_id": "fn", "type": "coordinator_fn", "io": {"fn": "mine"}, "priority": 2},
            node("pay", compensate={"type": "refund", "worker_labels": {"zone": "us"}}),
        )
    )

    assert read.nodes["items"].body.lane == read.nodes["poll"].body.lane != None  # type: ignore[union-attr]  # noqa: E711
    fn = read.nodes["fn"].lane
    assert fn is not None
    assert fn.role == read.nodes["fn"].type == "coordinator_fn.mine"
    assert fn.key.startswith("coordinator_fn.mine ")
    assert read.nodes["pay"].lane is None
    assert read.nodes["pay"].compensate.lane.demand == Demand("refund", (("zone", ("us",)),))  # type: ignore[union-attr]


def test_what_was_written_is_stored_as_it_was() -> None:
    said = {"priority": -2, "worker_labels": {"gpu": ["h100", "a100"]}, "sticky": {"node": "load"}}
    raw = graph(node("load"), node("n", **said))

    stored = normalise(raw)

    assert {key: stored["nodes"][1][key] for key in said} == said
    assert normalise(stored) == stored
    assert parse_graph(stored).nodes["n"] == parse_graph(raw).nodes["n"]


# Refusing.


@pytest.mark.parametrize(
    ("said", "code", "place", "hint"),
    [
        ({"worker_labels": "eu"}, "E_TYPE", "nodes[1].worker_labels", '{"zone": "eu"'),
        ({"worker_labels": {"gpu": True}}, "E_TYPE", "nodes[1].worker_labels.gpu", 'write "true"'),
        ({"worker_labels": {"gpu": [1]}}, "E_TYPE", "nodes[1].worker_labels.gpu[0]", 'write "1"'),
        ({"worker_labels": {"gpu": []}}, "E_VALUE", "nodes[1].worker_labels.gpu", "name 1 to 100"),
        ({"worker_labels": {"gpu": None}}, "E_TYPE", "nodes[1].worker_labels.gpu", "a text or a list of texts"),
        ({"prefer_labels": {"g" * 200: "x"}}, "E_VALUE", "nodes[1].prefer_labels", "a label's name"),
        ({"worker_labels": {str(n): "x" for n in range(40)}}, "E_VALUE", "nodes[1].worker_labels", "at most 32"),
        ({"priority": 1.5}, "E_RANGE", "nodes[1].priority", "a whole number"),
        ({"priority": "high"}, "E_TYPE", "nodes[1].priority", "a whole number"),
        ({"sticky": "load"}, "E_CHOICE", "nodes[1].sticky", 'write {"node": "load"}'),
        ({"sticky": True}, "E_TYPE", "nodes[1].sticky", '"task" or'),
        ({"sticky": {"nodes": "load"}}, "E_KEY_UNKNOWN", "nodes[1].sticky.nodes", "did you mean 'node'"),
        ({"sticky": {"node": "laod"}}, "E_STICKY_UNKNOWN", "nodes[1].sticky.node", "did you mean 'load'"),
        ({"sticky": {"patience_sec": -1}}, "E_RANGE", "nodes[1].sticky.patience_sec", "from 0"),
        ({"compensate": {"type": "undo", "sticky": {"node": "laod"}}}, "E_STICKY_UNKNOWN",
         "nodes[1].compensate.sticky.node", "did you mean 'load'"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_what_to_write(
    said: dict[str, Any], code: str, place: str, hint: str
) -> None:
    with pytest.raises(GraphError) as caught:
        parse_graph(graph(node("load"), node("n", **said)))

    [problem] = caught.value.problems
    assert problem.code == code
    assert problem.place.startswith(place)
    assert hint in problem.message


@pytest.mark.parametrize("key", ["worker_labels", "prefer_labels", "sticky", "priority"])
def test_a_node_that_no_worker_runs_says_nothing_about_workers(key: str) -> None:
    said = {"worker_labels": {"a": "b"}, "prefer_labels": {"a": "b"}, "sticky": "task", "priority": 1}[key]

    with pytest.raises(GraphError) as caught:
        parse_graph(graph({"node_id": "w", "type": "sleep", "inputs": {"seconds": 1}, key: said}))

    assert [(one.code, one.place) for one in caught.value.problems] == [("E_KEY_CONFLICT", f"nodes[0].{key}")]


def test_the_schema_knows_the_keys() -> None:
    keys = graph_schema()["properties"]["nodes"]["items"]["properties"]

    assert keys["sticky"]["anyOf"][0] == {"const": "task"}
    assert keys["worker_labels"]["maxProperties"] == 32
    assert keys["priority"]["type"] == "integer"


# Remembering who ran what.


def lease(play: Play, name: str, worker: str) -> None:
    play.tell(Placed(name, f"{name}#{play.attempt(name) + 1}", worker, "i", play.now + 10))


def test_the_worker_of_a_node_that_others_follow_is_remembered_from_its_last_attempt() -> None:
    play = Play(graph(node("load"), node("other"), node("n", "load", sticky={"node": "load"})))
    lease(play, "load", "w1")
    lease(play, "other", "w9")
    assert play.task.ran_on == {"load": "w1"}

    play.fail("load")
    play.wait(100)
    lease(play, "load", "w2")

    assert play.task.ran_on == {"load": "w2"}


def test_the_worker_of_a_task_is_that_of_its_first_sticky_node() -> None:
    play = Play(graph(node("plain"), node("a", sticky="task"), node("b", sticky="task")))
    lease(play, "plain", "w0")
    lease(play, "b", "w1")
    lease(play, "a", "w2")

    assert play.task.ran_on == {"": "w1"}


def test_the_worker_of_a_group_is_that_of_its_last_member() -> None:
    play = Play(
        graph(
            node("items", foreach=[1, 2]),
            node("poll", repeat={"until": "output", "max": 3}),
            node("n", "items", sticky={"node": "items"}),
            node("m", "poll", sticky={"node": "poll"}),
        )
    )
    lease(play, "items[1]", "w1")
    lease(play, "items[0]", "w2")
    lease(play, "poll#1", "w3")

    assert play.task.ran_on == {"items": "w2", "poll": "w3"}


def test_where_nobody_follows_anybody_nothing_is_remembered() -> None:
    play = Play(graph(node("a")))
    lease(play, "a", "w1")

    assert play.task.ran_on == {}


def test_ready_nodes_wait_by_lane() -> None:
    play = Play(graph(node("a"), node("b", priority=1), node("c", priority=1), node("d")))

    assert list(map(list, play.task.ready.values())) == [["a", "d"], ["b", "c"]]
    play.place("b", "a", "d")
    assert list(map(list, play.task.ready.values())) == [["c"]]
