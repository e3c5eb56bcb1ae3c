"""What handlers like to have at hand."""

from __future__ import annotations

import hashlib

from flowkit.utils import dumps, jitter_ms, loads, stable_hash


def test_equal_values_have_equal_hashes_whatever_their_order() -> None:
    assert stable_hash({"a": 1, "b": [2]}) == stable_hash({"b": [2], "a": 1}) != stable_hash({"a": 1, "b": [3]})
    assert stable_hash({"b": 1, "a": 2}) == hashlib.blake2b(b'{"a":2,"b":1}', digest_size=20).hexdigest()
    assert stable_hash("\ud800") != stable_hash("x"), "a lone surrogate is no reason to fail"


def test_json_goes_to_bytes_and_back() -> None:
    value = {"a": [1, None, "é", 2**70, 1.5]}

    assert dumps({"a": 1}) == b'{"a":1}'
    assert loads(dumps(value)) == value


def test_a_wait_varies_by_a_fifth() -> None:
    waits = [jitter_ms(1000) for _ in range(2000)]

    assert all(isinstance(wait, int) for wait in waits)
    assert min(waits) >= 800
    assert max(waits) <= 1200
    assert max(waits) - min(waits) > 300
    assert jitter_ms(0) == 0
