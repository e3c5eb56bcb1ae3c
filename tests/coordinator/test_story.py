"""What a coordinator keeps in mind of the attempts that it saw end, and what it does not."""

from __future__ import annotations

from flowkit.coordinator.history import new_task
from flowkit.coordinator.story import PORTION, Story
from flowkit.core import facts as f
from flowkit.core.dialect import parse_graph
from flowkit.core.evolve import evolve
from flowkit.core.payload import Payload
from flowkit.monitor_ports import Seen
from flowkit.ports import Head
from tests.core.builders import graph, node

HEAD = Head("t", 0, "g", name="shop", flow="order@3", tenant="acme")


class Listener:
    """Hears of portions, of which it takes `most`."""

    def __init__(self, most: int) -> None:
        self.portions: list[Seen] = []
        self._most = most

    def __call__(self, task_id: str, seen: Seen) -> bool:
        assert task_id == HEAD.task_id
        self.portions.append(seen)
        return len(self.portions) <= self._most


def told(
    *commits: list[f.Fact], names: tuple[str, ...] = ("a",), listener: Listener | None = None
) -> tuple[Story, list[bool]]:
    """A story that heard these commits, and what it answered to each."""
    story = Story(Listener(0) if listener is None else listener)
    task = new_task(HEAD, parse_graph(graph(*map(node, names))))
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
    seen = story.take()
    (record,) = seen.records
    assert answers == [True, True]
    assert (seen.since, seen.until) == (0, 2)
    assert (record.tenant, record.flow, record.node, record.outcome) == ("acme", "order", "a", "succeeded")
    assert (record.ready_at, record.leased_at, record.ended_at, record.seq) == (10.0, 10.0, 20.0, 2)


def test_what_a_commit_told_that_was_not_heard_ends_it() -> None:
    task, story = new_task(HEAD, parse_graph(graph(node("a")))), Story(Listener(0))
    assert not story.hear(HEAD, task, 2, 20.0, [])


def long(listener: Listener) -> tuple[Story, list[bool]]:
    """A story of a task that goes on for three commits, the first two of which end a portion each."""
    names = [f"n{number}" for number in range(2 * PORTION + 3)]
    first, second, rest = names[: PORTION + 1], names[PORTION + 1 : 2 * PORTION + 1], names[2 * PORTION + 1 :]
    created: list[f.Fact] = [f.TaskCreated(), *map(leased, names)]
    ends: list[list[f.Fact]] = [[*map(succeeded, some)] for some in (first, second, rest)]
    return told(created, *ends, names=tuple(names), listener=listener)


def test_a_long_story_is_told_in_portions_that_end_with_a_commit() -> None:
    listener = Listener(2)
    story, answers = long(listener)

    assert answers == [True] * 4
    portions = [*listener.portions, story.take()]
    assert [(one.since, one.until, len(one.records)) for one in portions] == [
        (0, 2, PORTION + 1),
        (2, 3, PORTION),
        (3, 4, 2),
    ]
    assert len({record.node for one in portions for record in one.records}) == 2 * PORTION + 3
    again = story.take()
    assert (again.since, again.until, again.records) == (4, 4, [])


def test_a_story_that_nobody_listens_to_is_given_up() -> None:
    assert long(Listener(1))[1][:3] == [True, True, False]


def test_a_restart_ends_it() -> None:
    _, answers = told([f.TaskCreated(), leased("a")], [succeeded("a"), f.TaskEnded("finished")], [f.TaskRestarted(1)])
    assert answers == [True, True, False]
