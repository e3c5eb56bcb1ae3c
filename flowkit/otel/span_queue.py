"""Spans on their way to a collector: so many at most, exported by a thread of their own, so that nobody waits for a
collector that does not answer."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from opentelemetry.context import attach, detach, set_value
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

log = logging.getLogger(__name__)

STOP_SEC: Final = 3.0
"""How long an end of the process waits for what is still to be exported."""
SUPPRESSED: Final = "suppress_instrumentation"
"""Under this name instrumentations look whether a call is to be traced: those of the exporter are not."""


class SpanQueue(SpanProcessor):
    """A processor for a `TracerProvider`. What comes while `most` spans wait is dropped, and counted: `count` is called
    with `otel_spans_exported`, `otel_spans_dropped` or `otel_spans_failed`, and how many.

    `most`, `batch` and `every_sec` are by default those of `OTEL_BSP_MAX_QUEUE_SIZE` (2048),
    `OTEL_BSP_MAX_EXPORT_BATCH_SIZE` (512) and `OTEL_BSP_SCHEDULE_DELAY` (5000 milliseconds).
    """

    def __init__(self, exporter: SpanExporter, count: Callable[[str, int], None], *, most: int | None = None,
                 batch: int | None = None, every_sec: float | None = None,
                 environ: Mapping[str, str] = os.environ) -> None:  # fmt: skip
        self._exporter = exporter
        self._count = count
        self._most = most or _number(environ, "OTEL_BSP_MAX_QUEUE_SIZE", 2048)
        self._batch = min(self._most, batch or _number(environ, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512))
        self._every_sec = every_sec or _number(environ, "OTEL_BSP_SCHEDULE_DELAY", 5000) / 1000
        self._waiting: deque[ReadableSpan] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._empty = threading.Condition(self._lock)
        self._busy = False
        self._works = True
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="flowkit-spans", daemon=True)
        self._thread.start()

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._lock:
            if self._stopped or len(self._waiting) >= self._most:
                self._count("otel_spans_dropped", 1)
                return
            self._waiting.append(span)
            full = len(self._waiting) >= self._batch
        if full:
            self._wake.set()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what waits; whether that was done in time."""
        with self._empty:
            self._wake.set()
            return self._empty.wait_for(lambda: not self._waiting and not self._busy, timeout_millis / 1000)

    def shutdown(self) -> None:
        """Export what waits, for a few seconds at most, and end. What is left is counted as dropped."""
        if self._stopped:
            return
        self.force_flush(round(STOP_SEC * 1000))
        with self._lock:
            self._stopped = True
            left = len(self._waiting)
            self._waiting.clear()
        if left:
            self._count("otel_spans_dropped", left)
        self._wake.set()
        self._exporter.shutdown()
        self._thread.join(STOP_SEC)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def _work(self) -> None:
        token = attach(set_value(SUPPRESSED, True))
        try:
            while not self._stopped:
                self._wake.wait(self._every_sec)
                self._wake.clear()
                self._export_all()
        finally:
            detach(token)

    def _export_all(self) -> None:
        while spans := self._take():
            raised: Exception | None = None
            try:
                done = self._exporter.export(spans) is SpanExportResult.SUCCESS
            except Exception as error:  # whatever an exporter raises, the next batch may get through
                done, raised = False, error
            self._count("otel_spans_exported" if done else "otel_spans_failed", len(spans))
            self._tell(done, raised)
        with self._empty:
            self._busy = False
            self._empty.notify_all()

    def _tell(self, works: bool, raised: Exception | None) -> None:
        """Say it once when a collector goes away, and once when it is back."""
        if works and not self._works:
            log.info("spans are exported again")
        elif self._works and not works:
            say = "spans cannot be exported; until they can, they are counted (otel_spans_failed) and lost"
            log.warning(say, exc_info=raised)
        self._works = works

    def _take(self) -> list[ReadableSpan]:
        with self._lock:
            if self._stopped:
                return []
            spans = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
            self._busy = bool(spans)
            return spans


def _number(environ: Mapping[str, str], name: str, usual: int) -> int:
    text = environ.get(name, "")
    if not text:
        return usual
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        log.warning("%s is a whole number above 0, not %r; %d it is", name, text, usual)
        return usual
    return value
