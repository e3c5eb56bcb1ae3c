"""A collector that takes spans as any other does: OTLP over HTTP, decoded as protobuf."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass(frozen=True)
class Got:
    """A span as it was received; ids in hexadecimal digits, times in seconds."""

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    began: float
    ended: float
    error: bool
    said: str
    attributes: dict[str, Any]
    links: tuple[str, ...]
    events: tuple[str, ...]


@dataclass
class Collector:
    url: str = ""
    raw: list[bytes] = field(default_factory=list)
    spans: list[Got] = field(default_factory=list)

    def take(self, body: bytes) -> None:
        self.raw.append(body)
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = attributes_of(of_resource.resource.attributes).get("service.name", "")
            for of_scope in of_resource.scope_spans:
                self.spans += [_got(service, span) for span in of_scope.spans]

    def named(self, name: str, **attributes: Any) -> list[Got]:
        """The spans of a name, with these values of `flowkit.*` attributes, in the order in which they began."""
        wanted = {f"flowkit.{key}".replace("__", "."): value for key, value in attributes.items()}
        found = [span for span in self.spans if span.name == name and wanted.items() <= span.attributes.items()]
        return sorted(found, key=lambda span: span.began)

    def one(self, name: str, **attributes: Any) -> Got:
        (span,) = self.named(name, **attributes)
        return span

    def parent(self, span: Got) -> str:
        """The name of a span's parent; empty for a root, and `?` for one that was not received."""
        by_id = {one.span_id: one.name for one in self.spans}
        return by_id.get(span.parent_id, "?") if span.parent_id else ""

    def wait(self, count: int, timeout: float = 20.0) -> list[Got]:
        """Until so many spans were received. Blocks: for tests without a loop."""
        deadline = time.monotonic() + timeout
        while len(self.spans) < count:
            assert time.monotonic() < deadline, f"{len(self.spans)} spans of {count}: {[s.name for s in self.spans]}"
            threading.Event().wait(0.05)
        return self.spans


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a port of its own."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.path != "/v1/traces" or self.headers["content-type"] != "application/x-protobuf":
                self.send_error(404)
                return
            collector.take(gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def attributes_of(rows: Any) -> dict[str, Any]:
    return {row.key: getattr(row.value, row.value.WhichOneof("value")) for row in rows}


def _got(service: str, span: trace_pb2.Span) -> Got:
    return Got(
        service,
        span.name,
        trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano / 1e9,
        span.end_time_unix_nano / 1e9,
        span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        span.status.message,
        attributes_of(span.attributes),
        tuple(link.span_id.hex() for link in span.links),
        tuple(event.name for event in span.events),
    )
