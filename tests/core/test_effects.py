"""What a decision wants done, and in which order."""

from __future__ import annotations

from flowkit.core import reports as r
from flowkit.core.effects import Dispatch, Revoke
from flowkit.core.payload import Artifact, Payload
from tests.core.builders import Play, graph, node


def test_a_dispatch_says_all_that_a_worker_needs() -> None:
    play = Play(graph(node("a", type="role", timeouts={"run_sec": 5})), params={"p": 1})

    (effect,) = play.tell(r.Placed("a", "tok", "w", "i", 7.0)).effects

    assert isinstance(effect, Dispatch)
    assert (effect.node.type, effect.node.timeouts.run_sec, effect.inputs) == ("role", 5, {"p": 1})
    assert (effect.attempt, effect.token, effect.worker, effect.incarnation) == (1, "tok", "w", "i")
    assert effect.accept_by == 7.0


def test_a_dispatch_may_carry_artifacts_by_reference() -> None:
    big = Artifact("ref", 9, "json")
    play = Play(graph(node("a"), node("b", "a")))
    play.place("a")
    play.tell(r.Succeeded(*play.attempt_of("a"), Payload(None, big)))

    play.place("b")

    assert play.dispatches()["b"].inputs is big


def test_a_revoke_never_goes_before_the_dispatch_it_revokes() -> None:
    play = Play(graph(node("a"), node("b")))

    decision = play.tell(r.Placed("a", "tok", "w", "i", 7.0), r.Requested(1, "x", "cancel", {"reason": "no"}))

    assert [type(effect) for effect in decision.effects] == [Dispatch, Revoke]
    assert decision.effects[1] == Revoke("a", 1, "tok", "w", "i", "no", 30.0)


def test_a_lease_that_is_lost_is_not_revoked() -> None:
    play = Play(graph(node("a")))

    assert play.lose("a").effects == []
