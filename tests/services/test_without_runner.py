"""A control unit on MongoDB without a node runner: its nodes run on whatever worker has the role `code`."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.services.stand import KEY, SCRIPT, Service, Site, held, sdk
from tests.services.test_whole_flow import COUNT, ENDS, ended, flow

pytestmark = [pytest.mark.kafka, pytest.mark.mongo, pytest.mark.xdist_group("without_runner")]


class House:
    """What stands on one database: the settings of its services, and those of its workers."""

    def __init__(self, site: Site, mongo_url: str, database: str, kafka: str, prefix: str) -> None:
        keys = {name: f"k1={base64.b64encode(os.urandom(32)).decode()}" for name in ("master", "tickets")}
        self.site = site
        self.db = mongo_url.replace("/?", f"/{database}?")
        self.common = {
            "KAFKA_BOOTSTRAP_SERVERS": kafka,
            "FLOWKIT_TOPIC_PREFIX": prefix,
            "FLOWKIT_GROUP": f"{prefix}coordinators",
        }
        self.tickets = {"FLOWKIT_TICKET_KEYS": keys["tickets"]}
        self.master = {"FLOWKIT_MASTER_KEYS": keys["master"]}
        self.to_mongo = {"MONGODB": mongo_url, "DB_NAME": database}

    def unit(self) -> Service:
        return self.site.start("control-unit", **self.to_mongo, **self.common, **self.tickets)

    def secrets(self) -> str:
        """Start the secret manager; where it is."""
        words = ("secrets", "serve", "--db", self.db, "--listen", "127.0.0.1:0")
        said = self.site.spawn("secrets", *words, **self.common, **self.tickets, **self.master).wait("manager at")
        return said.split("secret manager at ")[1].split(",")[0]

    def worker(self, name: str = "worker", **more: str) -> Service:
        started = self.site.spawn(name, "worker", "--role", "code", "--db", self.db, **self.common, **more)
        started.wait("serves code")
        return started


@pytest.fixture
def house(site: Site, mongo_url: str, mongo_database: Any, kafka_address: str, kafka_prefix: str) -> Iterator[House]:
    yield House(site, mongo_url, mongo_database.name, kafka_address, kafka_prefix)


def add(unit: Service, block: dict[str, Any]) -> str:
    return str(unit.good("POST", "/fcb/add", block)["flow_id"])


def test_its_nodes_wait_for_a_worker_and_look_their_secrets_up_there(house: House) -> None:
    unit, address = house.unit(), house.secrets()
    words = ("-m", "flowkit", "secrets", "set", "API_KEY", "--db", house.db)
    assert house.site.run(*words, said=KEY, **house.common, **house.master).returncode == 0
    shout = sdk('return ["count"], {"n": 0, "text": inputs["greeting"].upper()}, "shouted"')
    block = flow("greeter", {"name": "Ada"}, greeter=SCRIPT, shout=shout, count=COUNT, left=ENDS, right=ENDS)

    flow_id = add(unit, block)
    waiting = unit.good("GET", f"/fcb/{flow_id}")
    worker = house.worker(FLOWKIT_SECRETS_ADDRESS=address)
    view = unit.until(f"/fcb/{flow_id}", ended)

    assert "nodes run by workers with the role code" in unit.said
    assert waiting["status"] in ("queued", "running")
    assert view["status"] == "finished", view
    assert {name: (node["state"], node["runs"]) for name, node in view["nodes"].items()} == {
        "greeter": ("DONE", 1), "shout": ("DONE", 1), "count": ("DONE", 3), "left": ("DONE", 1), "right": ("DONE", 1)
    }  # fmt: skip
    assert "greeting Ada with [REDACTED]" in worker.said
    assert not [service.name for service in house.site.services.values() if KEY in service.said]


@pytest.mark.slow
def test_flows_go_on_when_the_worker_dies_and_the_trace_monitor_shows_them(house: House) -> None:
    house.common |= {"FLOWKIT_LEASE_TTL_SEC": "4", "FLOWKIT_HEARTBEAT_SEC": "1"}  # one of them is to run out
    unit = house.unit()
    monitor = house.site.start("trace-monitor", **house.to_mongo, **house.common)
    house.worker()
    go = house.site.folder / "go"
    hang = held(go, 'return ["last"], {"n": 7}, ""', first='await logger.info("hanging")')

    flow_id = add(unit, flow("hang", {}, hang=hang, last=ENDS))
    monitor.until(f"/flow/{flow_id}", lambda flow: bool(flow["traces"] and flow["traces"][0]["logs"]))
    house.site.services["worker"].end(signal.SIGKILL)
    go.touch()
    house.worker("other")
    view = unit.until(f"/fcb/{flow_id}", ended)

    assert view["status"] == "finished", view
    assert view["nodes"]["last"] == {"state": "DONE", "runs": 1}
    found = monitor.until(f"/flow/{flow_id}", lambda flow: flow["total_nodes"] >= 2)
    assert found["execution_path"][-1] == "last"


@pytest.mark.slow
def test_a_flow_is_cancelled_and_fails_where_its_nodes_run_elsewhere(house: House) -> None:
    unit = house.unit()
    worker = house.worker()
    hang = sdk('import asyncio\nawait asyncio.sleep(600)\nreturn [], {}, ""')
    endless = add(unit, flow("hang", {}, hang=hang))
    unit.until(f"/fcb/{endless}", lambda said: said["nodes"].get("hang", {}).get("state") == "RUNNING")

    unit.good("POST", f"/fcb/{endless}/cancel")
    cancelled = unit.until(f"/fcb/{endless}", ended)
    failing = add(unit, flow("bad", {}, bad=sdk('raise LookupError("no such shop")')))
    failed = unit.until(f"/fcb/{failing}", ended)

    assert cancelled["status"] == "cancelled"
    assert failed["status"] == "failed"
    assert "LookupError: no such shop" in failed["error"]["message"]
    assert worker.popen.poll() is None
    assert unit.ask("GET", "/health", token="").status == 200
