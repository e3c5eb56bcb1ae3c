"""Nodes that no worker runs: sleeps, signals, tasks of their own, functions, ends; and what is undone, and budgets."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core import asked
from flowkit.core import facts as f
from flowkit.core.effects import Keep, LookUp, Spawn, Steer
from flowkit.core.inputs import output_of, task_output
from flowkit.core.opening import child_id
from flowkit.core.payload import Payload
from flowkit.core.reports import Accepted, ChildEnded, Looked
from tests.core.builders import START, Play, graph, node, once


def sleep(**inputs: Any) -> Play:
    return Play(graph(node("s", type="sleep", inputs=inputs), node("z", "s")), params={"n": 5})


# Sleeps.


@pytest.mark.parametrize(
    "inputs",
    [{"seconds": 5}, {"seconds": {"$param": "n"}}, {"until": START + 5}, {"until": "1970-01-01T00:16:45Z"},
     {"until": "1970-01-01T01:16:45+01:00"}, {"until": "1970-01-01T00:16:45"}],
)  # fmt: skip
def test_a_sleep_lasts_as_long_as_it_says(inputs: dict[str, Any]) -> None:
    play = sleep(**inputs)

    assert (play.state("s"), play.task.next_wake()) == ("waiting", START + 5)
    play.wait(4)
    assert play.state("s") == "waiting"
    play.wait(1)
    assert (play.state("s"), play.ready()) == ("finished", ["z"])


@pytest.mark.parametrize(
    "inputs",
    [
        {"seconds": {"$expr": "0 - params.n"}},
        {"seconds": {"$expr": "string(params.n)"}},
        {"seconds": {"$param": "missing"}},
        {"until": {"$expr": "'soon'"}},
        {"until": START + 1e9 + 1},
    ],
)
def test_a_sleep_that_makes_no_sense_fails(inputs: dict[str, Any]) -> None:
    play = sleep(**inputs)

    assert (play.task.runs["s"].error or {})["code"] == "bad_input"


def test_a_sleep_that_is_over_already_takes_no_time() -> None:
    play = sleep(until=START - 100)
    play.wait(0)

    assert play.state("s") == "finished"


def test_a_sleep_goes_on_while_the_task_is_paused_and_what_follows_waits() -> None:
    play = sleep(seconds=5)
    play.ask("pause")
    play.wait(5)

    assert play.state("s") == "finished"
    play.place("z")
    assert len(play.last.unused) == 1


def test_a_sleeping_node_can_be_cancelled() -> None:
    play = sleep(seconds=5)
    play.ask("cancel", node_id="s")

    assert play.states == {"s": "cancelled", "z": "skipped"}


# Signals.


def signal(**more: Any) -> Play:
    return Play(graph(node("ok", type="signal", **more), node("z", "ok")))


def test_a_signal_finishes_the_node_that_waits_for_it() -> None:
    play = signal(inputs={"name": "approval"})
    assert play.state("ok") == "waiting"
    assert play.ask("signal", name="approval", payload={"by": "ada"}) == ""

    assert play.inputs("z") == {"by": "ada"}


def test_a_signal_that_says_no_name_is_called_like_its_node() -> None:
    play = signal()
    play.ask("signal", name="ok", payload=1)

    assert output_of(play.task, "ok") == 1


def test_a_signal_may_come_before_the_node_waits() -> None:
    play = Play(graph(node("a"), node("ok", "a", type="signal", inputs={"name": "go"})))
    assert play.ask("signal", name="go", payload="early") == ""
    play.succeed("a")

    assert output_of(play.task, "ok") == "early"
    assert play.ask("signal", name="go") == "it has ended already"


def test_each_signal_is_taken_once_in_the_order_in_which_nodes_wait() -> None:
    wait = {"type": "signal", "inputs": {"name": "go"}}
    play = Play(graph(node("a", **wait), node("b", **wait)))
    play.ask("signal", name="go", payload=1)
    play.ask("signal", name="go", payload=2)

    assert [output_of(play.task, name) for name in "ab"] == [1, 2]


def test_a_signal_that_nobody_can_take_is_refused_with_the_nearest_name() -> None:
    play = signal(inputs={"name": "approval"})

    assert "did you mean 'approval'?" in play.ask("signal", name="aproval", payload=1)


def test_a_signal_for_a_sub_graph_says_whose_task_to_signal() -> None:
    why = Play(graph(node("c", type="task", graph=graph(node("ok", type="signal"))))).ask("signal", name="ok")

    assert why.endswith("sub-graphs are tasks of their own: signal that of 'c', if it waits")


def test_a_signal_that_nobody_waits_for_any_more_is_refused() -> None:
    play = signal(inputs={"name": "go"})
    play.ask("signal", name="go")

    assert play.ask("signal", name="go") == "no node waits for a signal 'go' any more"


@pytest.mark.parametrize("begun", [False, True])
def test_a_signal_more_than_all_nodes_can_take_is_refused_before_and_after_they_wait(*, begun: bool) -> None:
    wait = {"type": "signal", "inputs": {"name": "go"}}
    play = Play(graph(node("a"), node("one", "a", **wait), node("two", "a", **wait), node("last", "a")))
    if begun:
        play.succeed("a")
    said = [play.ask("signal", name="go", payload=n) for n in range(3)]

    end = "any more" if begun else "what came is enough for all that will"
    assert said[:2] == ["", ""]
    assert said[2].endswith(end)


def test_the_runs_of_a_repetition_wait_for_the_signal_that_is_called_like_their_node() -> None:
    play = signal(repeat={"until": "output.last"})
    assert [play.ask("signal", name="ok", payload={"last": last}) for last in (False, True)] == ["", ""]

    assert play.states == {"ok": "finished", "z": "ready", "ok#1": "finished", "ok#2": "finished"}
    assert "waits for a signal 'ok'" in play.ask("signal", name="ok")


def test_items_wait_for_signals_that_are_called_like_them_and_no_other_name_is_taken() -> None:
    play = Play(graph(node("a"), node("votes", "a", type="signal", foreach=[1, 2])))
    assert play.ask("signal", name="votes[1]", payload="no") == ""
    assert "none of its nodes waits for a signal 'votes'" in play.ask("signal", name="votes", payload="?")
    play.succeed("a")
    assert play.ask("signal", name="votes[0]", payload="yes") == ""

    assert task_output(play.task) == ["yes", "no"]


def test_signals_that_wait_to_be_taken_are_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "MOST_SIGNALS", 2)
    go = {"type": "signal", "inputs": {"name": "go"}, "repeat": {"until": "false"}}
    play = Play(graph(node("a"), node("ok", "a", **go)))

    assert [play.ask("signal", name="go") for _ in range(3)] == ["", "", "2 signals 'go' wait to be taken already"]


def test_a_node_waits_for_a_signal_no_longer_than_it_says() -> None:
    play = signal(inputs={"name": "go"}, timeouts={"total_sec": 3})
    play.wait(3)

    assert (play.task.runs["ok"].error or {})["code"] == "total_timeout"
    assert play.task.waiting == {}


# Tasks of their own.

CHILD = graph(node("k"))


def child(**more: Any) -> Play:
    return Play(graph(node("c", type="task", graph=CHILD, **more), node("z", "c")), params={"p": 1})


def ended(play: Play, status: str = "finished", output: Any = None, error: Any = None, name: str = "c") -> None:
    run = play.task.runs[name]
    play.tell(ChildEnded(name, run.attempt, run.child, status, Payload(output), error))


def test_a_sub_graph_is_a_task_of_its_own_whose_output_is_the_nodes() -> None:
    play = child(inputs={"name": "x"})
    (spawn,) = play.last.effects
    assert isinstance(spawn, Spawn)
    assert (spawn.name, spawn.attempt, spawn.inputs) == ("c", 1, {"name": "x"})
    assert spawn.child == child_id(play.task.task_id, "c", 1) == play.task.children["c"]
    assert (play.state("c"), play.ready()) == ("running", [])

    ended(play, output={"n": 1})
    assert play.inputs("z") == {"n": 1}
    assert play.task.children == {}


def test_params_of_a_sub_graph_are_an_object() -> None:
    assert (child(inputs=[1]).task.runs["c"].error or {})["code"] == "bad_input"


def test_a_child_that_fails_fails_its_node_at_once_unless_it_may_try_again() -> None:
    play = child()
    ended(play, "failed", error={"code": "Oops", "message": "no", "node_id": "k"})
    error = play.task.runs["c"].error or {}
    assert (play.state("c"), error["code"], error["task_id"]) == ("failed", "Oops", child_id(play.task.task_id, "c", 1))

    play = child(retry_policy={"max": 2, "jitter": False})
    first = play.task.children["c"]
    ended(play, "failed", error={"code": "Oops", "message": "no"})
    play.wait(1)
    assert play.task.children["c"] != first
    assert play.task.runs["c"].attempt == 2
    ended(play, output="second")
    assert play.inputs("z") == "second"


def test_the_end_of_an_earlier_child_changes_nothing() -> None:
    play = child(retry_policy={"max": 2, "jitter": False})
    first = play.task.children["c"]
    ended(play, "failed", error={"code": "Oops", "message": "no"})
    play.wait(1)
    play.tell(ChildEnded("c", 1, first, "finished", Payload("old")))

    assert (play.last.recorded, play.last.stale) == ([], 1)


def test_children_are_paused_resumed_and_cancelled_with_their_parent() -> None:
    play = child()
    own = play.task.children["c"]
    play.ask("pause", reason="stop")
    assert play.last.effects == [Steer("c", 1, own, "pause", "stop")]
    play.ask("resume")
    assert play.last.effects == [Steer("c", 1, own, "resume", "")]
    play.ask("cancel", grace_sec=3)
    assert play.last.effects == [Steer("c", 1, own, "cancel", "user_request", 3)]
    play.wait(100)
    assert play.status == "cancelling"  # nobody else knows what of it still runs
    ended(play, "cancelled")
    assert (play.status, play.state("c")) == ("cancelled", "cancelled")


def test_pausing_the_node_of_a_sub_graph_pauses_the_child_and_only_its_own_resume_ends_that() -> None:
    play = Play(graph(node("c", type="task", graph=CHILD), node("d", type="task", graph=CHILD)))
    own = play.task.children
    assert play.ask("pause", node_id="c", reason="stop") == ""
    assert play.last.effects == [Steer("c", 1, own["c"], "pause", "stop")]

    play.ask("pause")
    play.ask("resume")
    assert play.last.effects == [Steer("d", 1, own["d"], "resume", "")]
    play.ask("pause")
    play.ask("resume", node_id="c")
    assert play.last.effects == []  # with its task, which is paused
    play.ask("resume")
    assert [effect.name for effect in play.last.effects if isinstance(effect, Steer)] == ["c", "d"]


def test_pausing_a_map_of_sub_graphs_pauses_all_its_children_and_starts_no_other() -> None:
    play = Play(graph(node("c", type="task", graph=CHILD, foreach=[1, 2, 3], inputs={}, max_parallel=2)))
    play.ask("pause", node_id="c")
    assert [(e.name, e.kind) for e in play.last.effects if isinstance(e, Steer)] == [
        ("c[0]", "pause"),
        ("c[1]", "pause"),
    ]
    ended(play, name="c[0]")
    assert list(play.task.children) == ["c[1]"]

    play.ask("resume", node_id="c")
    assert [(type(e), e.name) for e in play.last.effects] == [(Steer, "c[1]"), (Spawn, "c[2]")]


def test_sub_graphs_may_be_mapped() -> None:
    play = Play(graph(node("c", type="task", graph=CHILD, foreach=[1, 2], inputs={"x": {"$item": ""}})))
    assert [effect.inputs for effect in play.last.effects if isinstance(effect, Spawn)] == [{"x": 1}, {"x": 2}]
    ended(play, output="b", name="c[1]")
    ended(play, output="a", name="c[0]")

    assert task_output(play.task) == ["a", "b"]


# Functions and variables.


def test_a_coordinator_function_is_folded_and_its_variables_can_be_read() -> None:
    call = {"type": "coordinator_fn", "io": {"fn": "vars.incr", "fn_args": {"key": "n", "by": {"$param": "by"}}}}
    play = Play(
        graph(node("a", **call), node("b", "a", **call), node("z", "b", inputs={"n": {"$var": "n"}})), params={"by": 2}
    )

    assert play.task.vars == {"n": 4}
    assert play.inputs("z") == {"n": 4}


def test_a_function_that_is_asked_for_nonsense_fails_its_node() -> None:
    play = Play(graph(node("a", type="coordinator_fn", io={"fn": "vars.incr", "fn_args": {"key": "n", "by": "x"}})))

    assert (play.task.runs["a"].error or {})["code"] == "bad_amount"


def test_a_function_of_the_users_own_is_a_role() -> None:
    play = Play(graph(node("a", type="coordinator_fn", io={"fn": "my.fn", "fn_args": {"x": 1}})))

    assert list(play.task.ready) == ["coordinator_fn.my.fn"]
    assert play.inputs("a") == {"x": 1}


# Ends.


@pytest.mark.parametrize("status", ["finished", "failed", "cancelled"])
def test_an_end_node_ends_the_task_and_cancels_the_rest(status: str) -> None:
    end = node("e", "a", type="end", inputs={"output": {"x": {"$from": "a"}}, "status": status})
    play = Play(graph(node("a"), node("b"), node("c", "b"), end))
    play.place("b")
    play.succeed("a", output=7)

    assert list(play.revokes()) == ["b"]
    play.release("b")
    assert play.status == status
    assert play.states == {"a": "finished", "b": "cancelled", "c": "cancelled", "e": "finished"}
    if status == "finished":
        assert task_output(play.task) == {"x": 7}


# What is undone.


def undoable(name: str, *parents: str) -> dict[str, Any]:
    return node(name, *parents, compensate={"type": "undo", "retry_policy": {"max": 1}})


def test_what_finished_is_undone_in_reverse_order_before_the_task_fails() -> None:
    play = Play(graph(undoable("a"), undoable("b", "a"), once("c", "b")))
    play.succeed("a", output="A")
    play.succeed("b", output="B")
    play.fail_for_good("c")

    assert play.status == "cancelling"
    assert [fact.nodes for fact in play.facts(f.UndoBegan)] == [("a", "b")]
    assert play.ready() == ["b/compensate"]
    assert play.inputs("b/compensate") == "B"
    play.succeed("b/compensate")
    assert play.ready() == ["a/compensate"]
    play.succeed("a/compensate")
    assert play.status == "failed"
    assert (play.task.error or {})["node_id"] == "c"


def test_what_cannot_be_undone_is_told_and_the_rest_is_undone_all_the_same() -> None:
    play = Play(graph(undoable("a"), undoable("b", "a"), once("c", "b")))
    play.succeed("a")
    play.succeed("b")
    play.fail_for_good("c")
    play.fail_for_good("b/compensate")
    play.succeed("a/compensate")

    assert (play.task.error or {})["not_undone"] == ["b"]


def test_a_cancelled_task_is_undone_and_a_finished_one_is_not() -> None:
    play = Play(graph(undoable("a"), node("b", "a")))
    play.succeed("a")
    play.ask("cancel")
    play.succeed("a/compensate")
    assert play.status == "cancelled"

    play = Play(graph(undoable("a")))
    play.succeed("a")
    assert play.status == "finished"


def test_a_restart_runs_again_what_was_undone() -> None:
    play = Play(graph(undoable("a"), once("b", "a")))
    play.succeed("a")
    play.fail_for_good("b")
    play.succeed("a/compensate")
    play.ask("restart", failed_only=True)

    assert play.ready() == ["a"]
    play.succeed("a")
    play.succeed("b")
    assert play.status == "finished"


def test_items_are_undone_one_by_one() -> None:
    play = Play(graph(node("m", foreach=[1, 2], compensate={"type": "undo"}), once("z", "m")))
    play.succeed("m[1]", output="one")
    play.succeed("m[0]", output="zero")
    play.fail_for_good("z")

    assert play.inputs("m[0]/compensate") == "zero"
    play.succeed("m[0]/compensate")
    assert play.inputs("m[1]/compensate") == "one"


# Budgets.


def test_a_task_that_has_used_up_its_attempts_fails_and_says_so() -> None:
    play = Play(graph(node("a"), node("b", "a"), node("c", "b"), budget={"attempts": 2}))
    play.succeed("a")
    play.succeed("b")

    assert (play.status, (play.task.error or {})["code"]) == ("failed", "budget_exceeded")
    assert play.state("c") == "cancelled"


def test_a_task_that_used_its_last_attempt_to_end_has_finished() -> None:
    play = Play(graph(node("a"), budget={"attempts": 1}))
    play.succeed("a")

    assert play.status == "finished"


@pytest.mark.parametrize(
    "last",
    [
        node("z", "a", when="false"),
        node("z", "a", foreach=[]),
        node("z", "a", type="end", inputs={"output": 1}),
        node("z", "a", type="signal"),
        node("z", "a", type="coordinator_fn", io={"fn": "noop"}),
    ],
)
def test_what_starts_without_an_attempt_needs_no_budget(last: dict[str, Any]) -> None:
    play = Play(graph(node("a"), last, budget={"attempts": 1}))
    play.succeed("a")
    play.ask("signal", name="z")

    assert play.status == "finished"


@pytest.mark.parametrize("last", [node("z", "a", type="task", graph=CHILD), node("z", "a", when="true")])
def test_what_needs_one_attempt_more_than_there_are_ends_the_task(last: dict[str, Any]) -> None:
    play = Play(graph(node("a"), last, budget={"attempts": 1}))
    play.succeed("a")

    assert ((play.task.error or {})["code"], play.state("z"), play.task.children) == (
        "budget_exceeded",
        "cancelled",
        {},
    )


def test_a_task_that_has_used_up_its_run_time_fails() -> None:
    play = Play(graph(node("a"), node("b", "a"), budget={"run_sec": 0.15}))
    play.succeed("a")
    assert play.status == "running"
    play.fail("b", run_sec=0.1)

    assert (play.task.error or {})["code"] == "budget_exceeded"


# Outputs that are kept.


def cached(**more: Any) -> Play:
    said = {"cache": {"key": "params.day", "ttl_sec": 60}} | more
    return Play(graph(node("a", **said), node("z", "a")), params={"day": 1})


def looked(play: Play, output: Payload | None, name: str = "a") -> None:
    (question,) = play.last.questions
    assert isinstance(question, LookUp)
    assert question.node == name
    play.tell(Looked(name, question.key, output))


def test_a_node_with_a_key_first_asks_whether_its_output_is_kept() -> None:
    play = cached()
    assert play.ready() == []
    looked(play, Payload({"n": 1}))

    assert play.state("a") == "finished"
    assert play.facts(f.NodeFinished)[0].cached
    assert play.inputs("z") == {"n": 1}


def test_a_node_whose_output_is_not_kept_runs_and_then_it_is() -> None:
    play = cached()
    looked(play, None)
    assert play.ready() == ["a"]
    play.place("a")
    play.succeed("a", output=2)

    (kept,) = [effect for effect in play.last.effects if isinstance(effect, Keep)]
    assert (kept.output, kept.ttl_sec) == (Payload(2), 60)


def test_an_output_that_came_with_a_choice_of_successors_is_not_kept() -> None:
    """Whoever took it would go to all of them."""
    play = cached()
    looked(play, None)
    play.place("a")
    play.succeed("a", output=2, next=("z",))

    assert not [effect for effect in play.last.effects if isinstance(effect, Keep)]


def test_keys_are_of_the_tenant_and_the_role() -> None:
    keys = set()
    for tenant, role in (("one", "x"), ("other", "x"), ("one", "y")):
        play = Play(graph(node("a", type=role, cache={"key": "1", "ttl_sec": 1})), begin=False)
        play.task.tenant = tenant
        play.tell(Accepted())
        (question,) = play.last.questions
        keys.add(question.key)  # type: ignore[union-attr]

    assert len(keys) == 3


def test_a_key_that_has_no_value_fails_its_node() -> None:
    assert (cached(cache={"key": "params.missing", "ttl_sec": 1}).task.runs["a"].error or {})["code"] == "expr_error"


def test_items_are_kept_one_by_one() -> None:
    play = Play(graph(node("m", foreach=[1, 2], cache={"key": "item", "ttl_sec": 60})))
    first, second = play.last.questions
    play.tell(Looked("m[0]", first.key, Payload("kept")))  # type: ignore[union-attr]
    play.tell(Looked("m[1]", second.key, None))  # type: ignore[union-attr]

    assert (play.state("m[0]"), play.ready()) == ("finished", ["m[1]"])
