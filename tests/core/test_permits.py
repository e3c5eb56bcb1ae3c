"""Claims: what a node needs, by which name it asks for it, and when that is over for good."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core import facts as f
from flowkit.core import reports as r
from flowkit.core.model import Task
from flowkit.core.node_run import NodeState
from flowkit.core.permits import claim_of, is_rate, needs_of, over
from tests.core.builders import Play, graph, new_task, node, through_snapshot

DB = {"key": "db", "max": 3}
API = {"key": "api", "rate": 10}


def limited(*limits: dict[str, Any], **more: Any) -> dict[str, Any]:
    return node("a", limits=list(limits), **more)


def place(play: Play, name: str, token: str = "k") -> Any:  # noqa: S107
    permits = tuple(need.limit_id for need in needs_of(play.task, name))
    return play.tell(r.Placed(name, token, "w", "i", 5.0, permits))


def claim(play: Play, name: str = "a") -> tuple[int, int, int]:
    return claim_of(play.task, play.task.runs[name])


class TestNeeds:
    def test_all_ask_in_one_order_with_rates_last(self) -> None:
        one, other = new_task(graph(limited(API, DB, {"key": "z", "max": 1}))), new_task(graph(limited(DB, API)))
        keys = [need.key for need in needs_of(one, "a")]
        assert set(keys[:2]) == {"db", "z"}
        assert keys[2] == "api"
        assert [need.key for need in needs_of(other, "a")] == ["db", "api"]
        assert [is_rate(need.limit_id) for need in needs_of(other, "a")] == [False, True]

    def test_a_key_is_filled_in_from_tenant_and_params(self) -> None:
        key = {"key": "{tenant}/{params.who}/{params.deep.n}", "max": 1}
        task = new_task(graph(limited(key)), params={"who": "ann", "deep": {"n": 7}})
        assert needs_of(task, "a")[0].key == "default/ann/7"

    @pytest.mark.parametrize("kind", [{"max": 1}, {"rate": 1}])
    def test_a_key_with_the_tenant_in_it_is_no_one_elses(self, kind: dict[str, int]) -> None:
        def limit_of(key: str, tenant: str, **params: str) -> str:
            task = new_task(graph(limited({"key": key, **kind})), params=params)
            task.tenant = tenant
            return needs_of(task, "a")[0].limit_id

        own = limit_of("db:{tenant}", "acme")
        assert own == limit_of("{params.what}:{tenant}", "acme", what="db")
        for key in ("db:acme", "db:{params.who}", '["acme", "db:acme"]', "db:{tenant}"):
            assert limit_of(key, "other", who="acme") != own
        assert limit_of("db:acme", "acme") != own  # written out it is everybody's

    def test_two_share_a_limit_if_their_keys_come_to_the_same(self) -> None:
        named = new_task(graph(limited({"key": "db:{params.who}", "max": 1})), params={"who": "x"})
        plain = new_task(graph(limited({"key": "db:x", "max": 9})))
        rate = new_task(graph(limited({"key": "db:x", "rate": 9})))
        [one], [other], [third] = needs_of(named, "a"), needs_of(plain, "a"), needs_of(rate, "a")
        assert one.limit_id == other.limit_id != third.limit_id


class TestGate:
    def test_a_limited_node_is_ready_but_offered_to_nobody(self) -> None:
        play = Play(graph(limited(DB), node("b")))
        assert play.task.runs["a"].state is NodeState.READY
        assert list(play.task.gated) == ["a"]
        assert {role: list(names) for role, names in play.task.ready.items()} == {"work": ["b"]}

    def test_let_through_it_is_offered_like_any(self) -> None:
        play = Play(graph(limited(DB)))
        play.task.let_through("a")
        assert list(play.task.ready["work"]) == ["a"]
        decision = place(play, "a")
        [lease] = decision.recorded
        assert lease == f.AttemptLeased("a", 1, "k", "w", "i", 5.0, (needs_of(play.task, "a")[0].limit_id,))
        assert not play.task.gated
        assert not play.task.ready

    @pytest.mark.parametrize("permits", [(), ("limit:other",)])
    def test_no_lease_without_its_permits(self, permits: tuple[str, ...]) -> None:
        play = Play(graph(limited(DB, API)))
        decision = play.tell(r.Placed("a", "k", "w", "i", 5.0, permits))
        assert decision.recorded == []
        assert len(decision.unused) == 1

    def test_after_a_failure_it_needs_permits_again(self) -> None:
        play = Play(graph(limited(DB, retry_policy={"backoff_sec": 0})))
        place(play, "a")
        play.tell(r.Failed("a", 1, "k", {"code": "x", "message": ""}))
        assert list(play.task.gated) == ["a"]
        assert "work" not in play.task.ready

    @pytest.mark.parametrize("kind", ["cancel", "pause"])
    def test_cancelled_it_waits_no_more_and_paused_it_does(self, kind: str) -> None:
        play = Play(graph(limited(DB)))
        play.tell(r.Requested(1, "r", kind))
        assert list(play.task.gated) == ([] if kind == "cancel" else ["a"])

    def test_a_snapshot_keeps_who_waits_at_the_gate(self) -> None:
        play = Play(graph(limited(DB), node("b", limits=[DB])))
        play.tell(r.PermitsUnused("a", claim(play)))
        again = through_snapshot(play.task)
        assert list(again.gated) == list(play.task.gated)
        assert sorted(again.gated_anew) == ["a", "b"]
        assert again.runs["a"].turn == 1


class TestOver:
    def test_while_it_may_be_used_it_is_not_over(self) -> None:
        play = Play(graph(limited(DB)))
        mine = claim(play)
        assert mine == (0, 1, 0)
        assert not over(play.task, "a", mine, "limit:")
        place(play, "a")
        assert claim(play) == mine
        assert not over(play.task, "a", mine, "limit:")

    def test_a_rate_is_used_up_by_the_lease(self) -> None:
        play = Play(graph(limited(API)))
        mine = claim(play)
        assert not over(play.task, "a", mine, "rate:")
        place(play, "a")
        assert over(play.task, "a", mine, "rate:")

    @pytest.mark.parametrize(
        "report",
        [
            r.Failed("a", 1, "k", {"code": "x", "message": ""}),
            r.Declined("a", 1, "k"),
            r.Released("a", 1, "k"),
            r.Expired("a", 1, "k"),
            r.Expired("a", 1, "k", unaccepted=True),
        ],
    )
    def test_it_ends_with_its_lease_and_the_next_attempt_has_another(self, report: r.Report) -> None:
        play = Play(graph(limited(DB)))
        mine = claim(play)
        place(play, "a")
        play.tell(report)
        assert over(play.task, "a", mine, "limit:")
        assert claim(play) == (0, 2, 0)
        assert not over(play.task, "a", claim(play), "limit:")

    def test_what_was_given_back_is_over_and_stays_so_after_a_restart(self) -> None:
        play = Play(graph(limited(DB)))
        first = claim(play)
        assert [type(fact) for fact in play.tell(r.PermitsUnused("a", first)).recorded] == [f.PermitsReturned]
        second = claim(play)
        assert second == (0, 1, 1)
        assert over(play.task, "a", first, "limit:")
        assert not over(play.task, "a", second, "limit:")
        play.tell(r.Requested(1, "r1", "cancel"))
        play.tell(r.Requested(2, "r2", "restart"))
        assert claim(play) == (1, 1, 0)
        assert over(play.task, "a", first, "limit:")
        assert over(play.task, "a", second, "limit:")
        assert not over(play.task, "a", claim(play), "limit:")

    def test_only_what_is_not_used_is_given_back(self) -> None:
        play = Play(graph(limited(DB)))
        mine = claim(play)
        assert play.tell(r.PermitsUnused("a", (0, 2, 0))).recorded == []
        place(play, "a")
        assert play.tell(r.PermitsUnused("a", mine)).recorded == []
        assert play.tell(r.PermitsUnused("nobody", mine)).recorded == []

    def test_of_a_node_that_ended_every_claim_is_over(self) -> None:
        play = Play(graph(limited(DB)))
        play.tell(r.Requested(1, "r", "cancel"))
        assert over(play.task, "a", (0, 1, 0), "limit:")
        assert over(play.task, "nobody", (0, 1, 0), "limit:")

    def test_who_is_behind_does_not_call_the_future_over(self) -> None:
        play = Play(graph(limited(DB)))
        for later in [(0, 1, 1), (0, 2, 0), (1, 1, 0)]:
            assert not over(play.task, "a", later, "limit:")

    def test_what_is_over_stays_over(self) -> None:
        play = Play(graph(limited(DB, retry_policy={"backoff_sec": 0, "max": 5}), node("b", "a", limits=[API])))
        claims = [(g, a, t) for g in range(3) for a in range(1, 7) for t in range(4)]
        seen: set[tuple[str, str, tuple[int, int, int]]] = set()

        def look(task: Task) -> None:
            now = {(n, k, c) for n in "ab" for k in ("limit:", "rate:") for c in claims if over(task, n, c, k)}
            assert seen <= now
            seen.update(now)

        for step in (
            lambda: play.tell(r.PermitsUnused("a", claim(play))),
            lambda: place(play, "a", "k1"),
            lambda: play.tell(r.Failed("a", 1, "k1", {"code": "x", "message": ""})),
            lambda: place(play, "a", "k2"),
            lambda: play.tell(r.Succeeded("a", 2, "k2", play_output())),
            lambda: play.tell(r.PermitsUnused("b", claim(play, "b"))),
            lambda: play.tell(r.Requested(1, "r1", "cancel")),
            lambda: play.tell(r.Requested(2, "r2", "restart", {"from_node": "b"})),
            lambda: place(play, "b", "k3"),
            lambda: play.tell(r.Succeeded("b", 1, "k3", play_output())),
            lambda: play.tell(r.Requested(3, "r3", "restart")),
            lambda: place(play, "a", "k4"),
        ):
            step()
            look(play.task)


def play_output() -> Any:
    from flowkit.core.payload import Payload

    return Payload(1)
