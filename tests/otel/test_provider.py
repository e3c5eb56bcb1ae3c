"""Where spans go is said by the standard variables, unless the application has set a provider up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace as otel
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter

from flowkit.errors import ConfigError
from flowkit.otel import provider as p
from flowkit.otel.span_queue import SpanQueue


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[SpanQueue]]:
    """The queues that were made, which end with the test."""
    queues: list[SpanQueue] = []

    class Noted(SpanQueue):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            queues.append(self)

    monkeypatch.setattr(p, "SpanQueue", Noted)
    yield queues
    for queue in queues:
        queue.shutdown()


def make(**environ: str) -> TracerProvider:
    return p.make_provider("flowkit-worker", lambda name, by: None, environ)


@pytest.mark.parametrize(
    ("environ", "exporter"),
    [
        ({}, OTLPSpanExporter),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, OTLPSpanExporter),
        ({"OTEL_TRACES_EXPORTER": "console"}, ConsoleSpanExporter),
        ({"OTEL_TRACES_EXPORTER": "none"}, None),
    ],
)
def test_the_exporter_is_chosen_by_name(made: list[SpanQueue], environ: dict[str, str], exporter: Any) -> None:
    provider = make(**environ)

    assert [type(queue._exporter) for queue in made] == ([] if exporter is None else [exporter])
    assert provider.resource.attributes["service.name"] == "flowkit-worker"
    provider.shutdown()


def test_the_service_may_be_named(made: list[SpanQueue], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "billing")

    provider = make(OTEL_SERVICE_NAME="billing", OTEL_TRACES_EXPORTER="none")

    assert provider.resource.attributes["service.name"] == "billing"
    provider.shutdown()


@pytest.mark.parametrize(
    ("environ", "say"),
    [
        ({"OTEL_TRACES_EXPORTER": "otpl"}, r"one of otlp, console, none, not 'otpl' \(did you mean 'otlp'\?\)"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, r"one of http/protobuf, grpc, not 'http/json'"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, r"pip install opentelemetry-exporter-otlp-proto-grpc"),
    ],
)
def test_what_there_is_not_is_said_with_what_to_do(environ: dict[str, str], say: str) -> None:
    with pytest.raises(ConfigError, match=say):
        make(**environ)


def test_the_applications_own_provider_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    own = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(otel, "get_tracer_provider", lambda: own)

    assert p.open_provider("flowkit", lambda name, by: None) is own


def test_without_one_the_whole_process_gets_one(made: list[SpanQueue], monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(otel, "get_tracer_provider", otel.ProxyTracerProvider)
    monkeypatch.setattr(otel, "set_tracer_provider", given.append)

    provider = p.open_provider("flowkit", lambda name, by: None)

    assert given == [provider]
    provider.shutdown()
