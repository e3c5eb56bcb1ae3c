"""What looks like a secret."""

from __future__ import annotations

import time

import pytest

from flowkit.core.sensitive import looks_secret


@pytest.mark.parametrize(
    "value",
    [
        "tR7xq2LmV9sKd04ZbWcE",
        "eyJhhhhhhh.eyJhhhhhhh.hhhh",
        "-----BEGIN RSA PRIVATE KEY-----",
        "aaaa AKIAAAAAAAAAAAAAAAAA aaaa",
        "AIza" + "a" * 35,
        "xoxb-1111111111111",
        "Bearer aaaaaaaaaaaaaaa",
        "Aa1Aa1Aa1Aa1Aa1Aa1Aa1A==",
        b"\0" * 20,
    ],
)  # fmt: skip
def test_random_texts_tokens_and_bytes_look_like_secrets(value: object) -> None:
    assert looks_secret("key", value)


@pytest.mark.parametrize(
    "value", ["", "short", "a" * 1000, "na na na na na na na na na", b"\0" * 19, 12345678901234567890, None, ["x"]]
)
def test_short_and_monotonous_texts_and_numbers_do_not(value: object) -> None:
    assert not looks_secret("password", value)


def test_a_look_at_a_long_text_is_short() -> None:
    begun = time.process_time()

    assert not looks_secret("key", "eyJ-" * 16_000)

    assert time.process_time() - begun < 1
