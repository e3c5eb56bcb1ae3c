"""What can happen to one attempt: a table of every state and every report. The diagram in the docs is drawn from it.

An attempt whose token is not the node's current one is in state `NONE`, where everything is stale.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from flowkit.core.reports import AttemptReport, Declined, Expired, Failed, Released, Started, Streams, Succeeded


class AttemptState(enum.StrEnum):
    NONE = "none"
    LEASED = "leased"
    RUNNING = "running"
    CANCELLING = "cancelling"


class Verdict(enum.StrEnum):
    """What a report means for the attempt that it names."""

    STALE = "stale"
    RUNS = "runs"
    STREAMS = "streams"
    SUCCEEDS = "succeeds"
    FAILS = "fails"
    IS_LOST = "is lost"
    IS_CANCELLED = "is cancelled"


TABLE: Final[Mapping[AttemptState, Mapping[type[AttemptReport], Verdict]]] = {
    AttemptState.NONE: {
        Started: Verdict.STALE,
        Streams: Verdict.STALE,
        Succeeded: Verdict.STALE,
        Failed: Verdict.STALE,
        Declined: Verdict.STALE,
        Released: Verdict.STALE,
        Expired: Verdict.STALE,
    },
    AttemptState.LEASED: {
        Started: Verdict.RUNS,
        Streams: Verdict.STREAMS,
        Succeeded: Verdict.SUCCEEDS,
        Failed: Verdict.FAILS,
        Declined: Verdict.IS_LOST,
        Released: Verdict.IS_LOST,
        Expired: Verdict.IS_LOST,
    },
    AttemptState.RUNNING: {
        Started: Verdict.STALE,
        Streams: Verdict.STREAMS,
        Succeeded: Verdict.SUCCEEDS,
        Failed: Verdict.FAILS,
        Declined: Verdict.STALE,
        Released: Verdict.IS_LOST,
        Expired: Verdict.IS_LOST,
    },
    AttemptState.CANCELLING: {
        Started: Verdict.STALE,
        Streams: Verdict.STALE,
        Succeeded: Verdict.IS_CANCELLED,
        Failed: Verdict.IS_CANCELLED,
        Declined: Verdict.IS_CANCELLED,
        Released: Verdict.IS_CANCELLED,
        Expired: Verdict.IS_CANCELLED,
    },
}


def to_mermaid() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> leased: commit acknowledged, dispatched"]
    ends = {
        Verdict.SUCCEEDS: "succeeded",
        Verdict.FAILS: "failed",
        Verdict.IS_LOST: "lost",
        Verdict.IS_CANCELLED: "cancelled",
    }
    for state, row in TABLE.items():
        for report, verdict in row.items():
            if verdict is Verdict.STREAMS:
                lines.append(f"    {state} --> {state}: {report.__name__}")
            elif verdict is Verdict.RUNS:
                lines.append(f"    {state} --> running: {report.__name__}")
            elif verdict in ends:
                lines.append(f"    {state} --> {ends[verdict]}: {report.__name__}")
    lines += [f"    {state} --> cancelling: cancel asked" for state in ("leased", "running")]
    lines += [f"    {end} --> [*]" for end in ends.values()]
    return "\n".join(lines) + "\n"
