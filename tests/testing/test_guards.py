"""Every guard of the table stands where the table says, can be taken away, and comes back."""

from __future__ import annotations

import pytest

from flowkit.testing.guards import GUARDS, Guard, place_of, removed


@pytest.mark.parametrize("guard", [guard for guard in GUARDS.values() if guard.target], ids=lambda guard: guard.name)
def test_a_guard_can_be_taken_away_and_comes_back(guard: Guard) -> None:
    owner, attribute = place_of(guard)
    original = vars(owner)[attribute]

    with removed([guard.name]):
        assert vars(owner)[attribute] is not original

    assert vars(owner)[attribute] is original


def test_guards_of_the_store_are_left_to_the_world() -> None:
    with removed(["unique", "token"]) as in_store:
        assert in_store == {"unique"}


def test_every_rule_up_to_13_has_a_guard() -> None:
    assert {guard.rule for guard in GUARDS.values()} == set(range(1, 14))


def test_an_unknown_guard_is_refused_and_nothing_is_left_removed() -> None:
    owner, attribute = place_of(GUARDS["dedupe"])
    original = vars(owner)[attribute]

    with pytest.raises(ValueError, match="no guard 'nothing'; there are acc"), removed(["dedupe", "nothing"]):
        pass

    assert vars(owner)[attribute] is original
