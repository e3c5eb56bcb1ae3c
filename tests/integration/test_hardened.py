"""The configurations in `deploy/hardened` start real servers; only addresses, paths and how many copies there are
differ."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiokafka")
pytest.importorskip("pymongo")
pytest.importorskip("cryptography")

from deploy.local import kafka, mongo
from deploy.local.certificates import Authority, Certificate
from deploy.local.server import LocalServer, ServiceUnavailable, free_port, run
from flowkit.adapters.kafka import KafkaBus
from flowkit.adapters.kafka_security import KafkaSecurity
from flowkit.errors import BusUnavailable
from flowkit.wire.topics import Topics
from tests.conftest import _cannot_have
from tests.integration.guarded import HARDENED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ALONE = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
log.dirs={data}
"""


class Hardened(LocalServer):
    """Ready once its port is open."""

    def __init__(self, authority: Authority, text: str) -> None:
        super().__init__()
        self.port = free_port()
        self.certificate: Certificate = authority.issue("broker")
        self.authority = authority
        self.text = text

    def placed(self, changes: dict[str, object]) -> str:
        for old, new in changes.items():
            assert old in self.text, f"the file does not say {old} any more"
            self.text = self.text.replace(old, str(new))
        return self.text

    def _is_ready(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


class HardenedKafka(Hardened):
    name = "kafka"

    def _command(self) -> Sequence[str]:
        controller, secret = free_port(), self.data_dir / "broker.secret"
        secret.write_text("password=of-the-broker\n")
        data, properties, logging = (self.data_dir / name for name in ("data", "server.properties", "log.properties"))
        changes: dict[str, object] = {
            "0.0.0.0:9093": f"127.0.0.1:{self.port}",
            "0.0.0.0:9094": f"127.0.0.1:{controller}",
            "kafka-1.example:9093": f"127.0.0.1:{self.port}",
            "/etc/kafka/tls/broker.pem": self.certificate.both,
            "/etc/kafka/tls/ca.pem": self.authority.ca,
            "/etc/kafka/broker.secret": secret,
            "factor=3": "factor=1",
            "insync.replicas=2": "insync.replicas=1",
        }
        properties.write_text(self.placed(changes) + ALONE.format(controller=controller, data=data))
        logging.write_text(kafka.LOGGING)
        java = [kafka.find_java(), *kafka.JVM, f"-Dlog4j2.configurationFile={logging}", "-cp", f"{kafka.install()}/*"]
        users = {"broker": "of-the-broker", "admin": "of-the-admin"}
        scram = [f"SCRAM-SHA-512=[name={name},password={password}]" for name, password in users.items()]
        format_ = ["kafka.tools.StorageTool", "format", "-t", kafka._cluster_id(), "-c", str(properties)]
        run([*java, *format_, *(word for one in scram for word in ("--add-scram", one))], "formatting Kafka's storage")
        return [*java, "kafka.Kafka", str(properties)]


class HardenedMongo(Hardened):
    name = "mongod"

    def _command(self) -> Sequence[str]:
        (self.data_dir / "db").mkdir()
        changes: dict[str, object] = {
            "port: 27017": f"port: {self.port}",
            "0.0.0.0": "127.0.0.1",
            "/etc/mongo/tls/mongod.pem": self.certificate.both,
            "/etc/mongo/tls/ca.pem": self.authority.ca,
        }
        file = self.data_dir / "mongod.conf"
        file.write_text(f"{self.placed(changes)}storage:\n  dbPath: {self.data_dir / 'db'}\n")
        return [str(mongo.install()), "--config", str(file), "--nounixsocket"]


def started(server: Hardened) -> Hardened:
    try:
        server.start()
    except ServiceUnavailable as error:
        server.close()
        _cannot_have("kafka" if server.name == "kafka" else "mongo", error)
    return server


@pytest.mark.kafka
async def test_the_hardened_kafka_serves_who_logs_in_and_nobody_else(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = started(HardenedKafka(authority, (HARDENED / "kafka.properties").read_text()))
    try:
        login = KafkaSecurity(protocol="SASL_SSL", ca_file=str(authority.ca), user="admin", password="of-the-admin")
        bus = KafkaBus(f"127.0.0.1:{server.port}", security=login.options(), start_timeout=40.0)
        await bus.start()
        try:
            await bus.ensure_topics(Topics().specs())
        finally:
            await bus.stop()
        with pytest.raises(BusUnavailable, match="speaks TLS"):
            await KafkaBus(f"127.0.0.1:{server.port}", start_timeout=5.0).start()
    finally:
        server.close()


@pytest.mark.mongo
def test_the_hardened_mongod_speaks_tls_and_asks_for_a_login(tmp_path: Path) -> None:
    from pymongo import MongoClient
    from pymongo.errors import OperationFailure, PyMongoError

    authority = Authority(tmp_path)
    server = started(HardenedMongo(authority, (HARDENED / "mongod.conf").read_text()))
    options: dict[str, Any] = {"directConnection": True, "serverSelectionTimeoutMS": 3000}
    try:
        with MongoClient(f"127.0.0.1:{server.port}", tls=True, tlsCAFile=str(authority.ca), **options) as client:
            members = [{"_id": 0, "host": f"127.0.0.1:{server.port}"}]
            assert client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})["ok"] == 1.0
            with pytest.raises(OperationFailure, match="not authorized"):
                client["flowkit"]["tasks"].find_one()
        with MongoClient(f"127.0.0.1:{server.port}", **options) as plain, pytest.raises(PyMongoError):
            plain.admin.command("ping")
    finally:
        server.close()
