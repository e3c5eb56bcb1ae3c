"""Every pair of attempt state and report: what the table says, and what becomes of the node."""

from __future__ import annotations

from typing import get_args

import pytest

from flowkit.core import facts as f
from flowkit.core import reports as r
from flowkit.core.attempts import attempt_state
from flowkit.core.desk import Decision
from flowkit.core.payload import Payload
from flowkit.core.transitions import TABLE, AttemptState, Verdict, to_mermaid
from tests.core.builders import Play, graph, node

KINDS: tuple[type[r.AttemptReport], ...] = get_args(r.AttemptReport)
PAIRS = [(state, kind) for state in AttemptState for kind in KINDS]

# What is recorded, and the node's state after it.
CONSEQUENCES = {
    Verdict.STALE: (None, None),
    Verdict.RUNS: (f.AttemptStarted, "running"),
    Verdict.STREAMS: (f.StreamBegun, "running"),
    Verdict.SUCCEEDS: (f.AttemptSucceeded, "finished"),
    Verdict.FAILS: (f.AttemptFailed, "waiting"),
    Verdict.IS_LOST: (f.LeaseLost, "ready"),
    Verdict.IS_CANCELLED: (f.NodeCancelled, "cancelled"),
}


def attempt_in(state: AttemptState) -> Play:
    play = Play(graph(node("a"), node("other")))
    play.place("a")
    if state in (AttemptState.RUNNING, AttemptState.CANCELLING):
        play.start("a")
    if state is AttemptState.CANCELLING:
        play.ask("cancel", node_id="a")
    return play


def report_of(kind: type[r.AttemptReport], token: str) -> r.AttemptReport:
    if kind is r.Succeeded:
        return r.Succeeded("a", 1, token, Payload(1))
    if kind is r.Failed:
        return r.Failed("a", 1, token, {"code": "Oops", "message": "no"}, retry_after=5.0)
    return kind("a", 1, token)  # type: ignore[call-arg]


def test_the_table_knows_every_state_and_every_report() -> None:
    assert set(TABLE) == set(AttemptState)
    assert all(set(row) == set(KINDS) for row in TABLE.values())


@pytest.mark.parametrize(("state", "kind"), PAIRS, ids=lambda part: getattr(part, "__name__", str(part)))
def test_every_pair_does_what_the_table_says(state: AttemptState, kind: type[r.AttemptReport]) -> None:
    play = attempt_in(state)
    token = "another" if state is AttemptState.NONE else "a#1"
    assert attempt_state(play.task.runs["a"], token) is state
    before = play.state("a")

    decision = play.tell(report_of(kind, token))

    fact, after = CONSEQUENCES[TABLE[state][kind]]
    if fact is None:
        assert decision == Decision(stale=1)
        assert play.state("a") == before
    else:
        assert [type(recorded) for recorded in decision.recorded] == [fact]
        assert play.state("a") == after
        assert decision.stale == 0


@pytest.mark.parametrize("state", [AttemptState.LEASED, AttemptState.RUNNING, AttemptState.CANCELLING])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_report_that_was_applied_is_stale_when_it_comes_again(
    state: AttemptState, kind: type[r.AttemptReport]
) -> None:
    play = attempt_in(state)
    play.tell(report_of(kind, "a#1"))

    again = play.tell(report_of(kind, "a#1"))

    assert again == Decision(stale=1)


def test_the_diagram_shows_every_transition() -> None:
    text = to_mermaid()

    assert text.startswith("stateDiagram-v2\n")
    assert "    leased --> running: Started\n" in text
    assert "    running --> succeeded: Succeeded\n" in text
    assert "    cancelling --> cancelled: Expired\n" in text
    assert "stale" not in text
    moves = sum(verdict is not Verdict.STALE for row in TABLE.values() for verdict in row.values())
    assert text.count(": ") == moves + 3  # and into leased, and into cancelling from two states
