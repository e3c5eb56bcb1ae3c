"""The real services of the tests: found by address, else started here, else skipped loudly.

FLOWKIT_TEST_KAFKA and FLOWKIT_TEST_MONGO name running servers. FLOWKIT_TEST_REQUIRE=kafka,mongo,openbao makes it a
failure, not a skip, when a test cannot have its server.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import engine

from tests.shared import address_of, place_of_data

if TYPE_CHECKING:
    from pymongo.asynchronous.database import AsyncDatabase

    from deploy.local import OpenBaoServer
    from deploy.local.server import LocalServer

# The same examples each time, so that what fails was changed; `make nightly` looks for new ones, and for more.
settings.register_profile("every-day", derandomize=True, deadline=None, max_examples=50)
settings.register_profile("nightly", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "every-day"))
# Making a failure smaller has its own limit, five minutes, which is more than a test may take: the guard against hangs
# would end it, and hide what was found.
engine.MAX_SHRINKING_SECONDS = 60

# Hundreds of tests start Python, and an image may forbid it to keep what it compiled: to compile FlowKit takes each as
# long as all else that a start is.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# What is imported and collected now is there to stay.
gc.disable()

if place := place_of_data():
    os.environ.setdefault("FLOWKIT_TEST_DATA", place)

# Whoever waits most comes last, beside the one test that keeps the machine busy by itself.
LAST = "integration"
# The files of it that have tests, or a group of tests, of more than ten seconds.
LONG = ("test_transit", "test_children", "test_durability", "test_canaries", "test_limits", "test_streams")

SERVICES = ("kafka", "mongo", "openbao")
FIXTURE_OF = {"kafka": "kafka_address", "mongo": "mongo_url", "openbao": "openbao"}
SKIPPED = pytest.StashKey[dict[str, list[str]]]()


def required() -> set[str]:
    return {name.strip() for name in os.environ.get("FLOWKIT_TEST_REQUIRE", "").split(",") if name.strip()}


# Where the servers are.


@pytest.fixture(scope="session")
def of_this_run(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A folder that all processes of the run have, for what they share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if hasattr(request.config, "workerinput") else own


@pytest.fixture(scope="session")
def kafka_address(of_this_run: Path) -> str:
    """The bootstrap address of a real Kafka that all tests of the run share; do not crash it."""
    if address := os.environ.get("FLOWKIT_TEST_KAFKA"):
        return address

    from deploy.local import KafkaServer

    return _shared("kafka", of_this_run, KafkaServer, "address")


@pytest.fixture(scope="session")
def mongo_url(of_this_run: Path) -> str:
    """The URL of a real MongoDB that all tests of the run share; do not crash it."""
    if url := os.environ.get("FLOWKIT_TEST_MONGO"):
        return url

    from deploy.local import MongoServer

    return _shared("mongo", of_this_run, MongoServer, "url")


def _shared(service: str, folder: Path, kind: type[LocalServer], what: str) -> str:
    from deploy.local import ServiceUnavailable

    def start() -> str:
        server = kind()
        try:
            server.start()
        except ServiceUnavailable:
            server.close()
            raise
        return str(getattr(server, what))  # it closes itself when this process ends

    try:
        return address_of(service, folder, start)
    except ServiceUnavailable as error:
        _cannot_have(service, error)


@pytest.fixture(scope="session")
def openbao() -> Iterator[OpenBaoServer]:
    """A real OpenBao that all tests of the session share; each makes transit keys of its own."""
    from deploy.local import OpenBaoServer, ServiceUnavailable

    server = OpenBaoServer()
    try:
        server.start()
    except ServiceUnavailable as error:
        server.close()
        _cannot_have("openbao", error)
    server.ask("POST", "sys/mounts/transit", {"type": "transit"})
    yield server
    server.close()


@pytest.fixture
async def kafka_prefix(kafka_address: str) -> AsyncIterator[str]:
    """A prefix for topic names that no other test uses; the topics that carry it are deleted afterwards."""
    prefix = f"t{uuid.uuid4().hex[:12]}."
    yield prefix
    with suppress(Exception):  # a broker that the test spoilt must not spoil its result
        async with asyncio.timeout(10):
            await _delete_topics(kafka_address, prefix)


@pytest.fixture
async def mongo_database(mongo_url: str) -> AsyncIterator[AsyncDatabase]:
    """A fresh database in a client of this test's loop; dropped afterwards."""
    from pymongo import AsyncMongoClient

    async with AsyncMongoClient(mongo_url, serverSelectionTimeoutMS=10_000) as client:
        name = f"flowkit_test_{uuid.uuid4().hex[:16]}"
        yield client[name]
        with suppress(Exception):
            async with asyncio.timeout(10):
                await client.drop_database(name)


async def _delete_topics(address: str, prefix: str) -> None:
    from aiokafka.admin import AIOKafkaAdminClient

    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        if topics := [topic for topic in await admin.list_topics() if topic.startswith(prefix)]:
            await admin.delete_topics(topics)
    finally:
        await admin.close()


def _cannot_have(service: str, error: Exception) -> NoReturn:
    refuse: Callable[[str], NoReturn] = pytest.fail if service in required() else pytest.skip
    refuse(f"NO {service.upper()}: {error}")


# A test that needs a server and did not get it must be seen.


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for service, fixture in FIXTURE_OF.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(service)
    items.sort(key=turn_of)  # those of one turn stay in order


def pytest_collection_finish() -> None:
    """Thousands of tests, and all modules that they import, last to the end: a test that collects garbage, or makes
    much of it, need not have them looked at again."""
    gc.enable()
    gc.collect()
    gc.freeze()


def turn_of(item: pytest.Item) -> int:
    """Processes take tests from the front. What needs the whole machine, and measures how long things take, begins when
    only those are left that wait for real servers, real deaths and real time; of them, the longest begin first, so that
    nobody works alone in the end."""
    if LAST not in item.path.parts:
        return 0
    if item.get_closest_marker("crowd"):
        return 1
    return 2 if item.path.stem in LONG else 3


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # The report travels from an xdist worker to the one that counts; the item does not.
    if report.skipped and not hasattr(report, "wasxfail"):
        report.user_properties += [("service", name) for name in SERVICES if item.get_closest_marker(name)]
    return report


def pytest_configure(config: pytest.Config) -> None:
    if unknown := required() - set(SERVICES):
        raise pytest.UsageError(f"FLOWKIT_TEST_REQUIRE names {sorted(unknown)}; it knows {', '.join(SERVICES)}")
    config.stash[SKIPPED] = {name: [] for name in SERVICES}
    config.pluginmanager.register(_SkipCounter(config), "flowkit-skip-counter")


class _SkipCounter:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for key, service in report.user_properties:
            if key == "service" and isinstance(service, str):
                self._config.stash[SKIPPED][service].append(report.nodeid)


@pytest.hookimpl(tryfirst=True)  # before the summary's last line is coloured by the exit status
def pytest_sessionfinish(session: pytest.Session) -> None:
    skipped = session.config.stash[SKIPPED]
    if any(skipped[name] for name in required()) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for service, tests in config.stash[SKIPPED].items():
        if not tests:
            continue
        must = service in required()
        how = "python -m deploy.local install" if service == "openbao" else f"set FLOWKIT_TEST_{service.upper()}"
        end = "and FLOWKIT_TEST_REQUIRE demands them: the run FAILS" if must else how
        line = f"{len(tests)} TESTS DID NOT RUN FOR WANT OF {service.upper()}; {end}"
        terminalreporter.write_line(line, red=must, yellow=not must, bold=True)
