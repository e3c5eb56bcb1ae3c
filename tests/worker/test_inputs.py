"""A job's inputs are put together from what travelled and from what stands in the artifact store."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from flowkit.core.payload import Artifact
from flowkit.core.reports import Failed, Succeeded
from flowkit.wire.codec import dumps, loads
from flowkit.wire.messages import pack_artifacts
from tests.worker.stand import Stand, virtual


async def echo(inputs: Any) -> Any:
    return inputs


async def with_params(inputs: Any, ctx: Any) -> Any:
    return [inputs, ctx.params]


async def kept(stand: Stand, value: Any, path: tuple[str | int, ...] = ()) -> Artifact:
    data = value if isinstance(value, bytes) else dumps(value)
    ref = hashlib.sha256(data).hexdigest()
    await stand.store.put_blob(ref, data, kind="artifact")
    return Artifact(ref, len(data), "bytes" if isinstance(value, bytes) else "json", path)


async def output(stand: Stand, role: str, inputs: Any, **more: Any) -> Any:
    report = await stand.run(role, inputs, **more)
    assert isinstance(report, Succeeded), report
    artifact = report.output.artifact
    if artifact is None:
        return report.output.value
    blob = await stand.store.get_blob(artifact.ref, kind="artifact")
    return blob if artifact.kind == "bytes" else loads(blob)


@virtual
async def test_artifacts_stand_where_they_belong() -> None:
    async with Stand([echo]) as stand:
        rows = await kept(stand, {"rows": [[1, 2], [3, 4]]}, ("rows", 1))
        whole = await kept(stand, ["a"])
        places = pack_artifacts([(("list", 0, "x"), rows), (("y",), whole), (("z",), whole)])

        got = await output(stand, "echo", {"list": [{"x": None}], "y": None, "z": None}, artifacts=places)

        assert got == {"list": [{"x": [3, 4]}], "y": ["a"], "z": ["a"]}


@virtual
async def test_two_places_share_nothing() -> None:
    async def changes(a: Any, b: Any) -> Any:
        a.append("changed")
        return b

    async with Stand([changes]) as stand:
        same = await kept(stand, [1])
        got = await output(
            stand, "changes", {"a": None, "b": None}, artifacts=pack_artifacts([(("a",), same), (("b",), same)])
        )
        assert got == [1]


@virtual
async def test_an_artifact_may_be_all_of_the_inputs() -> None:
    async with Stand([echo]) as stand:
        assert await output(stand, "echo", None, artifacts=pack_artifacts([((), await kept(stand, {"a": 1}))])) == {
            "a": 1
        }


@virtual
async def test_bytes_come_as_bytes() -> None:
    async def size(data: bytes) -> int:
        assert isinstance(data, bytes)
        return len(data)

    async with Stand([size]) as stand:
        places = pack_artifacts([(("data",), await kept(stand, b"\x00\xff"))])
        assert await output(stand, "size", {"data": None}, artifacts=places) == 2


@virtual
async def test_a_large_body_is_fetched() -> None:
    async with Stand([with_params]) as stand:
        inner = await kept(stand, "deep")
        body = [{"big": "x" * 100_000, "a": None}, pack_artifacts([(("a",), inner)]), {"p": 1}]
        ref = (await kept(stand, body)).ref

        got = await output(stand, "with_params", None, body_ref=ref)

        assert got == [{"big": "x" * 100_000, "a": "deep"}, {"p": 1}]


@virtual
async def test_what_one_handler_returns_another_gets() -> None:
    async def makes() -> bytes:
        return b"\x01" * 200_000

    async with Stand([makes, echo]) as stand:
        made = await stand.run("makes")
        assert isinstance(made, Succeeded)
        assert made.output.artifact is not None
        assert (
            await output(stand, "echo", None, artifacts=pack_artifacts([((), made.output.artifact)]))
            == b"\x01" * 200_000
        )


@pytest.mark.parametrize("path", [("rows", 5), ("nothing",), ("rows", "x"), ("rows", 0, "deep")])
@virtual
async def test_a_path_that_leads_nowhere_is_bad_input(path: tuple[str | int, ...]) -> None:
    async with Stand([echo]) as stand:
        places = pack_artifacts([(("a",), await kept(stand, {"rows": [1]}, path))])
        report = await stand.run("echo", {"a": None}, artifacts=places)
        assert isinstance(report, Failed)
        assert (report.error["code"], report.permanent) == ("bad_input", True)


@virtual
async def test_an_artifact_that_is_gone_is_said_to_be() -> None:
    async with Stand([echo]) as stand:
        report = await stand.run("echo", {"a": None}, artifacts=pack_artifacts([(("a",), Artifact("gone", 1, "json"))]))
        assert isinstance(report, Failed)
        assert (report.error["code"], report.permanent) == ("artifact_missing", False)
        assert "gone" in report.error["message"]


@virtual
async def test_a_broken_body_is_a_failure() -> None:
    async with Stand([echo]) as stand:
        for body in ([1, 2], b"not JSON", {"a": 1}):
            report = await stand.run("echo", None, body_ref=(await kept(stand, body)).ref)
            assert isinstance(report, Failed)
            assert report.error["code"] == "E_CORRUPT"


@virtual
async def test_an_attempt_waits_while_the_store_is_away() -> None:
    async def large() -> bytes:
        return b"x"

    async with Stand([echo, large]) as stand:
        places = pack_artifacts([(("a",), await kept(stand, 5))])
        stand.store.away = True
        reading = stand.job("echo", {"a": None}, artifacts=places, run_sec=1.0)
        writing = stand.job("large", run_sec=1.0)
        await stand.send(reading, writing)
        await asyncio.sleep(20)
        await stand.read()
        assert stand.results(reading) == stand.results(writing) == []
        stand.store.away = False
        for job in (reading, writing):
            assert isinstance(await stand.result(job, timeout=6), Succeeded), "the wait is not the handler's time"


@virtual
async def test_it_does_not_wait_for_the_store_for_ever() -> None:
    async with Stand([echo]) as stand:
        places = pack_artifacts([(("a",), await kept(stand, 5))])
        stand.store.away = True
        job = stand.job("echo", {"a": None}, artifacts=places)
        await stand.send(job)
        report = await stand.result(job, timeout=80)
        assert isinstance(report, Failed)
        assert (report.error["code"], report.permanent) == ("E_STORE_UNAVAILABLE", False)


@virtual
async def test_a_stop_ends_the_wait_for_the_store() -> None:
    async with Stand([echo]) as stand:
        places = pack_artifacts([(("a",), await kept(stand, 5))])
        stand.store.away = True
        job = stand.job("echo", {"a": None}, artifacts=places)
        await stand.send(job)
        await asyncio.sleep(5)
        await stand.send(stand.stop_of(job))
        await stand.result(job, timeout=1)


@virtual
async def test_large_values_are_read_and_written_beside_the_loop() -> None:
    beside = 0

    async def run_sync(function: Any) -> Any:
        nonlocal beside
        beside += 1
        return function()

    async with Stand([echo], options={"run_sync": run_sync}) as stand:
        rows = list(range(100_000))
        assert await output(stand, "echo", None, artifacts=pack_artifacts([((), await kept(stand, rows))])) == rows
        assert beside == 2
