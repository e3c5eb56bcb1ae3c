"""A Kafka and a MongoDB that let nobody in without a certificate, a password and rights; and how to come in."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.local import KafkaServer, MongoServer
from deploy.local.certificates import Authority, Certificate
from deploy.local.kafka import Guard as KafkaGuard
from deploy.local.mongo import Guard as MongoGuard

HARDENED = Path(__file__).resolve().parents[2] / "deploy/hardened"
PASSWORDS = {
    "flowkit-coordinator": "canary-coordinator-4711",
    "flowkit-worker": "canary-worker-4712",
    "flowkit-app": "canary-app-4713",
}
ROLES = {
    "flowkit-coordinator": "flowkitCoordinator",
    "flowkit-worker": "flowkitWorker",
    "flowkit-app": "flowkitApp",
}
OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8}
RESOURCES = {"topic": 2, "group": 3}
PATTERNS = {"literal": 3, "prefixed": 4}
ALLOW = 3


@dataclass(frozen=True)
class Guarded:
    kafka: KafkaServer
    mongo: MongoServer
    authority: Authority
    stranger: Authority
    client: Certificate
    folder: Path

    def password_file(self, user: str) -> Path:
        path = self.folder / f"{user}.password"
        path.write_text(PASSWORDS[user] + "\n")
        return path

    def settings(self, user: str) -> dict[str, Any]:
        """For a process of this user."""
        return {
            "kafka_bootstrap": self.kafka.secure,
            "kafka_security_protocol": "SASL_SSL",
            "kafka_ca_file": str(self.authority.ca),
            "kafka_user": user,
            "kafka_password_file": str(self.password_file(user)),
            "mongo_url": f"mongodb://{self.mongo.address}/flowkit?replicaSet=rs0&authSource=flowkit",
            "mongo_tls": True,
            "mongo_ca_file": str(self.authority.ca),
            "mongo_user": user,
            "mongo_password_file": str(self.password_file(user)),
            "connect_timeout_sec": 5.0,
        }

    def environment(self, user: str) -> dict[str, str]:
        return {f"FLOWKIT_{name.upper()}": str(value) for name, value in self.settings(user).items()}


@contextmanager
def guarded(folder: Path) -> Iterator[Guarded]:
    """Raises ServiceUnavailable."""
    authority, stranger = Authority(folder / "ca"), Authority(folder / "stranger", "a stranger's CA")
    roles = json.loads((HARDENED / "mongo-roles.json").read_text())
    users = {user: (PASSWORDS[user], [role]) for user, role in ROLES.items()}
    kafka = KafkaServer(guard=KafkaGuard(authority, PASSWORDS, acls=True))
    mongo = MongoServer(guard=MongoGuard(authority, users, roles))
    try:
        kafka.start()
        mongo.start()
        yield Guarded(kafka, mongo, authority, stranger, authority.issue("flowkit-worker"), folder)
    finally:
        kafka.close()
        mongo.close()


async def grant(address: str, prefix: str) -> int:
    """Give the rights of `kafka-acls.sh` to its users, for the topics of a prefix; the answer is how many."""
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.protocol.admin import CreateAclsRequest

    said = [shlex.split(line)[1:] for line in read_acls() if line.startswith("allow ")]
    rows = [
        (RESOURCES[kind], re.sub(r"\$\{PREFIX\}", prefix, name), PATTERNS[pattern], f"User:{user}", "*",
         OPERATIONS[operation], ALLOW)
        for user, operation, kind, name, pattern in said
    ]  # fmt: skip
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        for row in rows:
            answer = await admin._send_request(CreateAclsRequest(*row))
            assert [response[0] for response in answer.creation_responses] == [0], (row, answer)
    finally:
        await admin.close()
    return len(rows)


def read_acls() -> list[str]:
    return (HARDENED / "kafka-acls.sh").read_text().splitlines()


def scrubbed() -> dict[str, str]:
    """This process's environment without FlowKit's settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("FLOWKIT_", "KAFKA_"))}
