"""Ids and dice of a world depend on its seed, and only while it runs."""

from __future__ import annotations

import os
import random
import secrets
import uuid

from flowkit.testing.entropy import seeded


def draw() -> tuple[object, ...]:
    return uuid.uuid4(), os.urandom(4), secrets.token_hex(3), secrets.token_bytes(2), random.random()


def test_the_same_seed_gives_the_same() -> None:
    with seeded("a"):
        first = draw()
    with seeded("a"):
        again = draw()
    with seeded("b"):
        other = draw()

    assert first == again != other


def test_afterwards_everything_is_random_again() -> None:
    state, original = random.getstate(), uuid.uuid4

    with seeded("a"):
        draw()

    assert random.getstate() == state
    assert uuid.uuid4 is original
