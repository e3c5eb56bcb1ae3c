"""Five services beside each other on one SQLite file, once for all tests that do not harm them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.stand import KEY, Site, free_port

pytest.importorskip("fastapi")
pytest.importorskip("cryptography")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A place for services of a test's own."""
    here = Site(tmp_path)
    yield here
    here.close()


@pytest.fixture(scope="session")
def five(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """All five, by the names of their settings, and a secret."""
    here = Site(tmp_path_factory.mktemp("five"))
    try:
        start_five(here, {})
        yield here
    finally:
        here.close()


def start_five(here: Site, database: dict[str, str]) -> None:
    """The secrets are in a file of their own where the database is a file, which one process coordinates."""
    runner, secrets = free_port(), free_port()
    to_runner = {"NODE_RUNNER_ADDR": f"127.0.0.1:{runner}"}
    to_secrets = {"SECRET_MANAGER": f"http://127.0.0.1:{secrets}"}
    here.begin("secret-manager", PORT=secrets, ALLOW_GET="node-runner,npu", **database)
    here.begin("node-runner", PORT=runner, **to_secrets)
    here.begin("trace-monitor", **database)
    here.begin("npu", **to_runner, **to_secrets)
    here.begin("control-unit", **to_runner, **database)
    for service in here.services.values():
        service.ready()
    here.services["secret-manager"].good("POST", "/set", {"key": "API_KEY", "value": KEY})
    for service in here.services.values():
        service.well()
    here.services["node-runner"].until("/npu/all", lambda said: said["count"] == 1)


@pytest.hookimpl(tryfirst=True)  # before the groups are read
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What shares the five runs in one process."""
    for item in items:
        if "five" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("five"))
