"""How the record of a limit is written down: its holders, and for a rate how far ahead of time it is used up."""

from __future__ import annotations

import msgspec

from flowkit.core.limiter import Holder, Limiter
from flowkit.core.permits import Claim
from flowkit.errors import UnknownFact
from flowkit.wire.codec import dumps, loads_as

VERSION = 1


class _Record(msgspec.Struct, array_like=True):
    version: int
    at: float
    paid_until: float
    holders: list[tuple[str, str, Claim, int, str, int]]


_decoder: msgspec.json.Decoder[_Record] = msgspec.json.Decoder(_Record)


def encode_limiter(limiter: Limiter, at: float) -> str:
    """The record as of `at`, the owner's wall clock (epoch seconds)."""
    holders = [[*holder.who, holder.partition, holder.tenant, holder.weight] for holder in limiter.holders.values()]
    return dumps([VERSION, at, limiter.paid_until, holders]).decode()


def decode_limiter(body: str, now: float) -> Limiter:
    """The limit as its record says. An owner whose clock is ahead of that of `now` makes a rate late by no more than it
    was used up. Raises `Corrupt`, `UnknownFact`."""
    record = loads_as(_decoder, body, "a limit's record")
    if record.version > VERSION:
        raise UnknownFact(f"version {record.version} of a limit's record; this one knows {VERSION}")
    holders = [
        Holder((task, node, claim), partition, tenant, weight)
        for task, node, claim, partition, tenant, weight in record.holders
    ]
    return Limiter.of(holders, min(record.paid_until, now + record.paid_until - record.at))
