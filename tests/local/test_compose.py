"""docker-compose.yml gives what it says: its settings, taken as its images take them, start a broker and a mongod."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.local import KafkaServer, MongoServer
from deploy.local.server import free_port

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.xdist_group("servers_of_their_own")


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return services


def properties_of(environment: Mapping[str, Any]) -> dict[str, str]:
    """What the image apache/kafka makes of its environment: KAFKA_LOG_DIRS is log.dirs."""
    return {
        name.removeprefix("KAFKA_").lower().replace("_", "."): str(value)
        for name, value in environment.items()
        if name.startswith("KAFKA_") and name != "KAFKA_HEAP_OPTS"
    }


class ComposedKafka(KafkaServer):
    """A broker with the compose file's properties; only ports, the network's host name and the folder are its own."""

    def __init__(self, said: Mapping[str, str]) -> None:
        super().__init__()
        self._said = said
        self.network = f"127.0.0.1:{free_port()}"

    def _properties(self) -> str:
        own = {
            "kafka:19092": self.network,
            ":19092": f":{self.network.rpartition(':')[2]}",
            ":9092": f":{self.port}",
            ":9093": f":{self._controller_port}",
        }
        lines = []
        for name, value in self._said.items():
            if name == "log.dirs":
                value = str(self.data_dir / "log")
            for theirs, mine in own.items():
                value = value.replace(theirs, mine)
            lines.append(f"{name}={value}\n")
        return "".join(lines)


class ComposedMongo(MongoServer):
    """A mongod with the compose file's arguments; only the port, the folder and the address bound are its own."""

    def __init__(self, arguments: Sequence[str]) -> None:
        super().__init__()
        self._arguments = [word for word in arguments if word != "--bind_ip_all"]

    def _command(self) -> Sequence[str]:
        mongod, _, database, *_ = super()._command()
        own = ("--dbpath", database, "--bind_ip", "127.0.0.1", "--port", str(self.port), "--nounixsocket")
        return [mongod, *self._arguments, *own]


@pytest.fixture(scope="module")
def broker(kafka_address: str, services: dict[str, Any]) -> Iterator[ComposedKafka]:
    with ComposedKafka(properties_of(services["kafka"]["environment"])) as own:
        yield own


@pytest.mark.slow
@pytest.mark.kafka
async def test_its_broker_serves_this_machine_and_its_network_and_makes_no_topic_by_a_typo(
    broker: ComposedKafka,
) -> None:
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    for address in (broker.address, broker.network):
        admin = AIOKafkaAdminClient(bootstrap_servers=address)
        await admin.start()
        try:
            await admin.create_topics([NewTopic(f"at-{address.rpartition(':')[2]}", 1, 1)])
            brokers = (await admin.describe_cluster())["brokers"]
        finally:
            await admin.close()
        # Each is told to come back by the listener that it came in by.
        assert [f"{one['host']}:{one['port']}" for one in brokers] == [address.replace("127.0.0.1", brokers[0]["host"])]

    admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
    await admin.start()
    try:
        await admin.describe_topics(["a-typo"])
        topics = await admin.list_topics()
    finally:
        await admin.close()
    assert "a-typo" not in topics


@pytest.mark.slow
@pytest.mark.mongo
def test_its_mongod_becomes_the_replica_set_of_one_that_flowkit_needs(mongo_url: str, services: dict[str, Any]) -> None:
    from pymongo import MongoClient

    with ComposedMongo(services["mongo"]["command"]) as own, MongoClient[dict[str, Any]](own.url) as client:
        hello = client.admin.command("hello")
        assert (hello["setName"], hello["isWritablePrimary"]) == ("rs0", True)
        with client.start_session() as session, session.start_transaction():
            client["flowkit"]["tried"].insert_one({"_id": 1}, session=session)
        assert client["flowkit"]["tried"].count_documents({}) == 1


def test_it_publishes_nothing_beyond_this_machine_and_pins_what_it_runs(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert service["image"].rpartition(":")[2][0].isdigit(), name
        assert shlex.join(service["healthcheck"]["test"]).startswith("CMD "), name
