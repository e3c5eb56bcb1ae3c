"""Whether and when a failed or lost attempt is tried again (graph.md, 3: retries)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.core import facts as f
from flowkit.core.dialect import parse_graph
from flowkit.core.graph import RetryPolicy, RetryRule
from flowkit.core.node_run import NodeRun
from flowkit.core.retry import declined_wait, retry_at
from tests.core.builders import START, Play, graph, node

PLAIN = {"jitter": False}


def after(policy: RetryPolicy, failures: int = 0, code: str = "Oops", **more: Any) -> float | None:
    """Seconds until the next attempt of a node that has failed so often before; None: never."""
    run = NodeRun(0, 0)
    run.failures = failures
    said = {"permanent": False, "retry_after": None, "name": "t/a/1"} | more
    at, _ = retry_at(policy, run, code=code, now=START, **said)
    return None if at is None else at - START


# The policy's own budget.


def test_max_counts_attempts_the_first_included() -> None:
    policy = RetryPolicy(max_attempts=3, jitter=False)

    assert after(policy, 0) is not None
    assert after(policy, 1) is not None
    assert after(policy, 2) is None


def test_by_default_a_node_is_tried_three_times() -> None:
    play = Play(graph(node("a")))
    for _ in range(2):
        play.fail("a")
        assert play.state("a") == "waiting"
        play.wait(60)

    play.fail("a")

    assert play.state("a") == "failed"
    assert play.attempt("a") == 3


def test_waits_double_from_one_second_up_to_sixty_by_default() -> None:
    policy = RetryPolicy(max_attempts=100, jitter=False)

    assert [after(policy, n) for n in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


@pytest.mark.parametrize(
    ("said", "waits"),
    [
        ({"backoff_sec": 300}, [300, 300, 300]),
        ({"backoff_sec": 40}, [40, 60, 60]),
        ({"backoff_sec": 300, "cap_sec": 60}, [60, 60, 60]),
        ({"backoff_sec": 300, "cap_sec": 1000}, [300, 600, 1000]),
    ],
)
def test_a_first_wait_longer_than_the_usual_cap_is_shortened_only_by_a_cap_that_is_given(
    said: dict[str, Any], waits: list[float]
) -> None:
    rule = {"on": ["Own"], "max": 9}
    inherits = parse_graph(graph(node("a", retry_policy={"max": 9, **PLAIN, **said, "rules": [rule]})))
    of_its_own = parse_graph(graph(node("a", retry_policy={**PLAIN, "rules": [rule | said]})))

    policy = inherits.nodes["a"].retry

    assert [after(policy, n) for n in range(3)] == waits
    assert rule_waits(policy) == rule_waits(of_its_own.nodes["a"].retry) == waits


def rule_waits(policy: RetryPolicy) -> list[float]:
    found = []
    for failures in range(3):
        run = NodeRun(0, 0)
        run.budgets = {"Own": failures}
        at, _ = retry_at(policy, run, code="Own", permanent=False, retry_after=None, name="n", now=START)
        assert at is not None
        found.append(at - START)
    return found


def test_backoff_factor_and_cap_are_the_policys() -> None:
    policy = RetryPolicy(max_attempts=9, backoff_sec=2, factor=3, cap_sec=20, jitter=False)

    assert [after(policy, n) for n in range(4)] == [2, 6, 18, 20]


def test_a_wait_of_nothing_stays_nothing_however_often() -> None:
    policy = RetryPolicy(max_attempts=1_000_000, backoff_sec=0, factor=1000.0, jitter=False)

    assert {after(policy, n) for n in (0, 1, 500, 999_998)} == {0}


def test_a_wait_beyond_all_numbers_is_the_cap() -> None:
    policy = RetryPolicy(max_attempts=1_000_000, factor=1000, jitter=False)

    assert after(policy, 999_998) == 60


def test_without_backoff_the_node_is_ready_again_at_once() -> None:
    play = Play(graph(node("a", retry_policy={"backoff_sec": 0})))

    play.fail("a")

    assert play.state("a") == "ready"


def test_the_retry_waits_and_then_runs_as_the_next_attempt() -> None:
    play = Play(graph(node("a", retry_policy=PLAIN)))
    play.fail("a")
    assert play.state("a") == "waiting"
    assert play.task.runs["a"].wake == play.now + 1

    play.wait(0.9)
    assert play.state("a") == "waiting"
    play.wait(0.1)

    assert play.state("a") == "ready"
    play.succeed("a")
    assert play.attempt("a") == 2
    assert play.task.runs["a"].error is None


def test_the_last_failures_error_is_the_nodes() -> None:
    play = Play(graph(node("a", retry_policy={"max": 2, "backoff_sec": 0})))
    play.fail("a", code="First")

    play.fail("a", code="Second")

    assert play.task.runs["a"].error == {"code": "Second", "message": "no"}


# Jitter.


def test_jitter_takes_a_part_of_the_wait() -> None:
    waits = [after(RetryPolicy(backoff_sec=10), name=f"t/a/{n}") for n in range(200)]

    assert all(wait is not None and 0 <= wait <= 10 for wait in waits)
    assert len(set(waits)) == 200
    assert 4 < sum(wait or 0 for wait in waits) / 200 < 6


def test_jitter_is_the_same_for_the_same_attempt() -> None:
    assert after(RetryPolicy(), name="t/a/1") == after(RetryPolicy(), name="t/a/1")
    assert after(RetryPolicy(), name="t/a/1") != after(RetryPolicy(), name="t/b/1")


def test_jitter_takes_any_name() -> None:
    assert after(RetryPolicy(), name="t/\ud800/1") is not None


# What is not tried again.


def test_a_permanent_failure_is_not_retried() -> None:
    assert after(RetryPolicy(), permanent=True) is None

    play = Play(graph(node("a")))
    play.fail_for_good("a")
    assert play.state("a") == "failed"


def test_a_rule_that_names_the_code_goes_before_a_default_but_not_before_the_handlers_own_word() -> None:
    node_ = node("a", retry_policy={"rules": [{"on": ["ValueError"], "max": 5, "backoff_sec": 0}]})

    play = Play(graph(node_))
    play.fail("a", code="ValueError", permanent=True)
    assert play.state("a") == "ready"
    play.fail("a", code="ValueError", permanent=True, final=True)
    assert play.state("a") == "failed"


def test_codes_of_permanent_on_are_not_retried() -> None:
    policy = RetryPolicy(permanent_on=("bad_input",))

    assert after(policy, code="bad_input") is None
    assert after(policy, code="other") is not None


def test_an_error_without_a_code_is_retried() -> None:
    assert after(RetryPolicy(), code="") is not None


# retry_after.


def test_retry_after_stands_instead_of_the_backoff() -> None:
    assert after(RetryPolicy(), retry_after=7.5) == 7.5
    assert after(RetryPolicy(), retry_after=0.0) == 0


def test_retry_after_spares_no_budget() -> None:
    assert after(RetryPolicy(max_attempts=1), retry_after=7.5) is None


@pytest.mark.parametrize(("said", "wait"), [(-5.0, 0), (1e300, 1e9), (float("inf"), 1e9), (float("nan"), 0)])
def test_a_retry_after_that_makes_no_sense_is_bent_into_a_wait(said: float, wait: float) -> None:
    assert after(RetryPolicy(), retry_after=said) == wait


# Rules.

RULE = RetryRule(("TimeoutError",), 10, 5.0, 2.0, 60.0)


def test_a_rule_gives_a_code_its_own_budget_and_waits() -> None:
    policy = RetryPolicy(max_attempts=1, jitter=False, rules=(RULE,))

    assert after(policy, code="TimeoutError") == 5
    assert after(policy, code="Oops") is None


def test_a_rules_budget_stands_beside_the_policys_max() -> None:
    retries = {"max": 2, "backoff_sec": 0, "rules": [{"on": ["Rare"], "max": 3}]}
    play = Play(graph(node("a", retry_policy=retries)))

    play.fail("a", code="Rare")
    play.fail("a", code="Rare")
    play.fail("a", code="Oops")
    assert play.state("a") == "ready"
    assert (play.task.runs["a"].failures, play.task.runs["a"].budgets) == (1, {"Rare": 2})
    play.fail("a", code="Rare")

    assert play.state("a") == "failed"
    assert play.attempt("a") == 4


def test_the_fact_names_the_budget_that_paid() -> None:
    play = Play(graph(node("a", retry_policy={"rules": [{"on": ["Rare"], "max": 3}]})))

    play.fail("a", code="Rare", retry_after=0.0)
    play.fail("a", code="Oops")

    assert [fact.budget for fact in play.facts(f.AttemptFailed)] == ["Rare", ""]


def test_a_rule_takes_jitter_and_what_it_leaves_out_from_its_policy() -> None:
    raw = {"jitter": False, "backoff_sec": 3, "factor": 1, "rules": [{"on": ["Rare"], "max": 9}]}
    policy = Play(graph(node("a", retry_policy=raw))).task.graph.nodes["a"].retry

    assert after(policy, code="Rare") == 3


# The handler's own policy.


def test_a_handlers_policy_stands_where_the_node_says_none() -> None:
    play = Play(graph(node("a")))

    play.fail("a", policy={"max": 1})

    assert play.state("a") == "failed"


def test_the_nodes_policy_goes_before_the_handlers() -> None:
    play = Play(graph(node("a", retry_policy={"max": 5, "backoff_sec": 0})))

    play.fail("a", policy={"max": 1})

    assert play.state("a") == "ready"


@pytest.mark.parametrize("said", [{"max": "many"}, {"newer": 1}, {"rules": [{}]}, {"max": -1}, {"rules": 5}])
def test_a_handlers_policy_that_cannot_be_read_is_no_policy(said: dict[str, Any]) -> None:
    play = Play(graph(node("a")))
    play.fail("a", policy=said)
    assert play.state("a") == "waiting"

    play.wait(60)
    play.fail("a", policy=said)
    play.wait(60)
    play.fail("a", policy=said)

    assert play.state("a") == "failed"
    assert play.attempt("a") == 3


# Lost workers, declines, releases.


def test_lost_workers_have_their_own_budget_of_five() -> None:
    play = Play(graph(node("a", retry_policy={"max": 1})))
    for _ in range(4):
        play.lose("a")
        assert play.state("a") == "ready"

    play.lose("a")

    assert play.state("a") == "failed"
    assert play.task.runs["a"].error == {"code": "worker_lost", "message": "5 workers were lost while they ran it"}
    assert [fact.costs for fact in play.facts(f.LeaseLost)] == [True] * 5


def test_lost_max_is_the_policys() -> None:
    play = Play(graph(node("a", retry_policy={"lost_max": 1})))

    play.lose("a")

    assert play.state("a") == "failed"


def test_losses_and_failures_do_not_pay_for_each_other() -> None:
    play = Play(graph(node("a", retry_policy={"max": 2, "backoff_sec": 0, "lost_max": 2})))

    play.lose("a")
    play.fail("a")

    assert play.state("a") == "ready"
    play.succeed("a")
    assert play.status == "finished"


def test_a_dispatch_that_was_never_accepted_costs_nothing() -> None:
    play = Play(graph(node("a", retry_policy={"max": 1, "lost_max": 1})))

    for _ in range(20):
        play.lose("a", unaccepted=True)

    assert play.state("a") == "ready"
    assert {(fact.why, fact.costs) for fact in play.facts(f.LeaseLost)} == {("unaccepted", False)}


def test_a_released_attempt_costs_nothing_and_is_ready_at_once() -> None:
    play = Play(graph(node("a", retry_policy={"max": 1, "lost_max": 1})))
    play.start("a")

    play.release("a")

    assert play.state("a") == "ready"
    assert [(fact.why, fact.costs) for fact in play.facts(f.LeaseLost)] == [("released", False)]


def test_a_declined_attempt_is_placed_again_at_once_and_then_ever_later() -> None:
    play = Play(graph(node("a", retry_policy={"max": 1, "lost_max": 1})))
    play.decline("a")
    assert play.state("a") == "ready"

    play.decline("a")
    assert play.state("a") == "waiting"
    play.wait(declined_wait(1))

    assert play.state("a") == "ready"
    assert [fact.why for fact in play.facts(f.LeaseLost)] == ["declined", "declined"]


def test_declined_waits_double_up_to_five_seconds() -> None:
    waits = [declined_wait(n) for n in range(12)]

    assert waits[:4] == [0, 0.1, 0.2, 0.4]
    assert waits == sorted(waits)
    assert waits[-1] == 5


def test_every_wait_is_within_the_cap() -> None:
    @given(st.integers(0, 10**6), st.floats(0, 1e9), st.floats(1, 1000), st.floats(0, 1e9), st.booleans(), st.text())
    def check(failures: int, backoff: float, factor: float, cap: float, jitter: bool, name: str) -> None:
        policy = RetryPolicy(10**7, backoff, factor, cap, jitter)
        wait = after(policy, failures, name=name)
        assert wait is not None
        assert 0 <= wait <= cap + 1e-6 * START

    check()
