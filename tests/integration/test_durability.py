"""What was accepted lives on in the store alone: processes come and go, and one task goes through all of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy.local import KafkaServer, MongoServer
from tests.integration.harness.processes import ROOT
from tests.integration.site import Site, database_url, until

ON_KAFKA = [pytest.mark.kafka, pytest.mark.mongo]
# A lost lease is not what is tested here; `test_kills.py` has the times that everybody has.
SOON = {"FLOWKIT_LEASE_TTL_SEC": "4", "FLOWKIT_HEARTBEAT_SEC": "0.8"}

# Each script is what a user would write. The first dies the moment that it has the id, without a farewell.
CREATE = """
    import asyncio, os
    from flowkit import Coordinator

    GRAPH = {
        "nodes": [
            {"node_id": "load", "type": "load"},
            {"node_id": "double", "type": "double", "depends_on": ["load"]},
            {"node_id": "add", "type": "add", "inputs": {"a": {"$from": "load"}, "b": {"$from": "double"}}},
        ],
        "output": {"sum": {"$from": "add"}},
    }

    async def main():
        coordinator = Coordinator(db=os.environ["FLOWKIT_DB"])
        await coordinator.start()
        task_id = await coordinator.create_task(graph=GRAPH, params={"n": 7}, labels={"made": "elsewhere"})
        os.write(1, task_id.encode())
        os._exit(0)

    asyncio.run(main())
"""

# With SLOW set, the second node takes for ever: the process is killed in it.
FINISH = """
    import asyncio, os, sys
    from flowkit import Coordinator, Worker

    def note(what):
        with open(os.environ["RUNS"], "a") as file:
            file.write(what + chr(10))

    async def load(n):
        note("load")
        return n

    async def double(n):
        note("double")
        if os.environ.get("SLOW"):
            await asyncio.sleep(600)
        return 2 * n

    async def add(a, b):
        note("add")
        return a + b

    async def main():
        db = os.environ["FLOWKIT_DB"]
        async with Coordinator(db=db) as coordinator, Worker(db=db, handlers=[load, double, add]):
            result = await coordinator.wait_task(sys.argv[1], timeout=50)
            print(result.status)

    asyncio.run(main())
"""

READ = """
    import asyncio, json, os, sys
    from flowkit import Coordinator

    async def main():
        async with Coordinator(db=os.environ["FLOWKIT_DB"]) as coordinator:
            view = await coordinator.get_task(sys.argv[1])
            heads = (await coordinator.list_tasks(labels={"made": "elsewhere"})).heads
            print(json.dumps({
                "status": view.status, "output": view.output, "params": view.params,
                "nodes": {name: [node.state, node.attempts, node.output] for name, node in view.nodes.items()},
                "listed": [head.task_id for head in heads],
            }))

    asyncio.run(main())
"""


@pytest.fixture
def in_a_file(tmp_path: Path) -> dict[str, str]:
    return {"FLOWKIT_DB": f"sqlite:///{tmp_path}/flow.db"}


@pytest.fixture
def on_servers(site: Site) -> dict[str, str]:
    return site.environment


WHERE = [
    pytest.param("in_a_file", id="sqlite"),
    pytest.param("on_servers", id="kafka-mongo", marks=ON_KAFKA),
]


class People:
    """Runs scripts, each in a process of its own, all on the same place."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.environment = {**os.environ, **environment, "RUNS": str(folder / "runs"), "PYTHONPATH": str(ROOT)}
        self.runs_file = folder / "runs"
        self.runs_file.touch()

    def start(self, script: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), *arguments],
            env={**self.environment, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, script: str, *arguments: str, **environment: str) -> str:
        process = self.start(script, *arguments, **environment)
        try:
            out, err = process.communicate(timeout=150)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"it did not end: {process.communicate()}") from None
        assert process.returncode == 0, err
        return out.strip()

    @property
    def runs(self) -> Counter[str]:
        return Counter(self.runs_file.read_text().split())


@pytest.fixture(params=WHERE)
def people(request: pytest.FixtureRequest, tmp_path: Path) -> People:
    return People(tmp_path, request.getfixturevalue(request.param))


def expected(task_id: str, **attempts: int) -> dict[str, Any]:
    return {
        "status": "finished",
        "output": {"sum": 21},
        "params": {"n": 7},
        "nodes": {
            "load": ["finished", 1, 7],
            "double": ["finished", attempts.get("double", 1), 14],
            "add": ["finished", 1, 21],
        },
        "listed": [task_id],
    }


@pytest.mark.timeout(240)
def test_one_process_creates_another_finishes_and_a_third_reads(people: People) -> None:
    task_id = people.run(CREATE)
    assert people.runs == {}
    assert people.run(FINISH, task_id) == "finished"
    assert people.runs == {"load": 1, "double": 1, "add": 1}
    assert json.loads(people.run(READ, task_id)) == expected(task_id)


@pytest.mark.timeout(240)
async def test_a_process_killed_in_the_middle_costs_only_what_it_was_running(people: People) -> None:
    task_id = people.run(CREATE)
    process = people.start(FINISH, task_id, SLOW="yes")
    try:
        await until("the second node runs", lambda: people.runs["double"], timeout=40)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()

    assert people.run(FINISH, task_id, **SOON) == "finished"
    assert people.runs == {"load": 1, "double": 2, "add": 1}
    assert json.loads(people.run(READ, task_id)) == expected(task_id, double=2)


@pytest.fixture
def own_servers(kafka_address: str, mongo_url: str) -> Iterator[tuple[KafkaServer, MongoServer]]:
    """Servers that may be crashed; the session's are not, but say whether there can be any."""
    with KafkaServer() as kafka, MongoServer() as mongo:
        yield kafka, mongo


@pytest.mark.timeout(240)
def test_crashes_of_both_servers_and_the_loss_of_all_that_kafka_had_lose_nothing(
    own_servers: tuple[KafkaServer, MongoServer], tmp_path: Path
) -> None:
    kafka, mongo = own_servers
    people = People(tmp_path, Site(kafka.address, "lost.", database_url(mongo.url, "lost")).environment)
    task_id = people.run(CREATE)

    kafka.kill()
    mongo.kill()
    shutil.rmtree(kafka.data_dir / "log")
    kafka.start()
    mongo.start()
    assert people.run(FINISH, task_id) == "finished"
    assert people.runs == {"load": 1, "double": 1, "add": 1}

    mongo.kill()
    mongo.start()
    assert json.loads(people.run(READ, task_id)) == expected(task_id)
