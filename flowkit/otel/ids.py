"""Lets spans of the SDK have ids that follow from what they are of."""

from __future__ import annotations

import threading

from opentelemetry.sdk.trace.id_generator import IdGenerator


class GivenIds(IdGenerator):
    """Gives the ids that were set last in this thread: a tracer asks for them within the call that makes the span."""

    def __init__(self) -> None:
        self._next = threading.local()

    def set(self, trace_id: str, span_id: str) -> None:
        """The ids of the next span, in hexadecimal digits."""
        self._next.ids = (int(trace_id, 16), int(span_id, 16))

    def generate_trace_id(self) -> int:
        trace_id: int = self._next.ids[0]
        return trace_id

    def generate_span_id(self) -> int:
        span_id: int = self._next.ids[1]
        return span_id

    def is_trace_id_random(self) -> bool:
        return False
