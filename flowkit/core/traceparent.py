"""W3C trace contexts, and the ids of traces and spans that follow from what they are of.

Nothing has to be stored or remembered for them: whoever knows a task, a node and an attempt knows their spans, in
whatever process, and after a restart too.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

SAMPLED: Final = 1

_CONTEXT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_HEX_ID: Final = re.compile(r"[0-9a-f]{32}")
_ZERO: Final = "0"


class TraceContext(NamedTuple):
    """A span that others may be children of: 32 and 16 hexadecimal digits, and whether its trace is recorded."""

    trace_id: str
    span_id: str
    sampled: bool = True

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{SAMPLED if self.sampled else 0:02x}"


def read_traceparent(text: str) -> TraceContext | None:
    """The context that a `traceparent` names; None for what is none. One of a later version is read as far as it is
    known, as the standard asks."""
    found = _CONTEXT.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more) or not trace_id.strip(_ZERO) or not span_id.strip(_ZERO):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & SAMPLED))


def trace_id_of(task_id: str) -> str:
    """The trace that a task is, as 32 hexadecimal digits: it begins as the task's id does, where that is a UUID. The
    second half is a hash: samplers take it for a random number, and that of a UUID lies in one quarter of them all."""
    known = task_id.encode("utf-8", "surrogatepass")
    digits = task_id.replace("-", "").lower()
    if _HEX_ID.fullmatch(digits) and digits[:16].strip(_ZERO):
        return digits[:16] + hashlib.blake2b(known, digest_size=8).hexdigest()
    return hashlib.blake2b(known, digest_size=16).hexdigest()


def trace_of(task_id: str, traceparent: str) -> str:
    """The trace that a task belongs to: that of the context in which it was created, else its own."""
    given = read_traceparent(traceparent) if traceparent else None
    return trace_id_of(task_id) if given is None else given.trace_id


def span_id_of(what: str, task_id: str, *more: object) -> str:
    """The id of a span, as 16 hexadecimal digits: always the same for the same thing."""
    name = "\0".join((what, task_id, *map(str, more)))
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
