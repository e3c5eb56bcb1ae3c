"""Tasks take turns for a worker's slots; within a task, first come, first served."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from flowkit.wire.messages import Job
from flowkit.worker.attempt import Attempt
from flowkit.worker.registry import Registry
from flowkit.worker.turns import Turns
from tests.worker.stand import Stand, virtual


async def echo(inputs: object) -> object:
    return inputs


ROLE = Registry([echo]).get("echo")
NUMBERS = itertools.count()


def attempt(task_id: str) -> Attempt:
    assert ROLE is not None
    number = next(NUMBERS)
    job = Job(task_id=task_id, tenant="default", principal="me", partition=0, node=f"n{number}", role="echo", attempt=1,
              token=f"k{number}", generation=0, accept_by=0.0, inputs={})  # fmt: skip
    return Attempt(job, ROLE, 0.0, 0.0)


def taken(turns: Turns) -> list[str]:
    found = []
    while turns:
        found.append(turns.take().job.task_id)
    return found


def test_a_wide_task_does_not_hold_up_a_narrow_one() -> None:
    turns = Turns()
    for task in "aaaaab":
        turns.put(attempt(task))
    turns.put(attempt("c"))

    assert taken(turns) == ["a", "b", "c", "a", "a", "a", "a"]


def test_those_that_could_not_take_their_turn_go_first() -> None:
    turns = Turns()
    waiting = [attempt("a"), attempt("b"), attempt("a")]
    first, second = attempt("c"), attempt("b")
    for one in waiting:
        turns.put(one)
    turns.put_back([first, second])

    assert [turns.take() for _ in range(5)] == [first, second, waiting[0], waiting[1], waiting[2]]


def test_what_is_not_wanted_is_forgotten() -> None:
    turns = Turns()
    kept, gone = attempt("a"), attempt("b")
    turns.put(kept)
    turns.put(gone)
    turns.keep(lambda one: one is kept)

    assert turns.take() is kept
    assert not turns


@given(st.lists(st.sampled_from("abcd"), max_size=60))
def test_nothing_is_lost_or_overtaken_within_its_task_and_none_waits_longer_than_a_round(tasks: list[str]) -> None:
    turns = Turns()
    put = [attempt(task) for task in tasks]
    for one in put:
        turns.put(one)

    came = []
    while turns:
        came.append(turns.take())

    for task in set(tasks):
        assert [one for one in came if one.job.task_id == task] == [one for one in put if one.job.task_id == task]
    places = [one.job.task_id for one in came]
    for task in set(tasks):
        assert places.index(task) < len(set(tasks)), "its first comes in the first round"


@virtual
async def test_an_attempt_runs_before_hundreds_of_another_task_that_came_earlier() -> None:
    async with Stand([echo]) as stand:
        slots = stand.runtime._slots._slots
        wide = [stand.job("echo", task_id="wide") for _ in range(200)]
        await stand.send(*wide, stand.job("echo", task_id="narrow"))

        await stand.until(lambda: len(stand.told) == 201)

        assert [told.task_id for told in stand.told].index("narrow") <= slots + 1
