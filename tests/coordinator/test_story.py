"""What a coordinator keeps in mind of the attempts that it saw end, and what it does not."""

from __future__ import annotations

from flowkit.coordinator.history import new_task
from flowkit.coordinator.story import MOST_RECORDS, Story
from flowkit.core import facts as f
from flowkit.core.dialect import parse_graph
from flowkit.core.evolve import evolve
from flowkit.core.payload import Payload
from flowkit.ports import Head
from tests.core.builders import graph, node

HEAD = Head("t", 0, "g", name="shop", flow="order@3", tenant="acme")


def told(*commits: list[f.Fact], names: tuple[str, ...] = ("a",)) -> tuple[Story, list[bool]]:
    """A story that heard these commits, and what it answered to each."""
    task, story = new_task(HEAD, parse_graph(graph(*map(node, names)))), Story()
    answers = []
    for seq, facts in enumerate(commits, 1):
        for fact in facts:
            evolve(task, fact, 10.0 * seq)
        answers.append(story.hear(HEAD, task, seq, 10.0 * seq, facts))
    return story, answers


def leased(name: str) -> f.AttemptLeased:
    return f.AttemptLeased(name, 1, f"k-{name}", "w1", "i", 1.0)


def succeeded(name: str) -> f.AttemptSucceeded:
    return f.AttemptSucceeded(name, 1, f"k-{name}", Payload(1), run_sec=0.5)


def test_an_attempt_is_told_with_its_flow_and_its_times() -> None:
    story, answers = told([f.TaskCreated(), leased("a")], [succeeded("a"), f.TaskEnded("finished")])
    (record,) = story.records
    assert answers == [True, True]
    assert (record.tenant, record.flow, record.node, record.outcome) == ("acme", "order", "a", "succeeded")
    assert (record.ready_at, record.leased_at, record.ended_at, record.seq) == (10.0, 10.0, 20.0, 2)


def test_what_a_commit_told_that_was_not_heard_ends_it() -> None:
    task, story = new_task(HEAD, parse_graph(graph(node("a")))), Story()
    assert not story.hear(HEAD, task, 2, 20.0, [])


def test_a_long_story_is_given_up() -> None:
    names = tuple(f"n{number}" for number in range(MOST_RECORDS + 2))
    first, rest = names[: MOST_RECORDS + 1], names[MOST_RECORDS + 1 :]
    created: list[f.Fact] = [f.TaskCreated(), *map(leased, names)]
    _, answers = told(created, [*map(succeeded, first)], [*map(succeeded, rest)], names=names)
    assert answers == [True, True, False]


def test_a_restart_ends_it() -> None:
    _, answers = told([f.TaskCreated(), leased("a")], [succeeded("a"), f.TaskEnded("finished")], [f.TaskRestarted(1)])
    assert answers == [True, True, False]
