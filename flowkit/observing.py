"""What the settings ask to be shown of a process: spans to a collector, metrics at a port. Parts that share a telemetry
share this too.

Neither OpenTelemetry nor Prometheus is imported where nobody asks.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from flowkit.config import CommonSettings
from flowkit.errors import ConfigError, how_to_install
from flowkit.telemetry import Telemetry

if TYPE_CHECKING:
    from flowkit.metrics.metrics import Metrics
    from flowkit.metrics.server import MetricsServer
    from flowkit.otel.tracing import Tracing

FLUSH_SEC: Final = 2.0
"""How long a stop waits for a collector to take the last spans."""
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Observing:
    """`begin` before the part starts, `end` when it has stopped; the first begins, and the last ends, for all."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.server: MetricsServer | None = None
        self._telemetry = telemetry
        self._users = 0
        self._metrics: Metrics | None = None
        self._tracing: Tracing | None = None

    async def begin(self, cfg: CommonSettings, *, part: str, embedded: bool) -> None:
        """Raises `ConfigError`: an extra is missing, a variable makes no sense, a port is taken."""
        self._users += 1
        if self._users > 1:
            return
        try:
            if self._telemetry.propagation is None and wants_spans(cfg):
                from flowkit.otel.tracing import trace

                service = "flowkit" if embedded else f"flowkit-{part}"
                self._tracing = trace(self._telemetry, embedded=embedded, service=service)
            if cfg.metrics_port is not None:
                await self._serve(cfg, cfg.metrics_port)
        except BaseException:
            await self.end()
            raise

    async def end(self) -> None:
        self._users -= 1
        if self._users:
            return
        if self.server is not None:
            server, self.server = self.server, None
            await server.stop()
        if self._metrics is not None:
            metrics, self._metrics = self._metrics, None
            metrics.close()
        if self._tracing is not None:
            tracing, self._tracing = self._tracing, None
            tracing.close()
            if not await asyncio.to_thread(tracing.provider.force_flush, round(FLUSH_SEC * 1000)):
                self._telemetry.count("otel_flushes_cut_short")

    async def _serve(self, cfg: CommonSettings, port: int) -> None:
        if not 0 <= port <= 65_535:
            raise ConfigError(f"metrics_port is a port, 0 (any) to 65535, not {port}")
        if find_spec("prometheus_client") is None:
            raise ConfigError(f"metrics_port needs the extra `prometheus`: {how_to_install('prometheus')}")
        from flowkit.metrics.metrics import Metrics

        self._metrics = Metrics(self._telemetry, tenants=cfg.metrics_tenants)
        self.server = await self._metrics.serve(port, cfg.metrics_host)


def wants_spans(cfg: CommonSettings, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether spans are asked for: by `otel`, else by a collector's address in the standard variables, where the extra
    is installed. Raises `ConfigError` where `otel` asks for what is not installed."""
    if cfg.otel is None and not any(environ.get(name) for name in ENDPOINTS):
        return False
    if cfg.otel is False or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    installed = all(map(_is_there, ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")))
    if cfg.otel and not installed:
        raise ConfigError(f"otel needs the extra `otel`: {how_to_install('otel')}")
    return installed


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False


def observing_of(telemetry: Telemetry) -> Observing:
    """The one of this telemetry."""
    if telemetry.observing is None:
        telemetry.observing = Observing(telemetry)
    return telemetry.observing
