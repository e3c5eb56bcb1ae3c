"""Items and repetitions: how a node becomes many, and one again."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core import facts as f
from flowkit.core import lifecycle
from flowkit.core.decide import decide
from flowkit.core.effects import Revoke
from flowkit.core.evolve import evolve
from flowkit.core.inputs import output_of, task_output
from flowkit.core.payload import Artifact, Payload
from flowkit.core.reports import Fetched, Succeeded
from tests.core.builders import Play, graph, node

LIST = [10, 20, 30]


def mapped(**more: Any) -> dict[str, Any]:
    return graph(
        node("m", foreach={"$param": "list"}, inputs={"x": {"$item": ""}, "i": {"$index": ""}}, **more), node("z", "m")
    )


def play_of(items: Any = LIST, **more: Any) -> Play:
    return Play(mapped(**more), params={"list": items})


# Items.


def test_a_node_runs_once_for_each_item_and_gives_the_list_of_what_they_gave() -> None:
    play = play_of()

    assert play.ready() == ["m[0]", "m[1]", "m[2]"]
    assert [play.inputs(f"m[{n}]") for n in range(3)] == [{"x": x, "i": n} for n, x in enumerate(LIST)]
    for n in (2, 0, 1):
        play.succeed(f"m[{n}]", output=n)
    assert play.state("m") == "finished"
    assert output_of(play.task, "m") == [0, 1, 2]
    assert play.inputs("z") == [0, 1, 2]


def test_an_empty_list_gives_an_empty_list() -> None:
    play = play_of([])

    assert play.state("m") == "finished"
    assert play.inputs("z") == []


def test_without_inputs_an_item_is_given_as_it_is() -> None:
    play = Play(graph(node("m", foreach=[{"a": 1}, 2])))

    assert [play.inputs("m[0]"), play.inputs("m[1]")] == [{"a": 1}, 2]


@pytest.mark.parametrize("items", [None, {"a": 1}, "text", 3])
def test_what_is_no_list_fails_the_node(items: Any) -> None:
    play = play_of(items)

    assert play.state("m") == "failed"
    assert "expected a list" in (play.task.runs["m"].error or {})["message"]


def test_too_many_items_fail_the_node_and_say_how_many_are_too_many() -> None:
    play = play_of([0] * 100_001)

    assert "100,000 are the most" in (play.task.runs["m"].error or {})["message"]


def test_no_more_items_run_than_may() -> None:
    play = play_of(max_parallel=2)

    assert play.ready() == ["m[0]", "m[1]"]
    play.succeed("m[1]")
    assert play.ready() == ["m[0]", "m[2]"]


def test_items_come_to_exist_when_they_may_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "LOOKAHEAD", 2)
    play = play_of([*range(5)])

    assert play.ready() == ["m[0]", "m[1]"]
    play.place("m[0]")
    assert play.ready() == ["m[1]", "m[2]"]
    assert "m[3]" not in play.task.runs
    assert play.task.open == 7  # m, its five items, and z


def test_an_item_is_tried_again_by_itself() -> None:
    play = play_of(retry_policy={"max": 2, "jitter": False})
    play.fail("m[1]")
    play.wait(1)

    assert play.ready() == ["m[0]", "m[2]", "m[1]"]
    play.succeed("m[0]", "m[1]", "m[2]", output=1)
    assert play.task.runs["m[1]"].attempt == 2
    assert play.state("m") == "finished"


def test_an_item_that_fails_fails_the_node_when_all_have_ended() -> None:
    play = play_of()
    play.fail_for_good("m[1]")

    assert play.state("m") == "running"
    play.succeed("m[0]", "m[2]")
    assert play.state("m") == "failed"
    error = play.task.runs["m"].error or {}
    assert (error["code"], error["item"]) == ("item_failed", "m[1]")
    assert error["message"] == "1 of 3 items failed, first m[1]: Oops: no"
    assert play.skipped("z") == ("upstream_failed", True, "m")
    assert play.status == "failed"


def test_with_fail_fast_the_first_item_that_fails_ends_it_all() -> None:
    play = Play(mapped() | {"fail_fast": True}, params={"list": LIST})
    play.place("m[0]")
    play.fail_for_good("m[1]")

    assert [e.node for e in play.last.effects if isinstance(e, Revoke)] == ["m[0]"]
    assert play.status == "cancelling"
    play.release("m[0]")
    assert (play.status, play.state("m[2]")) == ("failed", "cancelled")


def test_collect_makes_a_failed_item_an_element_of_the_list() -> None:
    play = play_of(on_item_failure="collect")
    play.fail_for_good("m[1]")
    play.succeed("m[0]", "m[2]", output=1)

    assert output_of(play.task, "m") == [{"output": 1}, {"error": {"code": "Oops", "message": "no"}}, {"output": 1}]
    play.succeed("z")
    assert play.status == "finished"


def test_any_item_is_enough_and_the_others_go_on() -> None:
    play = play_of(gather="any")
    play.succeed("m[1]", output="first")

    assert output_of(play.task, "m") == ["first"]
    assert play.ready() == ["m[0]", "m[2]", "z"]
    play.succeed("z")
    assert play.status == "running"
    play.succeed("m[0]", "m[2]", output="late")
    assert play.status == "finished"
    assert output_of(play.task, "m") == ["first"]


def test_losers_are_cancelled_where_that_was_asked_for() -> None:
    play = play_of([1, 2, 3, 4], gather={"count": 2}, losers="cancel", max_parallel=3)
    play.place("m[0]")
    play.succeed("m[2]", output="c")
    play.succeed("m[1]", output="b")

    assert output_of(play.task, "m") == ["b", "c"]
    assert list(play.revokes()) == ["m[0]"]
    play.release("m[0]")
    play.succeed("z")
    assert play.status == "finished"
    assert {name: state for name, state in play.states.items() if "[" in name} == {
        "m[0]": "cancelled", "m[1]": "finished", "m[2]": "finished", "m[3]": "cancelled",
    }  # fmt: skip


def test_a_group_fails_as_soon_as_too_few_can_finish() -> None:
    play = play_of(gather={"count": 2})
    play.fail_for_good("m[0]")
    assert play.state("m") == "running"
    play.fail_for_good("m[1]")

    assert play.state("m") == "failed"
    assert play.states["m[2]"] == "cancelled"


def test_a_group_that_has_too_few_items_fails() -> None:
    play = play_of([1], gather={"count": 2})

    assert (play.task.runs["m"].error or {})["code"] == "too_few_items"
    assert play.status == "failed"


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ({"a": 1, "b": [2]}, "an object with the keys 'a', 'b': name the list in it by its path, or make one of it"),
        ({}, "an object with nothing in it"),
        ("a, b", """'a, b', which is text: {"$param": "rows"}, {"$from": "node.rows"} or {"$expr": "..."} gives one"""),
        (7, "7: write [...] around it"),
        (None, "null: the node or param that it reads gives nothing"),
    ],
)
def test_what_is_no_list_is_told_with_what_to_do(items: Any, says: str) -> None:
    play = Play(graph(node("m", foreach={"$param": "items"})), params={"items": items})
    message = (play.task.runs["m"].error or {})["message"]
    assert message.startswith(f"foreach: expected a list, found {says}")


def test_one_item_is_no_items() -> None:
    play = Play(graph(node("m", foreach=[1], gather={"count": 2})))
    assert (play.task.runs["m"].error or {})["message"] == "it has 1 item, fewer than it needs"
    play = Play(graph(node("m", foreach=[1])))
    play.fail_for_good("m[0]")
    assert (play.task.runs["m"].error or {})["message"].startswith("1 of 1 item failed, first m[0]")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"type": "signal", "inputs": {"name": "go"}}, "no signal 'go' came, and it waited longer than 5 s"),
        ({"type": "sleep", "inputs": {"seconds": 60}}, "it was to sleep longer than 5 s"),
        ({"foreach": [1, 2]}, "all its items together took longer than 5 s"),
        ({"repeat": {"until": "output"}}, "all its repetitions together took longer than 5 s"),
        ({}, "all its attempts together took longer than 5 s"),
    ],
)
def test_a_total_timeout_says_what_took_too_long(said: dict[str, Any], message: str) -> None:
    play = Play(graph(node("n", **{"timeouts": {"total_sec": 5}, **said})))
    play.wait(5)
    assert play.task.runs["n"].error == {"code": "total_timeout", "message": message}


def test_cancelling_a_group_cancels_what_of_it_is_left() -> None:
    play = play_of(max_parallel=2)
    play.place("m[0]")
    assert play.ask("cancel", node_id="m") == ""

    assert list(play.revokes()) == ["m[0]"]
    assert play.states["m[1]"] == "cancelled"
    play.release("m[0]")
    assert play.states == {"m": "cancelled", "z": "skipped", "m[0]": "cancelled", "m[1]": "cancelled"}
    assert play.status == "finished"


def test_cancelling_an_item_fails_its_group() -> None:
    play = play_of()
    play.ask("cancel", node_id="m[1]")
    play.succeed("m[0]", "m[2]")

    assert play.state("m") == "failed"


def test_a_timeout_of_the_whole_counts_for_the_group_and_ends_its_items() -> None:
    play = play_of(timeouts={"total_sec": 5})
    play.place("m[0]")
    play.wait(5)

    assert (play.task.runs["m"].error or {})["code"] == "total_timeout"
    assert list(play.revokes()) == ["m[0]"]
    play.release("m[0]")
    assert play.status == "failed"


def test_a_list_that_is_large_is_read_first() -> None:
    play = Play(graph(node("a"), node("m", foreach={"$from": "a.items"}, inputs={"x": {"$item": "n"}})))
    play.place("a")
    play.tell(Succeeded(*play.attempt_of("a"), Payload(None, Artifact("ref", 10**6, "json"))))

    assert [question.ref for question in play.last.questions] == ["ref"]  # type: ignore[union-attr]
    play.tell(Fetched("ref", {"items": [{"n": 1}, {"n": 2}]}))
    assert play.ready() == ["m[0]", "m[1]"]
    assert play.inputs("m[1]") == {"x": 2}


@pytest.mark.parametrize("items", [{"$var": "l"}, {"$expr": "vars.l"}, [{"$var": "l[0]"}, {"$var": "l[1]"}]])
def test_the_items_of_a_list_made_of_variables_stay_what_they_were(items: Any) -> None:
    """Whoever loads the task later cannot ask the variables any more."""
    setting: dict[str, Any] = {"type": "coordinator_fn"}
    first = node("v", io={"fn": "vars.set", "fn_args": {"kv": {"l": [1, 2]}}}, **setting)
    other = node("o", "w", io={"fn": "vars.set", "fn_args": {"kv": {"l": [9]}}}, **setting)
    once = {"retry_policy": {"max": 1}, "inputs": {"x": {"$item": ""}}}
    play = Play(graph(first, node("m", "v", foreach=items, max_parallel=1, **once), node("w"), other))
    play.succeed("m[0]", output=1)
    play.succeed("w")
    assert play.task.vars == {"l": [9]}
    play.task.memo = {}

    assert play.inputs("m[1]") == {"x": 2}
    play.fail_for_good("m[1]")
    play.ask("restart", from_node="m[1]")
    assert play.inputs("m[1]") == {"x": 2}


def test_a_list_made_of_variables_that_is_too_large_to_keep_fails_the_map() -> None:
    setting = {"type": "coordinator_fn", "io": {"fn": "vars.set", "fn_args": {"kv": {"l": ["x" * 60_000]}}}}
    play = Play(graph(node("v", **setting), node("m", "v", foreach=[{"$var": "l"}] * 5)))

    assert "at most 262,144 bytes" in (play.task.runs["m"].error or {})["message"]


def test_what_an_item_chooses_is_refused() -> None:
    play = play_of()
    play.succeed("m[0]", next=["z"])

    assert (play.task.runs["m[0]"].error or {})["code"] == "bad_output"


def test_a_report_about_an_item_that_does_not_exist_yet_says_that_the_state_is_behind() -> None:
    play = play_of(max_parallel=1)
    early = Succeeded("m[2]", 1, "m[2]#1", Payload(1))
    play.tell(early)

    assert play.last.ahead == [early]


def test_that_others_of_its_kind_were_tried_as_often_does_not_make_a_report_about_one_to_come_stale() -> None:
    play = play_of(max_parallel=1)
    play.place("m[0]")
    item = Succeeded("m[1]", 1, "m[1]#1", Payload(1))
    play.tell(item)
    assert (play.last.ahead, play.last.stale) == ([item], 0)

    play = repeated()
    play.place("p#1")
    run = Succeeded("p#2", 1, "p#2#1", Payload(1))
    play.tell(run)
    assert (play.last.ahead, play.last.stale) == ([run], 0)


# Restarts.


def test_a_restart_of_the_failed_part_runs_only_the_items_that_failed() -> None:
    play = play_of()
    play.fail_for_good("m[1]")
    play.succeed("m[0]", "m[2]", output="kept")
    assert play.ask("restart", failed_only=True) == ""

    assert play.ready() == ["m[1]"]
    play.succeed("m[1]", output="new")
    assert play.inputs("z") == ["kept", "new", "kept"]


def test_a_restart_begins_no_more_items_at_a_time_than_may_run_in_their_order() -> None:
    play = play_of(list(range(12)), max_parallel=2)
    for number in range(12):
        play.fail_for_good(f"m[{number}]")
    play.ask("restart", failed_only=True)
    assert play.ready() == ["m[0]", "m[1]"]

    order = []
    while ready := play.ready():
        assert len(ready) <= 2
        order.append(ready[0])
        play.succeed(ready[0])
    assert order == [*(f"m[{number}]" for number in range(12)), "z"]
    assert play.status == "finished"


@pytest.mark.parametrize("how", ["task", "map", "item", "timeout"])
def test_items_that_wait_for_their_turn_after_a_restart_can_be_cancelled(how: str) -> None:
    play = play_of(max_parallel=1, timeouts={"total_sec": 50})
    for number in range(3):
        play.fail_for_good(f"m[{number}]")
    play.ask("restart", failed_only=True)
    match how:
        case "task":
            play.ask("cancel")
        case "map":
            play.ask("cancel", node_id="m")
        case "timeout":
            play.wait(60)
            assert (play.task.runs["m"].error or {})["code"] == "total_timeout"
        case "item":
            play.ask("cancel", node_id="m[2]")
            assert play.ready() == ["m[0]"]
            play.succeed("m[0]")
            play.succeed("m[1]")
            message = "1 of 3 items failed, first m[2]: cancelled: user_request"
            assert (play.task.runs["m"].error or {})["message"] == message

    assert play.state("m[2]") == "cancelled"
    assert (play.status, play.task.open) == ({"task": "cancelled", "map": "finished"}.get(how, "failed"), 0)


def test_a_history_in_which_restarted_items_began_together_is_still_read() -> None:
    """Versions before this one let all of them begin."""
    play = play_of(max_parallel=1)
    for number in range(3):
        play.fail_for_good(f"m[{number}]")
    play.ask("restart", failed_only=True)
    for number in range(3):
        evolve(play.task, f.AttemptLeased(f"m[{number}]", 2, f"m[{number}]#2", "w", "i", 99.0, ()), play.now)
    group = play.task.runs["m"].group
    assert group is not None
    assert (group.live, group.idle, group.again) == (3, 0, {})
    for number in range(3):
        evolve(play.task, f.AttemptSucceeded(f"m[{number}]", 2, f"m[{number}]#2", Payload(number)), play.now)

    assert (group.live, group.done, play.task.open) == (0, 3, 2)
    assert [fact for fact in decide(play.task, [], play.now).recorded if isinstance(fact, f.NodeGathered)]


def test_items_that_wait_for_their_turn_after_a_restart_survive_another() -> None:
    play = play_of(max_parallel=1)
    for number in range(3):
        play.fail_for_good(f"m[{number}]")
    play.ask("restart", failed_only=True)
    play.succeed("m[0]", output=0)
    play.ask("cancel")
    play.ask("restart", failed_only=True)

    assert play.ready() == ["m[1]"]
    play.succeed("m[1]", output=1)
    play.succeed("m[2]", output=2)
    assert play.inputs("z") == [0, 1, 2]


@pytest.mark.parametrize(
    ("item", "ends", "gives"),
    [("m[0]", "succeed", ["new", 1]), ("m[0]", "fail", [1, 2]), ("m[2]", "succeed", [0, 1]), ("m[2]", "fail", [0, 1])],
)
def test_a_map_that_needs_so_many_gives_so_many_after_a_restart_too(item: str, ends: str, gives: list[Any]) -> None:
    play = play_of(gather={"count": 2})
    for number in range(3):
        play.succeed(f"m[{number}]", output=number)
    play.succeed("z")
    play.ask("restart", from_node=item)
    assert play.state("m") == "running"
    play.succeed(item, output="new") if ends == "succeed" else play.fail_for_good(item)

    assert play.inputs("z") == gives


def test_a_map_that_collected_failures_did_not_fail_and_says_how_an_item_runs_again() -> None:
    play = play_of(on_item_failure="collect")
    play.succeed("m[0]", "m[2]", output=1)
    play.fail_for_good("m[1]")
    play.succeed("z")
    why = "nothing in it failed; items that did were collected: from_node='m[1]' runs one of them again"
    assert play.ask("restart", failed_only=True) == why

    assert play.ask("restart", from_node="m[1]") == ""
    play.succeed("m[1]", output=2)
    assert play.inputs("z") == [{"output": 1}, {"output": 2}, {"output": 1}]


def test_a_restart_from_an_item_runs_it_and_what_follows_the_node() -> None:
    play = play_of()
    play.succeed("m[0]", "m[1]", "m[2]", output=1)
    play.succeed("z")
    assert play.ask("restart", from_node="m[0]") == ""

    assert play.ready() == ["m[0]"]
    play.succeed("m[0]", output=2)
    assert play.inputs("z") == [2, 1, 1]


def test_a_restart_from_the_node_makes_it_anew_and_attempts_go_on_counting() -> None:
    play = play_of()
    play.succeed("m[0]", "m[1]", "m[2]", output=1)
    play.succeed("z")
    play.ask("restart", from_node="m")

    assert play.ready() == ["m[0]", "m[1]", "m[2]"]
    play.place("m[0]")
    assert play.task.runs["m[0]"].attempt == 2
    assert [fact.nodes for fact in play.facts(f.TaskRestarted)] == [("m", "z")]


def test_a_result_from_before_the_restart_changes_nothing() -> None:
    play = play_of()
    play.place("m[0]")
    old = Succeeded(*play.attempt_of("m[0]"), Payload("old"))
    play.ask("cancel")
    play.release("m[0]")
    play.ask("restart")
    play.tell(old)

    assert (play.last.recorded, play.last.stale) == ([], 1)


# Repetitions.


def repeated(**more: Any) -> Play:
    said = {"until": "output >= 2", "max": 3} | more
    return Play(graph(node("p", repeat=said, inputs={"last": {"$previous": "", "default": None}}), node("z", "p")))


def test_a_node_runs_again_until_its_condition_holds_and_sees_what_it_gave_before() -> None:
    play = repeated()

    assert play.inputs("p#1") == {"last": None}
    play.succeed("p#1", output=1)
    assert play.inputs("p#2") == {"last": 1}
    play.succeed("p#2", output=2)
    assert (play.state("p"), output_of(play.task, "p")) == ("finished", 2)
    assert play.ready() == ["z"]


def test_the_last_repetition_chooses_among_the_successors_of_its_node() -> None:
    play = Play(graph(node("p", repeat={"until": "output == 2"}), node("y", "p"), node("z", "p")))

    play.succeed("p#1", output=1, next=["y"])
    play.succeed("p#2", output=2, next=["z"])

    assert (play.state("y"), play.ready()) == ("skipped", ["z"])


def test_repetitions_wait_for_each_other() -> None:
    play = repeated(every_sec=10)
    play.succeed("p#1", output=1)

    assert play.state("p#2") == "waiting"
    play.wait(9)
    assert play.ready() == []
    play.wait(1)
    assert play.ready() == ["p#2"]


def test_out_of_repetitions_a_node_fails_for_good() -> None:
    play = repeated()
    for n in (1, 2, 3):
        play.succeed(f"p#{n}", output=0)

    assert (play.task.runs["p"].error or {})["code"] == "repeat_exhausted"
    assert play.status == "failed"


def test_a_repetition_that_fails_for_good_fails_the_node() -> None:
    play = repeated()
    play.fail_for_good("p#1")

    assert (play.task.runs["p"].error or {})["code"] == "Oops"


def test_a_condition_of_a_repetition_that_has_no_value_fails_the_node() -> None:
    play = repeated(until="output.done")
    play.succeed("p#1", output=1)

    assert (play.task.runs["p"].error or {})["code"] == "expr_error"


def test_items_may_repeat() -> None:
    play = Play(
        graph(node("m", foreach=[1, 2], repeat={"until": "output == item", "max": 5}, inputs={"x": {"$item": ""}}))
    )

    assert play.ready() == ["m[0]#1", "m[1]#1"]
    play.succeed("m[0]#1", output=1)
    play.succeed("m[1]#1", output=1)
    assert play.inputs("m[1]#2") == {"x": 2}
    play.succeed("m[1]#2", output=2)
    assert task_output(play.task) == [1, 2]
    assert play.status == "finished"


def test_pausing_a_node_holds_back_its_items() -> None:
    play = Play(graph(node("a"), node("m", foreach={"$from": "a"})))
    assert play.ask("pause", node_id="m") == ""
    play.succeed("a", output=[1])

    assert play.states == {"a": "finished", "m": "pending"}
    assert play.ask("pause", node_id="m") == "node 'm' is paused already"
    assert play.ask("resume", node_id="m") == ""
    assert play.ready() == ["m[0]"]


def test_pausing_a_map_that_runs_begins_no_more_of_its_items() -> None:
    play = play_of(max_parallel=2)
    play.place("m[0]")
    assert play.ask("pause", node_id="m") == ""
    assert play.ready() == []
    play.succeed("m[0]")
    assert (play.ready(), play.state("m[1]"), play.state("m[2]")) == ([], "ready", "ready")
    play.place("m[1]")
    assert len(play.last.unused) == 1

    assert play.ask("resume", node_id="m") == ""
    assert play.ready() == ["m[1]", "m[2]"]


def test_pausing_a_repetition_begins_no_other_run() -> None:
    play = Play(graph(node("r", repeat={"until": "output", "every_sec": 5})))
    play.ask("pause", node_id="r")
    play.ask("resume", node_id="r")
    play.succeed("r#1", output=False)
    play.ask("pause", node_id="r")
    play.wait(6)
    assert (play.ready(), play.state("r#2")) == ([], "ready")

    play.ask("resume", node_id="r")
    assert play.ready() == ["r#2"]


def test_what_is_paused_by_itself_stays_so_when_its_map_goes_on() -> None:
    play = Play(graph(node("m", foreach=[1, 2], repeat={"until": "true"}, inputs={})))
    play.ask("pause", node_id="m[1]")
    play.ask("pause", node_id="m")
    assert play.ready() == []
    play.ask("resume", node_id="m")
    assert play.ready() == ["m[0]#1"]

    play.ask("resume", node_id="m[1]")
    assert play.ready() == ["m[0]#1", "m[1]#1"]


def test_a_ready_item_can_be_paused_alone() -> None:
    play = play_of()
    play.ask("pause", node_id="m[1]")

    assert play.ready() == ["m[0]", "m[2]"]
    play.place("m[1]")
    assert len(play.last.unused) == 1
    play.ask("resume", node_id="m[1]")
    assert play.ready() == ["m[0]", "m[2]", "m[1]"]
