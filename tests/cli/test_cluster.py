"""The commands on a real Kafka and a real MongoDB: what differs from a file."""

from __future__ import annotations

import re
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from flowkit.wire.topics import Topics
from tests.cli.conftest import Begin, Cli, Process, Ran, command, furnish, node
from tests.cli.test_doctor import lines

# Those who share a house are not dealt out to processes that would each make one.
pytestmark = pytest.mark.xdist_group("house")

Write = Callable[..., Path]
On = Callable[..., Ran]


def services_of(kafka_address: str, prefix: str, mongo_url: str) -> Iterator[dict[str, str]]:
    name = f"flowkit_cli_{uuid.uuid4().hex[:12]}"
    yield {
        "KAFKA_BOOTSTRAP_SERVERS": kafka_address,
        "FLOWKIT_TOPIC_PREFIX": prefix,
        "FLOWKIT_DB": urlunsplit(urlsplit(mongo_url)._replace(path=f"/{name}")),
    }
    from pymongo import MongoClient

    with MongoClient(mongo_url) as client:
        client.drop_database(name)


@pytest.fixture
def services(kafka_address: str, kafka_prefix: str, mongo_url: str) -> Iterator[dict[str, str]]:
    """The environment of commands that run on services of their own: topics and a database that nobody else uses."""
    yield from services_of(kafka_address, kafka_prefix, mongo_url)


@pytest.fixture
def on(cli: Cli, services: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> On:
    """Runs a command on the services."""
    return within(cli, services, monkeypatch)


def within(cli: Cli, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> On:
    """Runs commands in this process: most of what one is as a process of its own is the start of Python."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return cli


@pytest.fixture(scope="module")
def house(
    kafka_address: str, mongo_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, str], Process, Process]]:
    """A coordinator and a worker of `app`, for all tests that leave them as they are; and the environment of commands
    that find them."""
    folder = tmp_path_factory.mktemp("house")
    furnish(folder)
    for services in services_of(kafka_address, f"t{uuid.uuid4().hex[:12]}.", mongo_url):
        coordinator = Process(folder, ("coordinator",), services)
        worker = Process(folder, ("worker", "app", "--label", "zone=eu"), services)
        try:
            coordinator.heard("coordinator c-")
            worker.heard("serves")
            yield services, coordinator, worker
        finally:
            worker.close()
            coordinator.close()


@pytest.fixture
def at_home(cli: Cli, house: tuple[dict[str, str], Process, Process], monkeypatch: pytest.MonkeyPatch) -> On:
    """Runs a command where a coordinator and a worker serve."""
    return within(cli, house[0], monkeypatch)


def test_a_graph_runs_on_the_cluster(at_home: On, folder: Path, house: tuple[dict[str, str], Process, Process]) -> None:
    ran = command(folder, "run", "hello.json", "-p", "name=Ada", "--label", "by=me", **house[0])

    assert (ran.code, ran.out) == (0, '"HELLO ADA!"\n')
    assert [line.split()[:2] for line in ran.err.splitlines()[1:3]] == [["hi", "finished"], ["loud", "finished"]]
    (task_id,) = re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", at_home("tasks", "list", "--label", "by=me").out)
    assert at_home("tasks", "show", task_id).out.endswith('output:\n"HELLO ADA!"\n')
    assert at_home("tasks", "watch", task_id).out.splitlines()[-1].endswith("ended")


def test_a_run_with_handlers_serves_them_itself(begin: Begin, on: On, services: dict[str, str]) -> None:
    begin("coordinator", **services).heard("coordinator c-")

    ran = on("run", "hello.json", "--handlers", "app", "-p", "name=Ada")

    assert (ran.code, ran.out) == (0, '"HELLO ADA!"\n')


def test_a_node_that_nobody_serves_says_so(
    begin: Begin, at_home: On, house: tuple[dict[str, str], Process, Process], write: Write
) -> None:
    run = begin("run", write(node("a", "gret")), **house[0])
    run.heard("node 'a' waits: no live worker serves 'gret' (did you mean 'greet'?)")
    run.signal(signal.SIGINT)
    ran = run.finish()

    assert ran.code == 130
    (task_id,) = re.findall(r"--resume (\S+)", ran.err)
    told = at_home("tasks", "explain", task_id)
    assert told.out == "no_worker    node 'a' waits: no live worker serves 'gret' (did you mean 'greet'?)\n"
    assert at_home("tasks", "cancel", task_id).code == 0  # the house is others' too


def test_a_task_that_nobody_coordinates_says_so(begin: Begin, services: dict[str, str]) -> None:
    run = begin("run", "hello.json", "-p", "name=Ada", **services)
    run.heard("no coordinator has taken the task up yet; does one run? (flowkit coordinator)")


def test_tasks_are_steered_from_outside(at_home: On, write: Write) -> None:
    graph = write(node("a", "wait", inputs={"seconds": 3600}), node("b", "wait", "a", inputs={"seconds": 0}))
    late = at_home("run", graph, "--timeout", "2")
    assert late.code == 3
    (task_id,) = re.findall(r"--resume (\S+)", late.err)

    assert at_home("tasks", "pause", task_id).out == f"task {task_id} is paused\n"
    refused = at_home("tasks", "pause", task_id)
    assert (refused.code, "it is paused, not running" in refused.err) == (1, True)
    assert at_home("tasks", "resume", task_id, "--json").json["applied"] is True
    assert at_home("tasks", "cancel", task_id, "--node", "a").code == 0
    assert "cancelled" in at_home("tasks", "watch", task_id).out
    assert at_home("tasks", "show", task_id, "--json").json["nodes"]["a"]["state"] == "cancelled"


def test_a_pure_client_joins_no_group(at_home: On) -> None:
    at_home("run", "hello.json", "-p", "name=Ada")
    at_home("tasks", "list")

    assert lines(at_home("doctor").out)["coordinator"][1].startswith("1 in the group")


def test_the_doctor_sees_the_whole_house(at_home: On) -> None:
    at_home("run", "hello.json", "-p", "name=Ada")

    ran = at_home("doctor")

    found = lines(ran.out)
    assert ran.code == 0, ran.out
    # What is said of the sandbox depends on the machine: tests/cli/test_doctor.py sets that up.
    doubts = {subject: level for subject, (level, _) in found.items() if level != "ok" and subject != "sandbox"}
    assert doubts == {"mongo": "warn"}
    assert found["workers"][1].startswith("1 answered the roll call: they serve fail, flaky, greet, ")
    assert found["topics"][1].count("(") == len(Topics().specs())
    assert found["dead"] == ("ok", "letters: none")
    assert at_home("doctor", "--json").json["ok"] is True


def test_the_doctor_leaves_an_empty_house_empty(on: On, services: dict[str, str], mongo_url: str) -> None:
    for _ in range(2):
        ran = on("doctor")
        found = lines(ran.out)
        assert ran.code == 0
        assert found["topics"][1].startswith("not there: ")
        assert found["tasks"] == ("ok", "there are none yet")

    from pymongo import MongoClient

    with MongoClient(mongo_url) as client:
        assert urlsplit(services["FLOWKIT_DB"]).path.strip("/") not in client.list_database_names()


def test_the_doctor_sees_other_settings(at_home: On) -> None:
    ran = at_home("doctor", "--set", "facts_partitions=3")

    assert ran.code == 1
    assert "has 8 partitions, not 3; set FLOWKIT_FACTS_PARTITIONS to that" in ran.out


def test_the_doctor_tells_of_services_that_are_away(folder: Path) -> None:
    ran = command(folder, "doctor", "--db", "mongodb://ada:s3cret@127.0.0.1:1/x", "--kafka", "127.0.0.1:1")

    found = lines(ran.out)
    assert ran.code == 1
    assert found["mongo"][0] == found["kafka"][0] == "FAIL"
    assert "start it, or name it: --kafka HOST:PORT" in found["kafka"][1]
    assert "s3cret" not in ran.out + ran.err


def test_a_service_goes_on_trying(begin: Begin, services: dict[str, str]) -> None:
    away = services | {"FLOWKIT_DB": "mongodb://ada:s3cret@127.0.0.1:1/x", "FLOWKIT_CONNECT_TIMEOUT_SEC": "1"}
    worker = begin("worker", "app", **away)

    said = worker.heard("trying again in 2 s")

    assert "connecting to mongodb://127.0.0.1:1/x and Kafka at " in said
    assert "[E_STORE_UNAVAILABLE]; trying again in 1 s" in said
    assert "s3cret" not in said
    worker.signal(signal.SIGTERM)
    began = time.monotonic()
    assert worker.finish().code == 0
    assert time.monotonic() - began < 20


def test_workers_and_coordinators_stop_in_order(begin: Begin, on: On, services: dict[str, str]) -> None:
    coordinator, worker = begin("coordinator", **services), begin("worker", "app", **services)
    coordinator.heard("coordinator c-")
    worker.heard("serves")
    for process in (worker, coordinator):
        process.signal(signal.SIGTERM)
        ran = process.finish()
        assert (ran.code, ran.err.splitlines()[-1]) == (0, "flowkit: stopped")
        assert "Traceback" not in ran.err

    assert "none is in the group" in on("doctor").out
