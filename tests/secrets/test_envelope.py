"""What is sealed opens where it belongs, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.errors import SecretTampered
from flowkit.secrets.envelope import (
    Place,
    canonical,
    decrypt,
    encrypt,
    key_bound_to,
    new_key,
    value_bound_to,
)

PLACE = Place("acme", "KEY", 3)


def test_what_is_sealed_opens_again() -> None:
    key = new_key()
    sealed = encrypt(key, b"value", value_bound_to(PLACE, "{}"))
    assert decrypt(key, sealed, value_bound_to(PLACE, "{}"), PLACE) == b"value"
    assert b"value" not in sealed


def test_keys_and_nonces_are_never_the_same() -> None:
    assert len({new_key() for _ in range(1000)}) == 1000
    key = new_key()
    assert len({encrypt(key, b"same", b"")[:12] for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "other", [replace(PLACE, tenant="other"), replace(PLACE, name="OTHER"), replace(PLACE, version=2)], ids=str
)
def test_nothing_opens_in_another_place(other: Place) -> None:
    key = new_key()
    with pytest.raises(SecretTampered, match=r"secret '.*' does not open"):
        decrypt(key, encrypt(key, b"value", value_bound_to(PLACE, "{}")), value_bound_to(other, "{}"), other)
    with pytest.raises(SecretTampered):
        decrypt(key, encrypt(key, new_key(), key_bound_to(PLACE, "k1")), key_bound_to(other, "k1"), other)


def test_nothing_opens_under_another_key_id_nor_for_others_than_it_was_sealed_for() -> None:
    key = new_key()
    with pytest.raises(SecretTampered):
        decrypt(key, encrypt(key, new_key(), key_bound_to(PLACE, "k1")), key_bound_to(PLACE, "k2"), PLACE)
    with pytest.raises(SecretTampered):
        decrypt(key, encrypt(key, b"v", value_bound_to(PLACE, '{"a":1}')), value_bound_to(PLACE, "{}"), PLACE)


@given(st.binary(min_size=1, max_size=60), st.integers(0, 10_000), st.integers(1, 255))
def test_no_bit_can_be_changed(value: bytes, place: int, flip: int) -> None:
    key = bytes(32)
    sealed = bytearray(encrypt(key, value, b"x"))
    sealed[place % len(sealed)] ^= flip
    with pytest.raises(SecretTampered):
        decrypt(key, bytes(sealed), b"x", PLACE)


def test_no_tag_can_be_cut() -> None:
    key = new_key()
    sealed = encrypt(key, b"a longer value than the tag", b"x")
    for length in range(len(sealed)):
        with pytest.raises(SecretTampered):
            decrypt(key, sealed[:length], b"x", PLACE)


@given(st.lists(st.text()), st.lists(st.text()))
def test_no_two_places_have_the_same_bytes(one: list[str], other: list[str]) -> None:
    assert (canonical(*one) == canonical(*other)) == (one == other)
