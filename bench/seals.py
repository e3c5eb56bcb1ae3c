"""`python -m bench.seals`: what signing a message and looking at a signature costs, in CPU time of this process."""

from __future__ import annotations

import base64
import os

from bench.expressions import nanoseconds
from flowkit.ports import Record
from flowkit.wire.seals import KeyRing, Seals
from flowkit.wire.topics import Topics

SIZES = (200, 1_000, 4_000, 16_000, 64_000)


def main() -> None:
    topics = Topics()
    ring = KeyRing.read({f"{pool}/1": base64.b64encode(os.urandom(32)).decode() for pool in ("coordinator", "plain")})
    seals = Seals(ring, topics, require=True)
    print("bytes    signed    looked at    both, messages/s")
    for size in SIZES:
        record = Record(topics.facts, 3, b"x" * size, b"01a1fd30-08d4-752d-a6e7-2d7679606763")
        sealed = seals.seal(record)
        times = max(20, 200_000 // size)
        to_seal = nanoseconds(lambda record=record: seals.seal(record), times) / 1000  # type: ignore[misc]
        to_look = nanoseconds(lambda sealed=sealed: seals.look(sealed), times) / 1000  # type: ignore[misc]
        print(f"{size:6,} {to_seal:7.2f} µs {to_look:9.2f} µs {1_000_000 / (to_seal + to_look):16,.0f}")


if __name__ == "__main__":
    main()
