"""The verbs of tasks for a process that coordinates nothing, beside one that does."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowkit.client import Client
from flowkit.coordinator.coordinator import Coordinator
from flowkit.errors import ConfigError, FlowKitError, RequestRefused, StoreUnavailable, TaskNotFound, WaitTimeout
from tests.cli.conftest import HELLO, Begin, command, node

VERBS = (
    "create_task", "create_tasks", "task", "get_task", "list_tasks", "wait_task", "cancel_task", "pause_task",
    "resume_task", "restart_task", "explain", "watch", "put_flow", "get_flow", "list_flows", "list_flow_versions",
    "tag_flow", "untag_flow", "diff_flows", "validate_graph", "start", "stop",
)  # fmt: skip
GRAPH: dict[str, Any] = {"nodes": [node("a", "nobody_serves_this")]}


@pytest.mark.parametrize("verb", VERBS)
def test_a_client_has_the_coordinator_s_verbs(verb: str) -> None:
    assert callable(getattr(Client, verb))
    assert callable(getattr(Coordinator, verb))


async def test_what_a_client_creates_waits_for_a_coordinator(folder: Path) -> None:
    async with Client(db="flow.db") as client:
        task_id = await client.create_task(graph=HELLO, params={"name": "Ada"}, labels={"by": "me"})
        many = await client.create_tasks([{"graph": GRAPH, "idempotency_key": "k"}] * 2)

        assert await client.coordinated() is False
        assert (await client.get_task(task_id)).status == "queued"
        assert len(set(many)) == 1
        assert [head.task_id for head in (await client.list_tasks(labels={"by": "me"})).heads] == [task_id]
        with pytest.raises(WaitTimeout):
            await client.wait_task(task_id, timeout=0.05)


def test_three_processes_create_run_and_read_one_task(begin: Begin, folder: Path) -> None:
    create = (
        "import asyncio, json, flowkit.client as c\n"
        "async def main():\n"
        "    async with c.Client(db='flow.db') as client:\n"
        "        print(await client.create_task(graph=json.load(open('hello.json')), params={'name': 'Ada'}))\n"
        "asyncio.run(main())\n"
    )
    (folder / "create.py").write_text(create)
    task_id = subprocess.run([sys.executable, "create.py"], capture_output=True, text=True, check=True).stdout.strip()
    assert "queued" in command(folder, "tasks", "show", task_id, "--db", "flow.db").out

    worker = begin("worker", "app", "--db", "flow.db")
    watched = command(folder, "tasks", "watch", task_id, "--db", "flow.db")
    worker.signal(signal.SIGTERM)
    assert worker.finish().code == 0

    shown = command(folder, "tasks", "show", task_id, "--db", "flow.db").out
    assert "ended" in watched.out.splitlines()[-1]
    assert shown.endswith('output:\n"HELLO ADA!"\n')


async def test_a_client_hears_of_another_process(begin: Begin, folder: Path) -> None:
    async with Client(db="flow.db") as client:
        task_id = await client.create_task(graph=HELLO, params={"name": "Ada"})
        begin("worker", "app", "--db", "flow.db")
        result = await client.wait_task(task_id, timeout=30)
        events = [event.type async for event in client.watch(task_id)]
        coordinated = await client.coordinated()

    assert (result.output, coordinated) == ("HELLO ADA!", True)
    assert events[-1] == "ended"


async def test_in_one_process_the_file_stays_the_coordinator_s(folder: Path) -> None:
    async with Coordinator(db="flow.db") as coordinator, Client(db="flow.db") as client:
        assert await client.coordinated() is True
        assert await client.coordinated() is True
        assert (await coordinator.runtime.store.describe())["owner"]


async def test_requests_are_answered_by_the_coordinator(folder: Path) -> None:
    async with Coordinator(db="flow.db") as coordinator, Client(db="flow.db") as client:
        task_id = await client.create_task(graph=GRAPH)
        with pytest.raises(WaitTimeout):
            await coordinator.wait_task(task_id, timeout=0.3)

        await client.pause_task(task_id, reason="lunch")
        assert (await client.get_task(task_id)).status == "paused"
        with pytest.raises(RequestRefused, match="it is paused, not running"):
            await client.pause_task(task_id)
        await client.resume_task(task_id)
        assert (await client.get_task(task_id)).status == "running"
        with pytest.raises(RequestRefused, match="only a task that has ended"):
            await client.restart_task(task_id)
        assert await client.cancel_task(task_id)
        assert (await client.wait_task(task_id, timeout=60)).status == "cancelled"
        await client.restart_task(task_id)
        assert (await client.get_task(task_id)).generation == 1
        assert (await client.task(task_id).view()).status == "running"


async def test_requests_that_nobody_answers_are_written_down_at_once(folder: Path) -> None:
    async with Client(db="flow.db") as client:
        task_id = await client.create_task(graph=GRAPH)
        async with asyncio.timeout(60):
            await client.pause_task(task_id)
            await client.restart_task(task_id)

        requests = await client.api.store.read_requests(task_id)

    assert [(request.kind, request.applied) for request in requests] == [("pause", False), ("restart", False)]


async def test_a_request_that_was_not_written_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Client(db="flow.db") as client:
        task_id = await client.create_task(graph=GRAPH)

        async def never(request: object) -> None:
            await asyncio.sleep(60)

        monkeypatch.setattr(client.api._steering._asking, "_insert", never)
        with pytest.raises(StoreUnavailable, match="could not be written"):
            await client.pause_task(task_id)


async def test_unknown_tasks_are_refused(folder: Path) -> None:
    async with Client(db="flow.db") as client:
        assert await client.cancel_task("nobody") is False
        for request in (client.pause_task, client.resume_task, client.restart_task, client.get_task, client.explain):
            with pytest.raises(TaskNotFound):
                await request("nobody")


async def test_a_client_is_started_once_and_used_only_then(folder: Path) -> None:
    client = Client(db="flow.db")
    with pytest.raises(FlowKitError, match="the client is not running"):
        await client.get_task("x")
    await client.start()
    with pytest.raises(ConfigError, match="started already"):
        await client.start()
    await client.stop()
    await client.stop()
    async with client:
        assert (await client.list_tasks()).heads == []
