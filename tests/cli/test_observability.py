"""A caller, a coordinator and a worker in processes of their own, on a real Kafka and MongoDB: one trace through all of
them, as a collector receives it, and what a scrape of each says."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from flowkit import measures as m
from tests.cli.conftest import Begin, Process, command
from tests.cli.conftest import environment as clean_environment
from tests.metrics.test_metrics import Scrape, ask
from tests.otel.collector import Collector, collecting

CALLER = """
import asyncio, flowkit
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
import os

async def main():
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter()))
    graph = {"name": "hello", "nodes": [{"node_id": "hi", "type": "greet"},
                                        {"node_id": "loud", "type": "traced", "depends_on": ["hi"]}]}
    async with flowkit.Client(db=os.environ["FLOWKIT_DB"]) as client:
        with provider.get_tracer("shop").start_as_current_span("POST /orders"):
            task = await client.create_task(graph=graph, params={"name": "Ada"})
        result = await client.wait_task(task, 60)
        print(result.status, task)

asyncio.run(main())
"""
TRACED = """
from opentelemetry import trace

async def traced(text: str):
    with trace.get_tracer("shop").start_as_current_span("lookup"):
        return text.upper()
"""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.fixture
def environment(
    kafka_address: str, kafka_prefix: str, mongo_url: str, collector: Collector
) -> Iterator[dict[str, str]]:
    name = f"flowkit_cli_{uuid.uuid4().hex[:12]}"
    yield {
        "KAFKA_BOOTSTRAP_SERVERS": kafka_address,
        "FLOWKIT_TOPIC_PREFIX": kafka_prefix,
        "FLOWKIT_DB": urlunsplit(urlsplit(mongo_url)._replace(path=f"/{name}")),
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    from pymongo import MongoClient

    with MongoClient(mongo_url) as client:
        client.drop_database(name)


def metrics_of(process: Process) -> Scrape:
    (port,) = re.findall(r"metrics at http://127\.0\.0\.1:(\d+)/metrics", process.heard("metrics at "))
    return Scrape(ask(int(port))[0])


def test_one_trace_spans_caller_coordinator_and_worker_and_the_scrapes_add_up(
    folder: Path, begin: Begin, environment: dict[str, str], collector: Collector
) -> None:
    (folder / "caller.py").write_text(CALLER)
    (folder / "traced.py").write_text(TRACED)
    coordinator = begin("coordinator", "--metrics-port", "0", **environment)
    worker = begin("worker", "app", "traced", "--otel", "--metrics-port", "0", **environment)
    coordinator.heard("coordinator c-")
    worker.heard("serves")

    said = _python(folder, "caller.py", environment)
    assert said.split()[0] == "finished", said
    seen, seen_by_worker = metrics_of(coordinator), metrics_of(worker)
    for process in (worker, coordinator):
        process.signal(signal.SIGTERM)
        assert process.finish().code == 0

    prefix = environment["FLOWKIT_TOPIC_PREFIX"]
    work, facts = f"{prefix}work.v1", f"{prefix}facts.v1"
    tree = sorted((span.service, span.name, collector.parent(span)) for span in collector.spans)
    each = [
        ("flowkit-coordinator", f"process {facts}", "attempt {}"),
        ("flowkit-coordinator", f"send {work}", "attempt {}"),
        ("flowkit-coordinator", "attempt {}", "task hello"),
        ("flowkit-worker", f"process {work}", f"send {work}"),
        ("flowkit-worker", f"send {facts}", f"process {work}"),
    ]
    assert tree == sorted(
        [
            ("shop", "POST /orders", ""),
            ("flowkit-coordinator", "task hello", "POST /orders"),
            ("flowkit-worker", "lookup", f"process {work}"),
            *((by, name.format(node), parent.format(node)) for node in ("hi", "loud") for by, name, parent in each),
        ]
    )
    assert len({span.trace_id for span in collector.spans}) == 1
    assert {span.attributes.get("messaging.system", "kafka") for span in collector.spans} == {"kafka"}
    hi = collector.one("attempt hi")
    assert collector.one("attempt loud").links == (hi.span_id,)
    run = collector.one(f"process {work}", node="hi")
    assert hi.began <= run.began <= run.ended <= hi.ended

    assert seen.of(m.TASKS.name, status="finished") == 1
    assert seen.of(m.ATTEMPTS.name, role="greet", outcome="succeeded") == 1
    assert seen.of(m.ATTEMPTS.name, role="traced", outcome="succeeded") == 1
    assert seen.of(m.WORKERS.name, role="greet") == 1
    assert seen.of(m.PARTITIONS.name) == 8
    assert (seen.of(f"{m.BUS_SECONDS.name}_count", verb="publish", failed="false") or 0) > 2
    assert seen_by_worker.of(m.RUNS.name, role="greet", outcome="succeeded") == 1
    assert seen_by_worker.of(f"{m.QUEUE_SECONDS.name}_count", role="traced") == 1
    assert seen_by_worker.of(m.SLOTS.name) == 16
    assert seen_by_worker.of(m.SLOTS_USED.name) == 0
    assert seen_by_worker.of(m.TASKS.name, status="finished") is None


def _python(folder: Path, script: str, environment: dict[str, str]) -> str:
    ran = subprocess.run(
        [sys.executable, script], cwd=folder, env=clean_environment(**environment), capture_output=True, text=True,
        timeout=90, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.slow
def test_the_coordinator_that_takes_over_ends_the_trace_that_a_killed_one_began(
    folder: Path, begin: Begin, environment: dict[str, str], collector: Collector
) -> None:
    graph = {"name": "long", "nodes": [{"node_id": "n", "type": "wait", "inputs": {"seconds": 12, "value": 1}}]}
    (folder / "long.json").write_text(json.dumps(graph))
    first = begin("coordinator", **environment, OTEL_SERVICE_NAME="first")
    first.heard("coordinator c-")
    begin("worker", "app", **environment).heard("serves")
    task_id = command(folder, "run", "long.json", "--detach", **environment).out.strip()
    collector.wait(1)  # its work was sent
    first.signal(signal.SIGKILL)
    second = begin("coordinator", **environment, OTEL_SERVICE_NAME="second")
    second.heard("coordinator c-")

    ran = command(folder, "run", "--resume", task_id, **environment)
    assert (ran.code, ran.out) == (0, "1\n")
    collector.wait(6)

    work = f"{environment['FLOWKIT_TOPIC_PREFIX']}work.v1"
    facts = f"{environment['FLOWKIT_TOPIC_PREFIX']}facts.v1"
    assert sorted((span.service, span.name, collector.parent(span)) for span in collector.spans) == [
        ("first", f"send {work}", "attempt n"),
        ("flowkit-worker", f"process {work}", f"send {work}"),
        ("flowkit-worker", f"send {facts}", f"process {work}"),
        ("second", "attempt n", "task long"),
        ("second", f"process {facts}", "attempt n"),
        ("second", "task long", ""),
    ]
    attempt = collector.one("attempt n")
    assert attempt.began <= collector.one(f"send {work}").began
    assert attempt.ended - attempt.began > 12
