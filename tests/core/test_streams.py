"""Streams in graphs: what they are read as, when a first batch starts a node, and what becomes of broken ones."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core import facts as f
from flowkit.core import reports as r
from flowkit.core import streams
from flowkit.core.dialect import normalise, parse_graph
from flowkit.core.effects import LookUp, Revoke, Tell
from flowkit.core.payload import Payload
from flowkit.errors import GraphError
from tests.core.builders import Play, graph, node

EARLY = {"start_when": "first_batch"}


def reading(name: str, *sources: str, **more: Any) -> dict[str, Any]:
    return node(name, inputs={"rows": {"$stream": list(sources)}}, **more)


def problems(raw: Any) -> list[tuple[str, str]]:
    with pytest.raises(GraphError) as refused:
        parse_graph(raw)
    return [(problem.code, problem.place) for problem in refused.value.problems]


def begin(play: Play, name: str) -> Any:
    """The first batch of a running node is in the store."""
    return play.tell(r.Streams(*play.attempt_of(name)))


def pair(**more: Any) -> Play:
    play = Play(graph(node("p"), reading("c", "p", **{**EARLY, **more})))
    play.place("p")
    return play


# ---------------------------------------------------------------------------------------------- what is read


def test_a_stream_is_an_edge() -> None:
    read = parse_graph(graph(node("p"), reading("c", "p")))
    assert [(edge.source, edge.target) for edge in read.incoming["c"]] == [("p", "c")]
    assert read.stream_readers == {"p": ("c",)}
    assert read.starters == {}


def test_old_forms_are_stored_in_todays() -> None:
    args = {"from_nodes": ["p"], "size": 5}
    io = {"start_when": "first_batch", "input_inline": {"a": 1, "input_adapter": "pull.rechunk", "input_args": args}}
    stored = normalise(graph(node("p"), node("c", io=io)))
    assert stored["edges"] == [["p", "c"]]
    assert stored["nodes"][1] == {
        "node_id": "c", "type": "work", "inputs": {"a": 1}, "start_when": "first_batch",
        "io": {"input_adapter": "pull.rechunk", "input_args": args},
    }  # fmt: skip
    assert normalise(stored) == stored


def test_an_old_edge_on_a_batch_starts_its_target_early() -> None:
    early = [{"from": "p", "to": "c", "mode": "async", "trigger": "on_batch"}]
    raw = graph(node("p"), node("c"), edges_ex=early)
    stored = normalise(raw)
    assert stored["edges"] == [["p", "c"]]
    assert stored["nodes"][1]["start_when"] == "first_batch"
    assert parse_graph(raw).starters == {"p": ("c",)}


def test_an_adapter_that_names_no_node_reads_those_before_it() -> None:
    io = {"input_inline": {"input_adapter": "pull.from_artifacts"}}
    read = parse_graph(graph(node("p"), node("c", io=io, depends_on=["p"])))
    assert read.stream_readers == {"p": ("c",)}


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (graph(node("p"), reading("c", "q")), [("E_REFERENCE_UNKNOWN", "nodes[1].inputs.rows.$stream")]),
        (graph(node("p"), node("c", inputs=[{"$stream": "p"}])), [("E_TEMPLATE", "nodes[1].inputs[0].$stream")]),
        (graph(node("p"), node("c", inputs={"a": {"b": {"$stream": "p"}}})),
         [("E_TEMPLATE", "nodes[1].inputs.a.b.$stream")]),
        (graph(node("p"), node("c", inputs={"a": {"$stream": 1}})), [("E_TYPE", "nodes[1].inputs.a.$stream")]),
        (graph(node("p"), output={"$stream": "p"}), [("E_TEMPLATE", "output")]),
        (graph(node("c", **EARLY)), [("E_STREAM", "nodes[0].start_when")]),
        (graph(node("p", cache={"key": "1", "ttl_sec": 1}), reading("c", "p")), [("E_STREAM", "nodes[1].inputs")]),
        (graph(node("p", type="sleep", inputs={"seconds": 1}), reading("c", "p")), [("E_STREAM", "nodes[1].inputs")]),
        (graph(node("p"), node("x"), reading("c", "p", foreach=[1])), [("E_STREAM", "nodes[2].inputs")]),
        (graph(node("p"), reading("c", "p", **EARLY), edges=[{"from": "p", "to": "c", "when": "true"}]),
         [("E_STREAM", "nodes[1].start_when")]),
        (graph(reading("a", "b"), reading("b", "a")), [("E_CYCLE", "nodes[0]")]),
    ],
)  # fmt: skip
def test_what_cannot_stream_is_said_at_the_door(raw: Any, found: list[tuple[str, str]]) -> None:
    assert problems(raw) == found


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ([node("p"), reading("c", "p", foreach=[1])],
         "'c' cannot read a stream: it has `foreach`; read it in a node before this one that returns a list, and map "
         "over that"),
        ([node("p"), reading("c", "p", repeat={"until": "true", "max": 2})],
         "'c' cannot read a stream: it has `repeat`; read it in a node before this one, and give the runs what that "
         "returns"),
        ([node("p"), reading("c", "p", type="sleep")],
         "'c' cannot read a stream: nothing of type 'sleep' does; read it in a node that a worker runs, and give this "
         "one what that returns"),
        ([node("p", cache={"key": "1", "ttl_sec": 1}), reading("c", "p")],
         """'p' makes no batches: it has `cache`; read {"$from": "p"}"""),
        ([node("p"), reading("c", "p", cache={"key": "1", "ttl_sec": 1}), reading("d", "c")],
         """'c' makes no batches: it has `cache`; read {"$from": "c"}"""),
    ],
)  # fmt: skip
def test_a_refused_stream_says_what_to_do_instead(nodes: list[Any], says: str) -> None:
    with pytest.raises(GraphError) as refused:
        parse_graph(graph(*nodes))
    assert [problem.message for problem in refused.value.problems if problem.code == "E_STREAM"] == [says]


def test_a_reader_that_its_source_would_keep_from_starting_is_refused() -> None:
    def both(of_source: dict[str, Any], of_reader: dict[str, Any], **more: Any) -> dict[str, Any]:
        limits = [{"key": "db", **of_source}], [{"key": "db", **of_reader}]
        return graph(node("p", limits=limits[0]), reading("c", "p", limits=limits[1], **(EARLY | more)))

    with pytest.raises(GraphError) as refused:
        parse_graph(both({"max": 5, "weight": 2}, {"max": 3, "weight": 2}))
    [problem] = refused.value.problems
    assert (problem.code, problem.place) == ("E_LIMIT", "nodes[1].limits")
    assert problem.message == (
        "'p', whose batches it reads, holds 2 of 'db' while it runs, so 'c' could not begin before that ends: "
        "raise `max` to 4, or leave out `start_when`"
    )
    assert problems(both({"max": 1}, {"max": 1})) == [("E_LIMIT", "nodes[1].limits")]
    for fine in (
        both({"max": 2}, {"max": 2}),
        both({"max": 1}, {"max": 1}, start_when="ready"),
        both({"rate": 1}, {"rate": 1}),
        both({"max": 1}, {"max": 1, "key": "other"}),
    ):
        parse_graph(fine)
    parse_graph(both({"max": 1}, {"max": 1}), accepted=True)  # by a version that did not ask


# ---------------------------------------------------------------------------------------------- starting


def test_without_more_a_reader_starts_when_its_source_has_finished() -> None:
    play = Play(graph(node("p"), reading("c", "p")))
    begin_of = play.place("p")
    assert begin_of.recorded
    begin(play, "p")
    assert play.state("c") == "pending"
    play.succeed("p")
    assert play.state("c") == "ready"


def test_who_also_reads_the_output_of_its_source_waits_for_that() -> None:
    inputs = {"rows": {"$stream": "p"}, "count": {"$from": "p.batches"}}
    for fan_in in ({}, {"fan_in": "any"}):
        play = Play(graph(node("p"), node("c", inputs=inputs, **EARLY, **fan_in)))
        play.place("p")
        begin(play, "p")
        assert play.state("c") == "pending"
        play.succeed("p", output={"batches": 3})
        assert play.state("c") == "ready"
        play.place("c")
        assert play.dispatches()["c"].inputs["count"] == 3


def test_a_first_batch_starts_a_reader_while_its_source_runs() -> None:
    play = pair()
    decision = begin(play, "p")
    assert decision.recorded == [f.StreamBegun("p")]
    assert (play.state("p"), play.state("c")) == ("running", "ready")


def test_a_first_batch_that_is_told_again_changes_nothing() -> None:
    play = pair()
    begin(play, "p")
    assert begin(play, "p").stale == 1


def test_a_reader_of_several_streams_starts_with_the_first_batch_of_any() -> None:
    play = Play(graph(node("p"), node("q"), reading("c", "p", "q", **EARLY)))
    play.place("p", "q")
    begin(play, "q")
    assert play.state("c") == "ready"


def test_what_is_no_stream_is_waited_for_as_ever() -> None:
    play = Play(graph(node("p"), node("other"), reading("c", "p", depends_on=["other"], **EARLY)))
    play.place("p", "other")
    begin(play, "p")
    assert play.state("c") == "pending"
    play.succeed("other")
    assert play.state("c") == "ready"


def test_a_stream_that_had_no_batch_starts_its_reader_at_its_end() -> None:
    play = pair()
    play.succeed("p")
    assert play.state("c") == "ready"


def test_a_retry_of_the_source_does_not_touch_its_reader() -> None:
    play = pair()
    begin(play, "p")
    play.place("c")
    play.fail("p")
    assert (play.state("p"), play.state("c")) == ("waiting", "running")


# ---------------------------------------------------------------------------------------------- breaking


def test_a_source_that_fails_for_good_ends_its_reader() -> None:
    play = pair()
    begin(play, "p")
    play.place("c")
    decision = play.fail_for_good("p")
    assert play.state("c") == "skipped"
    assert f.NodeSkipped("c", "upstream_failed", True, "p") in decision.recorded
    assert [effect.node for effect in decision.effects if isinstance(effect, Revoke)] == ["c"]
    assert play.task.status == "failed"


@pytest.mark.parametrize("only", [{}, {"node_id": "c"}])
def test_a_reader_that_was_told_to_end_is_cancelled_though_its_source_ends_first(only: dict[str, str]) -> None:
    play = pair()
    begin(play, "p")
    play.place("c")
    play.ask("cancel", grace_sec=5.0, **only)
    play.fail_for_good("p")
    assert (play.state("p"), play.state("c")) == ("failed" if only else "cancelled", "running")
    play.release("c")
    assert play.state("c") == "cancelled"


def test_a_reader_that_has_not_been_placed_is_skipped_too() -> None:
    play = pair()
    begin(play, "p")
    play.fail_for_good("p")
    assert play.state("c") == "skipped"
    assert play.ready() == []


def test_a_source_that_is_carried_on_from_ends_the_stream_and_not_its_reader() -> None:
    play = Play(graph(node("p", continue_on_failure=True), reading("c", "p", **EARLY)))
    play.place("p")
    begin(play, "p")
    play.place("c")
    decision = play.fail_for_good("p")
    assert play.state("c") == "running"
    assert [(effect.node, effect.over) for effect in decision.effects if isinstance(effect, Tell)] == [("c", ("p",))]


def test_a_reader_that_fails_for_good_frees_its_source() -> None:
    play = pair()
    begin(play, "p")
    play.place("c")
    decision = play.fail_for_good("c")
    assert play.state("p") == "running"
    assert [(effect.node, effect.over) for effect in decision.effects if isinstance(effect, Tell)] == [("p", ("c",))]


def test_a_reader_whose_output_was_kept_does_not_run_and_frees_its_source() -> None:
    play = Play(graph(node("p"), reading("c", "p", cache={"key": "'k'", "ttl_sec": 9}, **EARLY)))
    play.place("p")
    decision = play.tell(r.Streams(*play.attempt_of("p")))
    (question,) = decision.questions
    assert isinstance(question, LookUp)
    decision = play.tell(r.Looked("c", question.key, Payload("kept")))
    assert (play.state("c"), play.state("p")) == ("finished", "running")
    assert [(effect.node, effect.over) for effect in decision.effects if isinstance(effect, Tell)] == [("p", ("c",))]


def test_who_waits_may_ask_and_is_told_who_has_ended() -> None:
    play = pair()
    begin(play, "p")
    play.place("c")
    play.fail_for_good("c")
    decision = play.tell(r.Streams(*play.attempt_of("p"), begun=False))
    assert decision.recorded == []
    assert [effect.over for effect in decision.effects if isinstance(effect, Tell)] == [("c",)]


# ---------------------------------------------------------------------------------------------- jobs, restarts


def test_a_job_says_whose_batches_and_who_reads() -> None:
    play = Play(graph(node("p", stream={"max_batches": 7}), reading("c", "p", **EARLY), reading("late", "p")))
    source = streams.job(play.task, play.task.graph.nodes["p"])
    reader = streams.job(play.task, play.task.graph.nodes["c"])
    assert source is not None
    assert reader is not None
    assert source["readers"] == [["c", True], ["late", False]]
    assert source["awaited"]
    assert source["limits"][0] == 7
    assert reader["reads"] == [["rows", ["p"]]]
    assert reader["sources"] == [["p", 0, 7]]
    assert streams.job(Play(graph(node("x"))).task, parse_graph(graph(node("x"))).nodes["x"]) is None


def test_a_restart_of_a_reader_reads_what_its_source_made_before() -> None:
    play = Play(graph(node("p"), reading("c", "p"), node("end", depends_on=["c"])))
    for name in ("p", "c", "end"):
        play.succeed(name)
    play.ask("restart", from_node="c")
    said = streams.job(play.task, play.task.graph.nodes["c"])
    assert said is not None
    assert said["sources"][0][:2] == ["p", 0]
    assert said["over"] == ["p"]
    assert play.task.runs["c"].born == 1
