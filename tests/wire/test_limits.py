"""A limit's record as text: who holds what comes back, whatever clock the reader has."""

from __future__ import annotations

import pytest

from flowkit.core.limiter import Holder, Limiter
from flowkit.errors import Corrupt, UnknownFact
from flowkit.wire.limits import decode_limiter, encode_limiter

HOLDERS = [Holder(("t1", "a", (0, 1, 0)), 3, "acme", 2), Holder(("t2", "b[1]", (1, 7, 2)), 0, "\u00fc\ud800", 1)]
NOW = 1_700_000_000.0


def test_holders_come_back() -> None:
    read = decode_limiter(encode_limiter(Limiter.of(HOLDERS), NOW), NOW)

    assert list(read.holders.values()) == HOLDERS
    assert read.held == 3
    assert not read.line


@pytest.mark.parametrize(
    ("skew", "until"),
    [
        (0.0, NOW + 6),  # the same clock
        (2.0, NOW + 6),  # a reader whose clock is ahead, or who comes later: what has passed has passed
        (-3600.0, NOW - 3600 + 6),  # a reader whose clock is an hour behind waits six seconds, not an hour and six
    ],
)
def test_a_rate_goes_on_where_it_was_and_no_skew_stops_it_for_long(skew: float, until: float) -> None:
    body = encode_limiter(Limiter.of([], NOW + 6), NOW)

    assert decode_limiter(body, NOW + skew).paid_until == until


@pytest.mark.parametrize(
    "body", ["", "[]", "{}", "null", "[1]", '[1,0.0,0.0,[["t"]]]', '[1,0.0,0.0,[["t","a",[0,1],0,"x",1]]]', "\ud800"]
)
def test_what_is_no_record_is_corrupt(body: str) -> None:
    with pytest.raises(Corrupt):
        decode_limiter(body, NOW)


def test_a_newer_record_is_left_to_newer_owners() -> None:
    with pytest.raises(UnknownFact, match="version 2"):
        decode_limiter("[2,0.0,0.0,[]]", NOW)
