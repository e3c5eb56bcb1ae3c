"""Spans wait in a bounded queue, and whatever happens to them is counted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from flowkit.otel.span_queue import SpanQueue


class Door(SpanExporter):
    """An exporter that exports while it is open."""

    def __init__(self, *, answers: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.names: list[str] = []
        self.sizes: list[int] = []
        self.open = threading.Event()
        self.entered = threading.Event()
        self.answers = answers

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        assert self.open.wait(10)
        self.names += [span.name for span in spans]
        self.sizes.append(len(spans))
        return self.answers

    def shutdown(self) -> None:
        self.open.set()


class Stand:
    def __init__(self, door: Door, **settings: float) -> None:
        self.counts: Counter[str] = Counter()
        self.queue = SpanQueue(door, self._count, environ={}, **settings)  # type: ignore[arg-type]
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.queue)
        self._tracer = self.provider.get_tracer("test")

    def _count(self, name: str, by: int) -> None:
        self.counts[name] += by

    def make(self, *names: object) -> None:
        for name in names:
            self._tracer.start_span(str(name)).end()


def test_spans_are_exported_in_batches_in_their_order() -> None:
    door = Door()
    door.open.set()
    stand = Stand(door, batch=3, every_sec=60)

    stand.make(*range(7))

    assert stand.queue.force_flush(5000)
    assert door.names == [str(name) for name in range(7)]
    assert max(door.sizes) == 3
    assert stand.counts == {"otel_spans_exported": 7}
    stand.queue.shutdown()


def test_what_does_not_fit_is_dropped_and_counted() -> None:
    door = Door()
    stand = Stand(door, most=4, batch=2, every_sec=0.01)
    stand.make("first")
    assert door.entered.wait(5)  # the collector has it, and does not answer

    stand.make(*range(10))

    assert stand.queue.waiting == 4
    assert stand.counts == {"otel_spans_dropped": 6}
    assert not stand.queue.force_flush(20)
    door.open.set()
    assert stand.queue.force_flush(5000)
    assert door.names == ["first", "0", "1", "2", "3"]
    assert stand.counts == {"otel_spans_dropped": 6, "otel_spans_exported": 5}
    stand.queue.shutdown()


def test_what_the_collector_refuses_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "flowkit.otel")
    door = Door(answers=SpanExportResult.FAILURE)
    door.open.set()
    stand = Stand(door, every_sec=60)

    for name in "abc":
        stand.make(name)
        assert stand.queue.force_flush(5000)
    door.answers = SpanExportResult.SUCCESS
    stand.make("d")

    assert stand.queue.force_flush(5000)
    assert stand.counts == {"otel_spans_failed": 3, "otel_spans_exported": 1}
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "spans cannot be exported",
        "spans are exported again",
    ]
    stand.queue.shutdown()


def test_an_exporter_that_raises_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Door):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            raise RuntimeError("broken")

    stand = Stand(Broken(), every_sec=0.01)

    stand.make("a")
    assert stand.queue.force_flush(5000)
    stand.make("b")

    assert stand.queue.force_flush(5000)
    assert stand.counts == {"otel_spans_failed": 2}
    (said,) = caplog.records
    assert said.exc_info is not None and "broken" in str(said.exc_info[1])
    stand.queue.shutdown()


def test_an_end_waits_for_a_collector_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowkit.otel.span_queue.STOP_SEC", 0.05)
    door = Door()
    stand = Stand(door, most=8, batch=1, every_sec=0.01)
    stand.make("first")
    assert door.entered.wait(5)
    stand.make("a", "b")

    stand.queue.shutdown()
    stand.make("late")

    assert stand.counts["otel_spans_dropped"] == 3


def test_the_standard_variables_bound_it(caplog: pytest.LogCaptureFixture) -> None:
    door = Door()
    environ = {"OTEL_BSP_MAX_QUEUE_SIZE": "2", "OTEL_BSP_SCHEDULE_DELAY": "soon"}
    counts: Counter[str] = Counter()
    queue = SpanQueue(door, lambda name, by: counts.update({name: by}), environ=environ)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(queue)

    for name in "abcd":
        provider.get_tracer("test").start_span(name).end()

    assert queue.waiting + counts["otel_spans_dropped"] >= 2
    assert counts["otel_spans_dropped"] >= 1
    assert "OTEL_BSP_SCHEDULE_DELAY is a whole number above 0, not 'soon'; 5000 it is" in caplog.text
    door.open.set()
    queue.shutdown()
