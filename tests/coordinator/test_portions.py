"""A decision becomes as few commits as the store takes."""

from __future__ import annotations

import pytest

from flowkit.coordinator.cell import Cell
from flowkit.coordinator.portions import SLICE, Portions
from flowkit.core import facts as f
from flowkit.core.payload import Payload
from flowkit.wire.facts import body_of, decode_facts, encode_facts


def succeeded(count: int, size: int = 1) -> list[f.Fact]:
    return [f.AttemptSucceeded(f"n{i}", 1, f"token-{i}", Payload("x" * size)) for i in range(count)]


@pytest.mark.parametrize("count", [1, SLICE - 1, SLICE, SLICE + 1, 5 * SLICE + 3])
def test_what_fits_is_one_commit_that_reads_as_if_each_fact_had_been_written_alone(count: int) -> None:
    facts = succeeded(count)
    (commit,) = Portions("c", 512 * 1024).of(Cell("t", 0), facts, 7.0)
    assert commit.body == body_of(encode_facts(facts))
    assert (commit.task_id, commit.seq, commit.prev, commit.at) == ("t", 1, "", 7.0)


def test_what_does_not_fit_is_cut_between_facts_and_nothing_is_lost() -> None:
    facts = succeeded(4 * SLICE, size=100)
    commits = list(Portions("c", 5000).of(Cell("t", 0), facts, 7.0))
    assert len(commits) > 1
    assert all(len(commit.body) <= 5000 + 2 for commit in commits)
    assert [commit.seq for commit in commits] == list(range(1, len(commits) + 1))
    assert [commit.prev for commit in commits] == ["", *(commit.id for commit in commits[:-1])]
    assert [fact for commit in commits for fact in decode_facts(commit.body)] == facts


def test_a_request_and_what_it_did_are_not_cut_apart_however_large_they_are() -> None:
    cancelling = f.TaskCancelling("because " * 100, "cancelled", 9.0)
    facts = [*succeeded(SLICE), f.RequestApplied(1, "r", "cancel", True), cancelling]
    commits = list(Portions("c", 300).of(Cell("t", 0), facts, 7.0))
    assert decode_facts(commits[-1].body)[-2:] == facts[-2:]
