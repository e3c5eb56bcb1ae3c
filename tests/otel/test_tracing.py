"""A task is one trace, as a collector receives it: who is whose child, how it ended, and what is not said."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace as otel
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler

import flowkit
from flowkit import CoordinatorConfig, GraphError, WorkerConfig
from flowkit.core.traceparent import read_traceparent, trace_id_of
from flowkit.errors import ConfigError
from flowkit.otel import trace
from flowkit.otel.names import ABOUT, SPANS
from tests.otel.stand import Tracer, engine, node, traced

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
WORK, FACTS = "flowkit.work.v1", "flowkit.facts.v1"


def hello(name: str) -> str:
    return f"hello {name}"


async def test_a_task_is_one_trace_from_its_acceptance_to_its_end() -> None:
    with traced() as (collector, tracer):
        async with engine(tracer, hello) as flow:
            task = await flow.submit({"name": "greeting", "nodes": [node("hello")]}, params={"name": "Ada"})
            await task.wait()

        names = [(span.name, span.kind, collector.parent(span)) for span in collector.spans]

    assert sorted(names) == sorted(
        [
            ("task greeting", "internal", ""),
            ("attempt hello", "internal", "task greeting"),
            (f"send {WORK}", "producer", "attempt hello"),
            (f"process {WORK}", "consumer", f"send {WORK}"),
            (f"send {FACTS}", "producer", f"process {WORK}"),
            (f"process {FACTS}", "consumer", "attempt hello"),
        ]
    )
    assert {span.trace_id for span in collector.spans} == {trace_id_of(task.id)}
    attempt, run = collector.one("attempt hello"), collector.one(f"process {WORK}")
    assert collector.one(f"process {FACTS}").links == (collector.one(f"send {FACTS}").span_id,)
    assert attempt.events == ("flowkit.ready", "flowkit.leased")
    assert attempt.began <= run.began <= run.ended <= attempt.ended
    assert run.attributes.items() >= {
        "flowkit.task.id": task.id, "flowkit.tenant": "default", "flowkit.node": "hello", "flowkit.role": "hello",
        "flowkit.attempt": 1, "flowkit.outcome": "succeeded", "messaging.system": "flowkit",
        "messaging.operation.type": "process", "messaging.destination.name": WORK,
    }.items()  # fmt: skip


async def test_every_span_and_attribute_is_in_the_table() -> None:
    with traced() as (collector, tracer):
        async with engine(tracer, hello) as flow:
            child = {"node_id": "child", "type": "task", "graph": {"nodes": [node("hello")]}, "inputs": {"name": "x"}}
            nap = {"node_id": "nap", "type": "sleep", "inputs": {"seconds": 0.01}}
            await (await flow.submit({"name": "m", "nodes": [child, nap]})).wait()

    documented = {one.name.partition(" ")[0]: set[str]() for one in SPANS}
    for one in SPANS:
        documented[one.name.partition(" ")[0]] |= set(one.attributes)
    for span in collector.spans:
        assert set(span.attributes) <= documented[span.name.partition(" ")[0]], span.name
    assert {name for one in SPANS for name in one.attributes} == ABOUT.keys()


async def test_a_task_is_a_child_of_the_span_that_it_was_created_in() -> None:
    with traced() as (collector, tracer):
        ours = tracer.provider.get_tracer("app")
        async with engine(tracer, hello) as flow:
            with ours.start_as_current_span("request") as span:
                inside = await flow.submit({"nodes": [node("hello")]}, params={"name": "x"})
                apart = await flow.submit({"nodes": [node("hello")]}, params={"name": "x"}, traceparent="")
            await inside.wait()
            await apart.wait()
            trace_id = f"{span.get_span_context().trace_id:032x}"

    tasks = {span.attributes["flowkit.task.id"]: span for span in collector.named("task")}
    assert (tasks[inside.id].trace_id, collector.parent(tasks[inside.id])) == (trace_id, "request")
    assert (tasks[apart.id].trace_id, tasks[apart.id].parent_id) == (trace_id_of(apart.id), "")


async def test_a_traceparent_may_be_given_and_logs_carry_its_trace() -> None:
    async def talk(ctx: Any) -> str:
        ctx.log.info("here")
        return str(ctx.traceparent)

    with traced() as (collector, tracer):
        async with engine(tracer, talk) as flow:
            task = await flow.submit({"nodes": [node("talk")]}, traceparent=CALLER)
            told = read_traceparent((await task.wait()).output)
            while not (lines := [line async for line in flow.logs(task.id)]):
                await asyncio.sleep(0.02)

    root, run = collector.one("task"), collector.one(f"process {WORK}")
    assert (root.trace_id, root.parent_id) == (CALLER.split("-")[1], CALLER.split("-")[2])
    assert told is not None
    assert (told.trace_id, told.span_id, told.sampled) == (run.trace_id, run.span_id, True)
    assert [line.trace_id for line in lines] == [run.trace_id]


@pytest.mark.parametrize("given", ["nonsense", CALLER.upper(), 17])
async def test_what_is_no_traceparent_is_refused(given: Any) -> None:
    async with flowkit.Embedded(handlers=[hello]) as flow:
        with pytest.raises(GraphError, match="expected a W3C traceparent such as 00-"):
            await flow.submit({"nodes": [node("hello")]}, params={"name": "x"}, traceparent=given)


async def test_what_a_handler_traces_is_a_child_of_its_run() -> None:
    with traced() as (collector, tracer):
        ours = tracer.provider.get_tracer("app")

        async def asynchronous() -> None:
            with ours.start_as_current_span("query"):
                await asyncio.sleep(0)

        def plain() -> None:
            with ours.start_as_current_span("call"):
                pass

        async with engine(tracer, asynchronous, plain) as flow:
            await (await flow.submit({"nodes": [node("asynchronous"), node("plain", "asynchronous")]})).wait()

    runs = {span.span_id: span.attributes["flowkit.node"] for span in collector.named(f"process {WORK}")}
    assert runs[collector.one("query").parent_id] == "asynchronous"
    assert runs[collector.one("call").parent_id] == "plain"
    assert not otel.get_current_span().get_span_context().is_valid


async def test_each_attempt_has_its_span_and_failures_are_errors() -> None:
    async def flaky(ctx: Any) -> int:
        if ctx.attempt < 3:
            raise flowkit.Retry("the secret is hunter2", code="not_yet")
        return 1

    def bad(flaky: int) -> None:
        raise ValueError("the card is 4111-1111")

    retry = {"max": 3, "backoff_sec": 0}
    with traced() as (collector, tracer):
        async with engine(tracer, flaky, bad) as flow:
            nodes = [node("flaky", retry_policy=retry), node("bad", "flaky", retry_policy={"max": 1})]
            task = await flow.submit({"nodes": nodes}, params={"token": "hunter2"})
            await task.wait()

    attempts = collector.named("attempt flaky")
    assert [(span.attributes["flowkit.attempt"], span.error) for span in attempts] == [(1, True), (2, True), (3, False)]
    assert [span.attributes.get("error.type") for span in attempts] == ["not_yet", "not_yet", None]
    assert len({span.span_id for span in collector.spans}) == len(collector.spans)
    failed, root = collector.one("attempt bad"), collector.one("task")
    assert (failed.error, failed.attributes["flowkit.outcome"]) == (True, "failed")
    assert (root.error, root.attributes["flowkit.outcome"]) == (True, "failed")
    everything = b"".join(collector.raw)
    assert b"hunter2" not in everything
    assert b"4111" not in everything
    assert {span.said for span in collector.spans} == {""}


async def test_a_join_links_to_what_it_waited_for() -> None:
    def numbers() -> list[int]:
        return [1, 2, 3]

    def double(number: int) -> int:
        return 2 * number

    def total(numbers: list[int]) -> int:
        return sum(numbers)

    each = node("double", foreach={"$from": "numbers"}, inputs={"number": {"$item": ""}}, depends_on=[])
    with traced() as (collector, tracer):
        async with engine(tracer, numbers, double, total) as flow:
            nodes = [node("numbers"), each, node("total", "double", inputs={"numbers": {"$from": "double"}})]
            assert (await (await flow.submit({"nodes": nodes})).wait()).output == 12

    items = {span.span_id: span.attributes["flowkit.node"] for span in collector.named("attempt double")}
    assert sorted(items[link] for link in collector.one("attempt total").links) == [f"double[{n}]" for n in range(3)]


async def test_the_tasks_of_sub_graphs_belong_to_the_trace_of_their_parent() -> None:
    with traced() as (collector, tracer):
        async with engine(tracer, hello) as flow:
            inner = {"name": "inner", "nodes": [node("hello")]}
            deep = {"node_id": "deep", "type": "task", "graph": inner, "inputs": {"name": "x"}}
            middle = {"name": "middle", "nodes": [deep]}
            outer = {"name": "outer", "nodes": [{"node_id": "sub", "type": "task", "graph": middle}]}
            task = await flow.submit(outer, traceparent=CALLER)
            await task.wait()

    assert {span.trace_id for span in collector.spans} == {CALLER.split("-")[1]}
    assert [collector.parent(collector.one(f"task {name}")) for name in ("middle", "inner")] == [
        "attempt sub",
        "attempt deep",
    ]
    attempt, child = collector.one("attempt sub"), collector.one("task middle")
    assert attempt.attributes["flowkit.child.task.id"] == child.attributes["flowkit.task.id"]
    assert child.attributes["flowkit.parent.task.id"] == task.id
    assert attempt.began <= child.began <= child.ended <= attempt.ended


async def test_a_node_without_a_worker_has_a_span_as_long_as_it_slept() -> None:
    with traced() as (collector, tracer):
        async with engine(tracer, hello) as flow:
            nap = {"node_id": "nap", "type": "sleep", "inputs": {"seconds": 0.2}}
            await (await flow.submit({"nodes": [nap]})).wait()

    slept = collector.one("node nap")
    assert collector.parent(slept) == "task"
    assert slept.ended - slept.began == pytest.approx(0.2, abs=0.15)


async def test_a_restart_is_a_task_span_of_its_own_in_the_same_trace() -> None:
    async def flaky(ctx: Any) -> int:
        if ctx.attempt < 2:
            raise flowkit.Permanent("broken")
        return 1

    with traced() as (collector, tracer):
        async with engine(tracer, flaky) as flow:
            task = await flow.submit({"name": "g", "nodes": [node("flaky")]})
            await task.wait()
            await task.restart()
            await task.wait()

    first, second = collector.named("task g")
    assert [one.attributes["flowkit.generation"] for one in (first, second)] == [0, 1]
    assert first.trace_id == second.trace_id == trace_id_of(task.id)
    assert (first.error, second.error) == (True, False)
    assert second.began >= first.ended
    parents = [span.parent_id for span in collector.named("attempt flaky")]
    assert parents == [first.span_id, second.span_id]


async def test_a_coordinator_that_takes_a_task_over_makes_the_spans_that_others_expect(tmp_path: Path) -> None:
    going = asyncio.Event()
    began = asyncio.Event()

    async def wait() -> int:
        began.set()
        await going.wait()
        return 1

    with traced() as (collector, tracer):
        async with engine(tracer, wait, db=tmp_path / "t.db") as flow:
            task = await flow.submit({"name": "g", "nodes": [node("wait")]})
            await asyncio.wait_for(began.wait(), 10)
            before = flow.coordinator.runtime.coordinator_id
            await flow.coordinator.restart()  # all that it kept in memory is gone; the worker goes on
            assert flow.coordinator.runtime.coordinator_id != before
            going.set()
            await task.wait()

    attempt, root = collector.one("attempt wait"), collector.one("task g")
    assert (collector.parent(attempt), attempt.attributes["flowkit.attempt"]) == ("task g", 1)
    assert collector.parent(collector.one(f"process {WORK}")) == f"send {WORK}"
    assert collector.parent(collector.one(f"send {WORK}")) == "attempt wait"
    assert root.began <= attempt.began <= collector.one(f"process {WORK}").began
    assert len(collector.spans) == 6


@pytest.mark.parametrize(("sampler", "traceparent"), [
    (ALWAYS_OFF, None),
    (ParentBased(ALWAYS_OFF), ""),
    (None, CALLER[:-2] + "00"),
])  # fmt: skip
async def test_the_sampler_has_its_say(sampler: Sampler | None, traceparent: str | None) -> None:
    def told(ctx: Any) -> str:
        return str(ctx.traceparent)

    with traced(sampler) as (collector, tracer):
        async with engine(tracer, told) as flow:
            result = await (await flow.submit({"nodes": [node("told")]}, traceparent=traceparent)).wait()

    assert collector.spans == []
    assert result.output.endswith("-00")  # so whoever is called does not record either


async def test_a_traced_caller_is_passed_on_where_flowkit_itself_does_not_trace() -> None:
    def told(ctx: Any) -> str:
        return str(ctx.traceparent)

    async with flowkit.Embedded(handlers=[told]) as flow:
        inside = await (await flow.submit({"nodes": [node("told")]}, traceparent=CALLER)).wait()
        apart = await (await flow.submit({"nodes": [node("told")]})).wait()

    assert (inside.output, apart.output) == (CALLER, "")


@pytest.mark.parametrize("language", ["python", "bash"])
async def test_code_in_a_process_of_its_own_finds_its_span_in_the_environment(language: str) -> None:
    source = {
        "python": "import os\ndef main(inputs):\n    return os.environ['TRACEPARENT']\n",
        "bash": 'flowkit_result "\\"$TRACEPARENT\\""\n',
    }
    code = {"node_id": "c", "type": "code", "code": {"runtime": language, "source": source[language]}}
    with traced() as (collector, tracer):
        cfg = WorkerConfig(code_level="L1", code_trusted=True)
        async with engine(tracer, hello, worker_cfg=cfg) as flow:
            result = await (await flow.submit({"nodes": [{**code, "sandbox": {"level": "L1"}}]})).wait()

    assert result.status == "finished", result.error
    run = collector.one(f"process {WORK}")
    assert result.output == f"00-{run.trace_id}-{run.span_id}-01"


async def test_without_a_collector_nothing_fails_or_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowkit.otel.span_queue.STOP_SEC", 0.3)
    tracer = Tracer("http://127.0.0.1:1", most=20, batch=5)
    cfg = CoordinatorConfig(otel=False)
    async with flowkit.Embedded(handlers=[hello], telemetry=tracer.telemetry, cfg=cfg) as flow:
        tasks = [await flow.submit({"nodes": [node("hello")]}, params={"name": str(n)}) for n in range(20)]
        async with asyncio.timeout(10):
            ends = [await task.wait() for task in tasks]
    await asyncio.to_thread(tracer.queue.shutdown)

    counts = tracer.telemetry.counts
    assert [end.status for end in ends] == ["finished"] * 20
    assert counts["otel_spans_dropped"] + counts["otel_spans_failed"] == 6 * 20
    assert "otel_spans_exported" not in counts


async def test_an_observer_that_raises_costs_no_task_anything(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Sampler):
        def should_sample(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("no idea")

        def get_description(self) -> str:
            return "broken"

    with traced(Broken()) as (collector, tracer):
        async with engine(tracer, hello) as flow:
            result = await (await flow.submit({"nodes": [node("hello")]}, params={"name": "x"})).wait()

    assert result.status == "finished"
    assert collector.spans == []
    assert tracer.telemetry.counts["observer_failures"] > 1
    assert [record.message for record in caplog.records if record.name == "flowkit"].count(
        "an observer raised; more of this is only counted"
    ) == 1  # fmt: skip


def test_one_telemetry_is_traced_once() -> None:
    tracer = Tracer("http://127.0.0.1:1")

    with pytest.raises(ConfigError, match="traced already"):
        trace(tracer.telemetry, tracer.provider)
    tracer.queue.shutdown()
