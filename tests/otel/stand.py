"""An embedded engine whose spans go to a real collector."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Sampler

import flowkit
from flowkit.otel import trace
from flowkit.otel.span_queue import SpanQueue
from flowkit.telemetry import Telemetry
from tests.otel.collector import Collector, collecting


class Tracer:
    """A provider that exports to `url`, and a telemetry whose parts are traced with it."""

    def __init__(self, url: str, *, sampler: Sampler | None = None, **queue: Any) -> None:
        self.telemetry = Telemetry()
        self.provider = TracerProvider(
            sampler=sampler, resource=Resource({"service.name": "test"}), shutdown_on_exit=False
        )
        exporter = OTLPSpanExporter(endpoint=f"{url}/v1/traces", timeout=2)
        self.queue = SpanQueue(exporter, self.telemetry.count, every_sec=0.05, **queue)
        self.provider.add_span_processor(self.queue)
        trace(self.telemetry, self.provider, embedded=True)

    def flush(self) -> None:
        assert self.queue.force_flush(10_000)


@contextmanager
def traced(sampler: Sampler | None = None) -> Iterator[tuple[Collector, Tracer]]:
    with collecting() as collector:
        tracer = Tracer(collector.url, sampler=sampler)
        try:
            yield collector, tracer
        finally:
            tracer.queue.shutdown()


@asynccontextmanager
async def engine(tracer: Tracer, *handlers: Any, db: Path | None = None, **settings: Any) -> AsyncIterator[Any]:
    """An engine that has told everything once it is left."""
    async with flowkit.Embedded(db, handlers=list(handlers), telemetry=tracer.telemetry, **settings) as running:
        yield running
    tracer.flush()


def node(name: str, *after: str, **more: Any) -> dict[str, Any]:
    return {"node_id": name, "type": name, "depends_on": list(after), **more}
