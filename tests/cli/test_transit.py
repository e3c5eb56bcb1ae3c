"""What the doctor says about the roads and the signatures."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("aiokafka")

from flowkit import CoordinatorConfig
from flowkit.cli.checks_transit import of_kafka_road, of_mongo_road, of_seals, of_signers
from tests.wire.test_seals import seals

LOGIN = {"kafka_security_protocol": "SASL_SSL", "kafka_user": "ada", "kafka_password": "canary"}


@pytest.mark.parametrize(
    ("given", "level", "words"),
    [
        ({"kafka_bootstrap": "localhost:9092"}, "ok", "not encrypted"),
        ({"kafka_bootstrap": "kafka:9092"}, "warn", "not encrypted"),
        ({**LOGIN, "kafka_bootstrap": "kafka:9092"}, "ok", "Kafka: TLS, SCRAM-SHA-512 as 'ada'"),
        ({**LOGIN, "kafka_check_hostname": False}, "warn", "the brokers' names are not checked"),
    ],
)
def test_the_road_to_kafka(given: dict[str, Any], level: str, words: str) -> None:
    found = of_kafka_road(CoordinatorConfig(**given))
    assert (found.subject, found.level) == ("transit", level)
    assert words in found.message
    assert "canary" not in found.message
    assert bool(found.hint) == (level == "warn")


def test_the_road_to_mongodb() -> None:
    assert of_mongo_road(True, ["db:27017"]).message == "MongoDB: TLS"
    assert of_mongo_road(False, ["127.0.0.1:27017"]).level == "ok"
    assert of_mongo_road(False, ["127.0.0.1:27017", "db:27017"]).level == "warn"


def test_signatures() -> None:
    assert "whoever may write" in of_seals(None).message
    both = ("coordinator/2", "plain/1")
    assert of_seals(seals(*both)).message == "signed with coordinator/2 of 2 keys; unsigned ones are refused"
    assert of_seals(seals(*both, require=False)).level == "warn"
    assert of_signers(["plain/w"], set()).message == "known for all of 1 workers"
    found = of_signers(["plain/w", "w-1"], {"w-1"})
    assert (found.level, found.message) == ("warn", "none that is known here of 1 of 2 workers: w-1")
