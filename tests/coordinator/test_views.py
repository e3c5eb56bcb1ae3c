"""What the state of a task says of nodes that do not run."""

from __future__ import annotations

from flowkit.coordinator.views import waits_for
from tests.core.builders import Play, graph, node, once


def said(play: Play, name: str) -> tuple[str, str]:
    reason = waits_for(play.task, name)
    assert reason is not None
    return reason.code, reason.message


def test_an_item_that_may_not_begin_yet_after_a_restart_waits_for_others() -> None:
    play = Play(graph(once("m", foreach=[1, 2, 3], max_parallel=1)))
    for number in range(3):
        play.fail_for_good(f"m[{number}]")
    play.ask("restart", failed_only=True)

    assert said(play, "m[2]") == ("waiting_for", "node 'm[2]' waits for others of 'm' to end: 1 may run at a time")


def test_what_is_paused_with_its_map_says_what_to_resume() -> None:
    play = Play(graph(node("m", foreach=[1, 2], repeat={"until": "true"})))
    play.ask("pause", node_id="m")

    lets = "resume_task(..., node_id='m') lets"
    assert said(play, "m[1]#1") == ("paused", f"node 'm' is paused; {lets} 'm[1]#1' start")
    assert said(play, "m") == ("paused", f"node 'm' has 2 items: 0 done, 2 begun; node 'm' is paused; {lets} it go on")


def test_the_node_of_a_paused_child_says_what_to_resume() -> None:
    play = Play(graph(node("c", type="task", graph=graph(node("in"))), node("z", "c")))
    assert said(play, "c")[0] == "child"
    play.ask("pause", node_id="c")

    code, message = said(play, "c")
    assert (code, message.partition(", which ")[2]) == (
        "paused",
        "is paused; resume_task(..., node_id='c') lets it go on",
    )
    play.ask("pause", node_id="z")
    assert said(play, "z")[1] == "node 'z' is paused; resume_task(..., node_id='z') lets it start"
