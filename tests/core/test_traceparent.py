"""Trace contexts are read as the standard says, and ids follow from what they are of."""

from __future__ import annotations

import re

import pytest

from flowkit.coordinator.ids import new_id
from flowkit.core.traceparent import TraceContext, read_traceparent, span_id_of, trace_id_of, trace_of

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_a_traceparent_is_read_and_written() -> None:
    context = read_traceparent(f"00-{TRACE}-{SPAN}-01")

    assert context == TraceContext(TRACE, SPAN, True)
    assert str(context) == f"00-{TRACE}-{SPAN}-01"
    assert str(TraceContext(TRACE, SPAN, False)) == f"00-{TRACE}-{SPAN}-00"


@pytest.mark.parametrize(
    ("text", "context"),
    [
        (f"00-{TRACE}-{SPAN}-00", TraceContext(TRACE, SPAN, False)),
        (f"00-{TRACE}-{SPAN}-03", TraceContext(TRACE, SPAN, True)),
        (f"cc-{TRACE}-{SPAN}-01-what-comes-later", TraceContext(TRACE, SPAN, True)),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}-01\n", None),
        (f"00-{TRACE}-{SPAN}", None),
        ("", None),
    ],
)
def test_only_what_the_standard_allows_is_a_context(text: str, context: TraceContext | None) -> None:
    assert read_traceparent(text) == context


def test_a_task_belongs_to_the_trace_that_it_was_created_in() -> None:
    task = "01a1fd30-08d4-752d-a6e7-2d7679606763"

    assert trace_of(task, "") == trace_id_of(task) == "01a1fd3008d4752d1cbd7812c86e0f38"
    assert trace_of(task, f"00-{TRACE}-{SPAN}-01") == TRACE
    assert trace_of(task, "nonsense") == trace_id_of(task)


def test_a_sampler_takes_its_share_of_the_tasks_traces() -> None:
    """It takes the lower half of a trace id for a random number."""
    ids = [new_id(1_795_000_000.0 + number) for number in range(2000)]

    for share in (0.1, 0.5, 0.9):
        taken = sum(int(trace_id_of(one)[16:], 16) < share * 2**64 for one in ids)
        assert taken / len(ids) == pytest.approx(share, abs=0.05)


def test_a_span_has_the_same_id_everywhere_and_no_two_have_the_same() -> None:
    ids = {
        span_id_of("attempt", "t", "n", 1),
        span_id_of("attempt", "t", "n", 2),
        span_id_of("attempt", "t", "n1", ""),
        span_id_of("attempt", "t", "n", 11),
        span_id_of("send", "t", "n", 1),
        span_id_of("attempt", "t\ud800", "n", 1),
    }

    assert len(ids) == 6
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in ids)
    assert span_id_of("attempt", "t", "n", 1) == "53c9041d1021e1bf"  # spans of two versions must fit together
