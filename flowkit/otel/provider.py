"""The tracer provider: the one that the application has set up, else one by the standard OTEL_* variables."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter

from flowkit import __version__
from flowkit.errors import ConfigError, did_you_mean
from flowkit.otel.span_queue import SpanQueue

EXPORTERS = ("otlp", "console", "none")
PROTOCOLS = ("http/protobuf", "grpc")


def open_provider(service: str, count: Callable[[str, int], None]) -> TracerProvider:
    """The provider of this process. Where nobody has set one up, one is made, and everything in the process uses it
    from now on: so what handlers trace goes to the same collector. `service` is its name where `OTEL_SERVICE_NAME` says
    nothing. Raises `ConfigError`."""
    found = trace.get_tracer_provider()
    if isinstance(found, TracerProvider):
        return found
    provider = make_provider(service, count)
    trace.set_tracer_provider(provider)
    return provider


def make_provider(service: str, count: Callable[[str, int], None],
                  environ: Mapping[str, str] = os.environ) -> TracerProvider:  # fmt: skip
    """A provider by the OTEL_* variables: sampler, resource, limits, exporter. Raises `ConfigError`."""
    named = environ.get("OTEL_SERVICE_NAME") or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    about = {} if named else {"service.name": service}
    exporter = _exporter(environ)
    provider = TracerProvider(resource=Resource.create({**about, "flowkit.version": __version__}))
    if exporter is not None:
        provider.add_span_processor(SpanQueue(exporter, count, environ=environ))
    return provider


def _exporter(environ: Mapping[str, str]) -> SpanExporter | None:
    name = environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    match name:
        case "none":
            return None
        case "console":
            return ConsoleSpanExporter()
        case "otlp":
            return _otlp(environ)
    raise ConfigError(
        f"OTEL_TRACES_EXPORTER is one of {', '.join(EXPORTERS)}, not {name!r}{did_you_mean(name, EXPORTERS)}; for "
        "another exporter set up a TracerProvider of your own, which FlowKit then uses"
    )


def _otlp(environ: Mapping[str, str]) -> SpanExporter:
    wanted = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = (wanted or PROTOCOLS[0]).strip()
    if protocol == "grpc":
        if find_spec("opentelemetry.exporter.otlp.proto.grpc") is None:
            raise ConfigError(
                "OTEL_EXPORTER_OTLP_PROTOCOL is grpc, whose exporter is not installed: "
                "pip install opentelemetry-exporter-otlp-proto-grpc, or use http/protobuf (port 4318)"
            )
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # type: ignore[import-not-found, unused-ignore]
            OTLPSpanExporter as GrpcExporter,
        )

        over_grpc: SpanExporter = GrpcExporter()
        return over_grpc
    if protocol != "http/protobuf":
        raise ConfigError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is one of {', '.join(PROTOCOLS)}, not {protocol!r}"
            f"{did_you_mean(protocol, PROTOCOLS)}"
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
