"""Spans and metrics are there for those who ask; nobody else imports, makes or pays for anything."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import flowkit
from flowkit import CoordinatorConfig, observing
from flowkit.errors import ConfigError
from flowkit.observing import wants_spans
from flowkit.telemetry import Telemetry, current_traceparent

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("said", "environ", "wanted"),
    [
        (None, {}, False),
        (None, ENDPOINT, True),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        (None, {**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, False),
        (False, ENDPOINT, False),
        (True, {}, True),
        (True, {"OTEL_SDK_DISABLED": "TRUE"}, False),
    ],
)
def test_spans_are_asked_for_by_a_setting_or_by_a_collectors_address(
    said: bool | None, environ: dict[str, str], wanted: bool
) -> None:
    assert wants_spans(CoordinatorConfig(otel=said), environ) is wanted


def ok() -> int:
    return 1


async def test_a_missing_extra_is_said_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> Any:
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(name)
        return None if name == "prometheus_client" else find_spec(name)

    monkeypatch.setattr(observing, "find_spec", without)

    assert not wants_spans(CoordinatorConfig(), ENDPOINT)
    with pytest.raises(ConfigError, match=r"pip install 'flowkit-engine\[otel\]'"):
        await flowkit.Embedded(handlers=[ok], cfg=CoordinatorConfig(otel=True)).start()
    with pytest.raises(ConfigError, match=r"pip install 'flowkit-engine\[prometheus\]'"):
        await flowkit.Embedded(handlers=[ok], cfg=CoordinatorConfig(metrics_port=0)).start()


def test_who_asks_for_nothing_imports_nothing(tmp_path: Path) -> None:
    script = """
import sys, flowkit
def greet(): return 1
result = flowkit.run({"nodes": [{"node_id": "a", "type": "greet"}]}, handlers=[greet])
assert result.status == "finished"
print(*{name.partition(".")[0] for name in sys.modules} & {"opentelemetry", "prometheus_client"})
"""
    ran = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert ran.stdout.split() == []


async def test_where_nobody_observes_nothing_is_made() -> None:
    async with flowkit.Embedded(handlers=[ok]) as flow:
        runtime = flow.coordinator.runtime
        await (await flow.submit({"nodes": [{"node_id": "a", "type": "ok"}]})).wait()

        assert runtime.engine.on_recorded is None
        assert runtime.publisher.packed is None
        assert runtime.carrier.propagation is None
        assert runtime.store is flow.coordinator._backend.store
        assert runtime.bus is flow.coordinator._backend.bus


def test_an_observer_may_leave_and_one_that_raises_is_counted() -> None:
    telemetry, heard = Telemetry(), []
    end = telemetry.observe(heard.append)

    def broken(_: Any) -> None:
        raise ValueError("broken")

    telemetry.observe(broken)
    telemetry.told("one")  # type: ignore[arg-type]
    end()
    telemetry.told("two")  # type: ignore[arg-type]

    assert heard == ["one"]
    assert telemetry.observers == (broken,)
    assert telemetry.counts == {"observer_failures": 2}


def test_the_callers_span_is_known_where_opentelemetry_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    from opentelemetry.sdk.trace import TracerProvider

    assert current_traceparent() == ""
    with TracerProvider(shutdown_on_exit=False).get_tracer("t").start_as_current_span("here") as span:
        context = span.get_span_context()
        assert current_traceparent() == f"00-{context.trace_id:032x}-{context.span_id:016x}-01"
        monkeypatch.delitem(sys.modules, "opentelemetry.trace")
        assert current_traceparent() == ""
