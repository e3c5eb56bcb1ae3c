"""Values for round trips: all that JSON can say, and what spoils naive writers."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from flowkit.core import facts as f
from flowkit.core import permits as p
from flowkit.core import reports as r
from flowkit.core.payload import Artifact, Payload

HUGE = 10**4000
NASTY = [
    None,
    True,
    0,
    -1,
    2**63,
    2**64,
    -(2**70),
    HUGE,
    0.1,
    1e308,
    5e-324,
    "",
    "\x00",
    "\ud800",
    "\udfff text",
    "𝄞 ä \u2028",
    '"\\/[]{}',
    "[" * 300,
    {"": 1},
    {"\x00": {"\ud800": "\udc00"}},
    {"$from": "a", ".": {"$set": 1}},
    [[[[]]], {}, [{}]],
    [1, [HUGE, {"k": "\ud800"}]],
]

texts = st.text(st.characters(exclude_categories=[]), max_size=6)
numbers = st.integers() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts | st.sampled_from(["\ud800", HUGE]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
# What a foreign or broken sender may write in any place.
junk = st.none() | st.booleans() | st.integers(-2, 2) | st.just(1.5) | texts | st.just([]) | st.just({}) | values

artifacts = st.builds(
    Artifact,
    texts,
    st.integers(0, 2**70),
    st.sampled_from(["json", "bytes"]),
    st.lists(texts | st.integers(0, 99), max_size=3).map(tuple),
)
payloads = st.builds(Payload, values) | st.builds(Payload, st.none(), artifacts)
errors = st.dictionaries(texts, values, max_size=3)
times = st.floats(0, 1e12)
names = st.lists(texts, max_size=3).map(tuple)
counts = st.integers(0, 2**70)

FACTS: dict[str, st.SearchStrategy[Any]] = {
    "created": st.builds(f.TaskCreated, names),
    "leased": st.builds(f.AttemptLeased, texts, counts, texts, texts, texts, times, names),
    "started": st.builds(f.AttemptStarted, texts, counts, texts),
    "succeeded": st.builds(f.AttemptSucceeded, texts, counts, texts, payloads, st.none() | names, times),
    "failed": st.builds(f.AttemptFailed, texts, counts, texts, errors, st.none() | times, texts, times),
    "lost": st.builds(f.LeaseLost, texts, counts, texts, texts, st.none() | times, st.booleans(), st.none() | errors),
    "retry_due": st.builds(f.RetryDue, texts),
    "node_failed": st.builds(f.NodeFailed, texts, errors),
    "skipped": st.builds(f.NodeSkipped, texts, texts, st.booleans(), texts),
    "node_cancelling": st.builds(f.NodeCancelling, texts, texts, times),
    "node_cancelled": st.builds(f.NodeCancelled, texts, texts),
    "request": st.builds(f.RequestApplied, counts, texts, texts, st.booleans(), texts, texts),
    "paused": st.builds(f.TaskPaused, texts),
    "resumed": st.builds(f.TaskResumed),
    "routed": st.builds(f.Routed, texts, names),
    "opened": st.builds(f.NodeOpened, texts),
    "expanded": st.builds(f.NodeExpanded, texts, counts),
    "repeated": st.builds(f.NodeRepeated, texts, counts, times),
    "gathered": st.builds(f.NodeGathered, texts),
    "waiting": st.builds(f.NodeWaiting, texts, st.none() | times, texts),
    "node_finished": st.builds(f.NodeFinished, texts, payloads, st.booleans()),
    "signal": st.builds(f.SignalReceived, texts, payloads, texts),
    "child": st.builds(f.ChildStarted, texts, counts, texts),
    "function": st.builds(f.FunctionApplied, texts, st.lists(values, max_size=3), payloads),
    "held": st.builds(f.NodeHeld, texts, texts),
    "node_released": st.builds(f.NodeReleased, texts),
    "undo": st.builds(f.UndoBegan, names, texts, st.none() | errors),
    "cancelling": st.builds(f.TaskCancelling, texts, texts, times, st.none() | errors, texts),
    "restarted": st.builds(
        f.TaskRestarted,
        counts,
        st.none() | names,
        texts,
        st.none() | errors,
        names,
        counts,
        st.none() | times,
        st.booleans(),
    ),
    "ended": st.builds(f.TaskEnded, texts, st.none() | errors),
    "stream_begun": st.builds(f.StreamBegun, texts),
    "permits_returned": st.builds(f.PermitsReturned, texts),
    "child_continued": st.builds(f.ChildContinued, texts, counts, texts),
    "deadline_set": st.builds(f.DeadlineSet, texts, times),
    "parent_waits": st.builds(f.ParentWaits, counts, st.none() | errors),
}

REPORTS: dict[str, st.SearchStrategy[Any]] = {
    "started": st.builds(r.Started, texts, counts, texts),
    "streams": st.builds(r.Streams, texts, counts, texts, st.booleans()),
    "succeeded": st.builds(r.Succeeded, texts, counts, texts, payloads, st.none() | names, times),
    "failed": st.builds(r.Failed, texts, counts, texts, errors, st.booleans(), st.none() | times, times),
    "declined": st.builds(r.Declined, texts, counts, texts, texts),
    "released": st.builds(r.Released, texts, counts, texts, texts),
    "child_ended": st.builds(r.ChildEnded, texts, counts, texts, texts, payloads, st.none() | errors),
}

claims = st.tuples(counts, counts, counts)
LETTERS: dict[str, st.SearchStrategy[Any]] = {
    "permit_wanted": st.builds(
        p.PermitWanted,
        texts,
        counts,
        texts,
        claims,
        st.none() | counts,
        counts,
        times,
        times,
        counts,
        st.integers(),
        times,
    ),
    "permit_over": st.builds(p.PermitOver, texts, texts, claims),
    "permit_granted": st.builds(p.PermitGranted, texts, texts, claims),
    "permit_delayed": st.builds(p.PermitDelayed, texts, texts, claims, counts, counts),
    "permit_asked": st.builds(p.PermitAsked, texts, texts, claims),
}
