"""Says where a worker and a coordinator disagree about time so that leases are in danger."""

from __future__ import annotations

from typing import NamedTuple

from flowkit.wire.messages import Hello

SELF_DEFENCE = 0.8
"""After this share of its own `lease_ttl_sec` without a renewal a worker stops what it runs."""


class Danger(NamedTuple):
    code: str
    message: str


def fresh_sec(heartbeat_sec: float) -> float:
    """So lately a worker must have been heard of to be given work."""
    return 1.25 * heartbeat_sec + 0.25


def dangers(hello: Hello, lease_ttl_sec: float, heartbeat_sec: float) -> list[Danger]:
    """What is wrong between a worker that says hello and a coordinator with these settings (seconds); nothing of a
    worker of before, which does not say."""
    found, ttl, fresh = [], hello.lease_ttl_sec, fresh_sec(heartbeat_sec)
    if ttl > lease_ttl_sec:
        say = (
            f"worker {hello.worker!r} has lease_ttl_sec {ttl:g} and this coordinator {lease_ttl_sec:g}: a lease that "
            f"is not renewed ends here after {lease_ttl_sec:g} s, and the worker runs on for {SELF_DEFENCE * ttl:g} s, "
            "so that a node may run twice at once; give both the same lease_ttl_sec"
        )
        found.append(Danger("lease_ttl_differs", say))
    if hello.heartbeat_sec > fresh:
        say = (
            f"worker {hello.worker!r} has heartbeat_sec {hello.heartbeat_sec:g} and this coordinator "
            f"{heartbeat_sec:g}: work goes only to workers that were heard of within {fresh:g} s, so that it gets next "
            "to none; give both the same heartbeat_sec"
        )
        found.append(Danger("heartbeat_differs", say))
    return found
