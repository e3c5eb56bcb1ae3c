"""A token is new once."""

from __future__ import annotations

from flowkit.worker.tokens import Tokens


def test_a_token_is_new_once() -> None:
    tokens = Tokens()

    assert tokens.add("a")
    assert not tokens.add("a")
    assert tokens.add("b")


def test_memory_is_bounded_and_at_least_what_was_promised() -> None:
    tokens = Tokens(remembered=100)
    for number in range(1000):
        assert tokens.add(str(number))
        recent = range(max(0, number - 99), number + 1)
        assert not any(tokens.add(str(old)) for old in recent)
        assert len(tokens._new) + len(tokens._old) <= 200
