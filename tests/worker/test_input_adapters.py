"""Input adapters: how a class's batches come from what other nodes streamed, or from elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import flowkit
from flowkit import Context, Embedded
from flowkit.errors import ConfigError
from flowkit.worker import Batch, BatchResult, RoleHandler, Worker
from flowkit.worker.input_adapters import InputAdapters
from tests.worker.stand import Stand, virtual
from tests.worker.streams import TASK, adapted, batches, plan, run, write


class Relay(RoleHandler):
    async def process_batch(self, batch: Batch, ctx: Any) -> BatchResult:
        return BatchResult(success=True, metrics={"n": 1}, output=batch.payload)


@virtual
async def test_an_adapter_gives_what_was_streamed_as_batches() -> None:
    async with Stand({"relay": Relay}) as stand:
        await write(stand, "p", '{"a":1}', '{"a":2}')
        said = adapted("pull.from_artifacts", ["p"], from_nodes=["p"])
        report = await run(stand, "c", "relay", said)
        first = {"from_node": "p", "ref": {"task_id": TASK, "node_id": "p", "batch_uid": "0"}, "meta": {"a": 1},
                 "output": {"a": 1}}  # fmt: skip
        assert report.output.value[0] == first
        assert len(report.output.value) == 2


@virtual
async def test_rechunking_cuts_lists_into_pieces() -> None:
    async with Stand({"relay": Relay}) as stand:
        await write(stand, "p", '{"ids":[1,2,3]}', '{"ids":[4]}', '{"ids":[]}')
        said = adapted("pull.rechunk", ["p"], from_node="p", size=2, meta_list_key="ids")
        report = await run(stand, "c", "relay", said)
        assert [batch["items"] for batch in report.output.value] == [[1, 2], [3], [4]]
        assert report.output.value[0]["parent"] == {"ref": {"batch_uid": "0"}, "meta_list_key": "ids"}


@virtual
async def test_a_later_attempt_of_a_class_goes_on_with_what_its_batches_came_to() -> None:
    class Shaky(RoleHandler):
        async def process_batch(self, batch: Batch, ctx: Any) -> BatchResult:
            if batch.payload["output"] == 3 and ctx.attempt == 1:
                await asyncio.sleep(1)  # what was done before is written down meanwhile
                raise ConnectionError
            return BatchResult(success=True, metrics={"sum": batch.payload["output"], "count": 1})

    async with Stand({"shaky": Shaky}) as stand:
        await write(stand, "p", 1, 2, 3, 4)
        said = adapted("pull.artifacts", ["p"])
        await run(stand, "c", "shaky", said)
        report = await run(stand, "c", "shaky", said, attempt=2)
        assert report.output.value == {"metrics": {"sum": 10, "count": 4}}


@pytest.mark.parametrize(
    ("name", "args", "code"),
    [
        ("pull.nothing", {}, "bad_input_adapter"),
        ("pull.rechunk", {"size": 0}, "bad_input_args"),
        ("pull.rechunk", {}, "bad_input_args"),
        ("pull.rechunk", {"size": 2, "meta_list_key": 1}, "bad_input_args"),
        ("pull.artifacts", {"from_nodes": "p"}, "bad_input_args"),
        ("pull.artifacts", {"from_nodes": ["q"]}, "bad_input_args"),
        ("pull.artifacts", {"poll_ms": -1}, "bad_input_args"),
        ("pull.artifacts", {"pol_ms": 1}, "bad_input_args"),
        ("pull.artifacts", {"eof_on_task_done": False}, "bad_input_args"),
    ],
)
def test_what_an_adapter_cannot_do_fails_for_good(name: str, args: dict[str, Any], code: str) -> None:
    @virtual
    async def check() -> None:
        async with Stand({"relay": Relay}) as stand:
            await write(stand, "p", 1)
            report = await run(stand, "c", "relay", adapted(name, ["p"], **args))
            assert (report.error["code"], report.permanent) == (code, True)

    check()


# ---------------------------------------------------------------------------------------------- a worker's own


async def scaled(rows: flowkit.Stream, ctx: Context, *, by: int = 10, poll_ms: int = 0) -> AsyncIterator[Batch]:
    """Reads a stream: each row becomes a batch, odd ones two."""
    async for row in rows:
        for part in range(1 + row % 2):
            payload = {"n": row * by, "of": rows.source, "task": ctx.task_id, "part": part, "poll_ms": poll_ms}
            yield Batch(batch_uid=f"{rows.uid}-{part}", payload=payload)


async def files(names: list[str]) -> AsyncIterator[Batch]:
    """Reads no stream."""
    for name in names:
        yield Batch(batch_uid=name, payload={"name": name})


async def nonsense() -> AsyncIterator[Any]:
    yield {"payload": 1}


def no_iterator() -> Any:
    return [Batch()]


OWN = {"scaled": scaled, "files": files, "nonsense": nonsense, "no_iterator": no_iterator}


def stand_with(handlers: Any) -> Stand:
    return Stand(handlers, options={"adapters": InputAdapters(OWN)})


@virtual
async def test_an_adapter_of_ones_own_gets_the_stream_its_arguments_and_the_context() -> None:
    async with stand_with({"relay": Relay}) as stand:
        await write(stand, "p", 1, 2)
        report = await run(stand, "c", "relay", adapted("scaled", ["p"], from_nodes=["p"], by="3", poll_ms=5))
        rows = [{"n": n, "of": "p", "task": TASK, "part": part, "poll_ms": 5} for n, part in ((3, 0), (3, 1), (6, 0))]
        assert report.output.value == rows


@virtual
async def test_a_later_attempt_makes_no_batch_of_a_stream_again() -> None:
    class Shaky(Relay):
        async def process_batch(self, batch: Batch, ctx: Any) -> BatchResult:
            seen.append((batch.payload["n"], batch.payload["part"]))
            if batch.payload["n"] == 50 and ctx.attempt == 1:
                await asyncio.sleep(1)  # what was done before is written down meanwhile
                raise ConnectionError
            return await super().process_batch(batch, ctx)

    seen: list[Any] = []
    async with stand_with({"shaky": Shaky}) as stand:
        await write(stand, "p", 1, 3, 4, 5)
        said = adapted("scaled", ["p"]) | plan(readers={"d": False})
        said["sources"] = [["p", 0, 10]]
        await run(stand, "c", "shaky", said)
        report = await run(stand, "c", "shaky", said, attempt=2)
        assert [batch[0] for batch in await batches(stand, "c")] == ["0-0", "0-1", "1-0", "1-1", "2-0", "3-0", "3-1"]
        assert report.output.value == {"metrics": {"n": 7}}
        assert seen == [(10, 0), (10, 1), (30, 0), (30, 1), (40, 0), (50, 0), (50, 0), (50, 1)]


@virtual
async def test_batches_of_an_adapter_that_reads_no_stream_are_known_by_their_ids() -> None:
    async with stand_with({"relay": Relay}) as stand:
        said = adapted("files", [], names=["a", "b"]) | plan(readers={"d": False})
        await run(stand, "c", "relay", said)
        assert [batch[:2] for batch in await batches(stand, "c")] == [["a", {"name": "a"}], ["b", {"name": "b"}]]
    async with stand_with({"relay": Relay}) as stand:
        await run(stand, "c", "relay", said | {"args": {"names": ["b", "a", "b"]}})
        assert [batch[0] for batch in await batches(stand, "c")] == ["b", "a"]


@virtual
async def test_a_handler_may_propose_an_adapter_of_the_workers_own() -> None:
    class Proposes(Relay):
        async def load_input(self, input_ref: Any, input_inline: Any) -> Any:
            return {"input_inline": {"input_adapter": "files", "input_args": {"names": ["x"]}}}

    async with stand_with({"proposes": Proposes}) as stand:
        report = await run(stand, "c", "proposes", None)
        assert report.output.value == {"name": "x"}


@pytest.mark.parametrize(
    ("name", "args", "code", "says"),
    [
        ("scale", {}, "bad_input_adapter", "did you mean 'scaled'?"),
        ("scaled", {"bye": 3}, "bad_input_args", "did you mean 'by'?"),
        ("scaled", {"by": "much"}, "bad_input_args", "by: Input should be a valid integer"),
        ("scaled", {"rows": 1}, "bad_input_args", "'rows' is the stream itself"),
        ("scaled", {"from_nodes": ["q"]}, "bad_input_args", "the graph does not say that this node reads 'q'"),
        ("files", {}, "bad_input_args", "names"),
        ("nonsense", {}, "bad_input_adapter", "it made dict, not a Batch"),
        ("no_iterator", {}, "bad_input_adapter", "it gave list, not an async iterator"),
    ],
)
def test_what_an_adapter_of_ones_own_cannot_do_fails_for_good(name: str, args: Any, code: str, says: str) -> None:
    @virtual
    async def check() -> None:
        async with stand_with({"relay": Relay}) as stand:
            await write(stand, "p", 1)
            report = await run(stand, "c", "relay", adapted(name, ["p"], **args))
            assert (report.error["code"], report.permanent) == (code, True)
            assert says in report.error["message"]

    check()


@virtual
async def test_a_function_is_told_that_adapters_are_for_classes() -> None:
    async def plain(inputs: Any) -> Any:
        return inputs

    async with stand_with([plain]) as stand:
        report = await run(stand, "c", "plain", adapted("scaled", ["p"]))
        assert (report.error["code"], report.permanent) == ("bad_input_adapter", True)
        assert "the handler of 'plain' is a function: give a RoleHandler" in report.error["message"]


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"pull.rechunk": files}, "'pull.rechunk' is built in"),
        ({"": files}, "has a name"),
        ({"x": 3}, "is an async generator function, not 3"),
        ({"x": lambda *rows: rows}, "use \\*\\*rows instead"),
    ],
)
def test_adapters_that_could_never_be_called_are_refused_when_the_worker_is_made(own: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Worker(handlers={"relay": Relay}, input_adapters=own)


def test_a_worker_tells_its_adapters() -> None:
    assert {"pull.from_artifacts", "scaled"} < set(Worker(handlers={"relay": Relay}, input_adapters=OWN).input_adapters)
    assert "pull.rechunk" in Worker(handlers={"relay": Relay}).input_adapters


async def test_a_graph_names_an_adapter_of_the_worker() -> None:
    async def numbers(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    graph = {
        "nodes": [
            {"node_id": "make", "type": "numbers", "inputs": {"n": 3}},
            {"node_id": "relay", "type": "relay", "depends_on": ["make"],
             "io": {"start_when": "first_batch",
                    "input_inline": {"input_adapter": "scaled", "input_args": {"from_nodes": ["make"], "by": 2}}}},
        ]
    }  # fmt: skip
    async with Embedded(handlers={"numbers": numbers, "relay": Relay}, input_adapters=OWN) as engine:
        result = await (await engine.submit(graph)).wait(20)
    assert [batch["n"] for batch in result.outputs["relay"]] == [0, 2, 2, 4]
