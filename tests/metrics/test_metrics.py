"""What a scrape over HTTP says after known work, read with Prometheus's own parser."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.error import HTTPError

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

import flowkit
from flowkit import CoordinatorConfig, WorkerConfig
from flowkit import measures as m
from flowkit.errors import ConfigError
from flowkit.metrics import Metrics
from flowkit.metrics import server as metrics_server
from flowkit.metrics.metrics import MOST_ROLES
from flowkit.observations import RunEnded
from flowkit.observing import observing_of
from flowkit.telemetry import (
    AttemptKilled,
    DeadLettered,
    LeaseExpired,
    LoopFailed,
    Quarantined,
    Rebalanced,
    Reloaded,
    Telemetry,
)
from flowkit.wire.messages import Job


class Scrape:
    """The samples of a text, by name and labels."""

    def __init__(self, text: str, *, openmetrics: bool = False) -> None:
        families = list((read_openmetrics if openmetrics else read_text)(text))
        self.types = {family.name: family.type for family in families}
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def of(self, name: str, **labels: str) -> float | None:
        return self.samples.get((name, frozenset(labels.items())))

    def names(self) -> set[str]:
        return {name for name, _ in self.samples}


def ask(port: int, path: str = "/metrics", **headers: str) -> tuple[str, Mapping[str, str]]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - the address is above
        return answer.read().decode(), answer.headers


async def scrape(port: int) -> Scrape:
    return Scrape((await asyncio.to_thread(ask, port))[0])


def ok() -> int:
    return 1


def bad() -> None:
    raise RuntimeError("no")


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    yield Telemetry()


async def test_a_scrape_says_what_was_done(telemetry: Telemetry) -> None:
    metrics = Metrics(telemetry)
    server = await metrics.serve(0)
    nodes = [
        {"node_id": "a", "type": "ok"},
        {"node_id": "b", "type": "ok", "depends_on": ["a"]},
        {"node_id": "c", "type": "bad", "depends_on": ["b"], "retry_policy": {"max": 2, "backoff_sec": 0}},
    ]
    async with flowkit.Embedded(handlers=[ok, bad], telemetry=telemetry) as flow:
        for nodes_of in (nodes, nodes[:1]):
            await (await flow.submit({"nodes": nodes_of})).wait()
        while (seen := await scrape(server.port)).of(m.UNSENT.name):
            await asyncio.sleep(0.02)
    await server.stop()

    assert seen.of(m.TASKS.name, status="finished") == 1
    assert seen.of(m.TASKS.name, status="failed") == 1
    assert seen.of(m.ATTEMPTS.name, role="ok", outcome="succeeded") == 3
    assert seen.of(m.ATTEMPTS.name, role="bad", outcome="failed") == 2
    assert seen.of(m.RUNS.name, role="bad", outcome="failed") == 2
    for one in (m.WAIT_SECONDS, m.DISPATCH_SECONDS, m.QUEUE_SECONDS):
        assert seen.of(f"{one.name}_count", role="ok") == 3
        assert seen.of(f"{one.name}_bucket", role="ok", le="+Inf") == 3
    assert seen.of(f"{m.RUN_SECONDS.name}_count", role="ok", outcome="succeeded") == 3
    assert (seen.of(f"{m.STORE_SECONDS.name}_count", verb="insert_commits", failed="false") or 0) >= 4
    assert (seen.of(f"{m.BUS_SECONDS.name}_count", verb="publish", failed="false") or 0) >= 4
    assert seen.of(m.WORKERS.name, role="ok") == 1
    assert seen.of(m.ROLE_SLOTS.name, role="ok") == seen.of(m.SLOTS.name) == WorkerConfig().slots
    assert seen.of(m.PARTITIONS.name) == seen.of(m.TAKEOVERS.name) == 1
    assert 0 <= (seen.of(m.SWEEP_LAG.name) or 0) < 60
    assert seen.of(m.LOAD.name, role="ok") == seen.of(m.READY.name, role="ok") == seen.of(m.SLOTS_USED.name) == 0
    assert seen.types[m.TASKS.name.removesuffix("_total")] == "counter"
    assert not [name for name in seen.names() if name.endswith("_created")]


async def test_the_load_of_a_role_is_what_waits_and_runs_for_each_slot(telemetry: Telemetry) -> None:
    metrics, gate = Metrics(telemetry), asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    cfg, worker_cfg = CoordinatorConfig(prefetch=0), WorkerConfig(slots=2)
    nodes = [{"node_id": f"n{n}", "type": "wait"} for n in range(5)]
    async with flowkit.Embedded(handlers=[wait], telemetry=telemetry, cfg=cfg, worker_cfg=worker_cfg) as flow:
        task = await flow.submit({"nodes": nodes})
        async with asyncio.timeout(10):
            while (seen := Scrape(metrics.render()[0].decode())).of(m.SLOTS_USED.name) != 2:
                await asyncio.sleep(0.02)
        gate.set()
        await task.wait()

    assert seen.of(m.LEASED.name, role="wait") == 2
    assert seen.of(m.READY.name, role="wait") == 3
    assert seen.of(m.LOAD.name, role="wait") == 2.5


async def test_a_role_that_nobody_serves_has_a_load_to_scale_up_by(telemetry: Telemetry) -> None:
    metrics = Metrics(telemetry)
    async with flowkit.Embedded(handlers=[ok], telemetry=telemetry) as flow:
        await flow.submit({"nodes": [{"node_id": "a", "type": "ok"}, {"node_id": "b", "type": "gpu"}]})
        async with asyncio.timeout(10):
            while (seen := Scrape(metrics.render()[0].decode())).of(m.READY.name, role="gpu") != 1:
                await asyncio.sleep(0.02)

    assert (seen.of(m.LOAD.name, role="gpu"), seen.of(m.WORKERS.name, role="gpu")) == (1, 0)


async def test_tenants_are_told_apart_only_where_that_is_asked_for_and_then_so_many() -> None:
    async def run(tenants: int) -> Scrape:
        telemetry = Telemetry()
        metrics = Metrics(telemetry, tenants=tenants)
        async with flowkit.Embedded(handlers=[ok], telemetry=telemetry) as flow:
            for tenant in ("acme", "rival", "third"):
                flow.coordinator.runtime.api.tenant = tenant
                await (await flow.submit({"nodes": [{"node_id": "a", "type": "ok"}]})).wait()
        return Scrape(metrics.render()[0].decode())

    told, untold = await run(2), await run(0)

    counts = {tenant: told.of(m.TASKS.name, status="finished", tenant=tenant) for tenant in ("acme", "rival", "other")}
    assert counts == {"acme": 1, "rival": 1, "other": 1}
    assert told.of(m.ATTEMPTS.name, role="ok", outcome="succeeded", tenant="other") == 1
    assert told.of(m.CAPPED.name, label="tenant") == 2
    assert untold.of(m.TASKS.name, status="finished") == 3
    assert not [labels for _, labels in untold.samples if "tenant" in dict(labels)]


def test_roles_are_bounded(telemetry: Telemetry) -> None:
    metrics = Metrics(telemetry)

    for number in range(MOST_ROLES + 10):
        job = Job("t", "default", "p", 0, "n", f"role-{number}", 1, "tok", 0, 0.0)
        telemetry.told(RunEnded(job, "w", "succeeded", "", 0.0, 1.0, 1.0))

    seen = Scrape(metrics.render()[0].decode())
    assert seen.of(m.RUNS.name, role="other", outcome="succeeded") == 10
    assert len([name for name, _ in seen.samples if name == m.RUNS.name]) == MOST_ROLES + 1
    assert seen.of(m.CAPPED.name, label="role") == 10


def test_what_is_rare_is_counted_too(telemetry: Telemetry) -> None:
    metrics = Metrics(telemetry)
    telemetry.emit(LeaseExpired("t", "n", 1, "w"))
    telemetry.emit(Rebalanced("c", frozenset({1, 2}), frozenset({3})))
    telemetry.emit(DeadLettered("flowkit.facts.v1", "not JSON"))
    telemetry.emit(Reloaded("t", "lost_race"))
    telemetry.emit(Quarantined("t", "no"))
    telemetry.emit(AttemptKilled("w", "tok", "timeout"))
    telemetry.emit(LoopFailed("c", "c/commits-0", ValueError("x"), 0.1))
    telemetry.count("log_bytes_lost", 512)

    seen = Scrape(metrics.render()[0].decode())

    assert seen.of(m.EXPIRED.name) == seen.of(m.QUARANTINED.name) == 1
    assert (seen.of(m.TAKEOVERS.name), seen.of(m.HANDOVERS.name)) == (2, 1)
    assert seen.of(m.DEAD.name, topic="flowkit.facts.v1") == 1
    assert seen.of(m.RELOADS.name, why="lost_race") == seen.of(m.KILLED.name, why="timeout") == 1
    assert seen.of(m.LOOPS.name, loop="commits-0") == 1
    assert seen.of(m.EVENTS.name, event="log_bytes_lost") == 512


async def test_openmetrics_is_given_to_those_who_ask_for_it(telemetry: Telemetry) -> None:
    metrics = Metrics(telemetry)
    telemetry.emit(LeaseExpired("t", "n", 1, "w"))
    server = await metrics.serve(0)

    text, headers = await asyncio.to_thread(ask, server.port, accept="application/openmetrics-text; version=1.0.0")
    await server.stop()

    assert headers["content-type"].startswith("application/openmetrics-text")
    assert Scrape(text, openmetrics=True).of(m.EXPIRED.name) == 1


async def test_only_the_metrics_are_served(telemetry: Telemetry) -> None:
    server = await Metrics(telemetry).serve(0)

    with pytest.raises(HTTPError, match="404"):
        await asyncio.to_thread(ask, server.port, "/secrets")
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"POST /metrics HTTP/1.1\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 405 ")
    writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /" + b"x" * 100_000)
    assert await reader.read() == b""
    writer.close()
    assert (await scrape(server.port)).of(m.EXPIRED.name) == 0
    await server.stop()


async def test_an_application_mounts_them_as_asgi(telemetry: Telemetry) -> None:
    metrics, sent = Metrics(telemetry), []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any: ...

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"accept", b"text/plain")]}
    await metrics.app(scope, receive, send)

    start, body = sent
    assert start["status"] == 200
    assert (b"content-length", str(len(body["body"])).encode()) in start["headers"]
    assert Scrape(body["body"].decode()).of(m.EXPIRED.name) == 0


async def test_a_registry_of_ones_own_holds_them_until_they_are_closed(telemetry: Telemetry) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(telemetry, registry)
    with pytest.raises(ValueError, match="Duplicated"):
        Metrics(Telemetry(), registry)

    assert registry.get_sample_value(m.EXPIRED.name) == 0
    metrics.close()

    assert registry.get_sample_value(m.EXPIRED.name) is None
    assert telemetry.observers == ()


async def test_a_setting_serves_them_while_the_engine_lives() -> None:
    cfg = CoordinatorConfig(metrics_port=0)
    async with flowkit.Embedded(handlers=[ok], cfg=cfg, worker_cfg=WorkerConfig(metrics_port=0)) as flow:
        await (await flow.submit({"nodes": [{"node_id": "a", "type": "ok"}]})).wait()
        server = observing_of(flow.telemetry).server
        assert server is not None
        port = server.port
        seen = await scrape(port)

        with pytest.raises(ConfigError, match=f"cannot be served on 127.0.0.1:{port}: .*each process needs its own"):
            await flowkit.Embedded(handlers=[ok], cfg=CoordinatorConfig(metrics_port=port)).start()

    assert seen.of(m.TASKS.name, status="finished") == 1
    with pytest.raises(OSError, match="refused"):
        await scrape(port)
    assert flow.telemetry.observers == ()
    assert list(flow.telemetry.readings()) == []


async def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"0 \(any\) to 65535, not 70000"):
        await flowkit.Embedded(handlers=[ok], cfg=CoordinatorConfig(metrics_port=70_000)).start()


async def test_more_connections_than_there_may_be_are_hung_up(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server, "MOST_CONNECTIONS", 1)
    serving = await Metrics(telemetry).serve(0)
    _, silent = await asyncio.open_connection("127.0.0.1", serving.port)
    await asyncio.sleep(0.05)

    async with asyncio.timeout(10):
        reader, late = await asyncio.open_connection("127.0.0.1", serving.port)
        assert await reader.read() == b""
    silent.close()
    late.close()
    await serving.stop()
