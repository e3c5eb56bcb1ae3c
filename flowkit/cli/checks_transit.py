"""What the doctor says about the roads: who could read along, and who could put in a word."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from flowkit.adapters.kafka_security import hosts_of, is_loopback
from flowkit.cli.checks import Finding, ok, warn
from flowkit.config import CommonSettings
from flowkit.connections import kafka_security
from flowkit.wire.seals import Seals

MOST_NAMED = 5


def of_kafka_road(cfg: CommonSettings) -> Finding:
    """Whether what goes to Kafka is encrypted, and who we are to it."""
    security = kafka_security(cfg)
    said = f"Kafka: {security.shown()}"
    abroad = not all(map(is_loopback, hosts_of(cfg.kafka_bootstrap)))
    if abroad and not security.tls:
        return warn("transit", said, "who is on the network reads along: kafka_security_protocol SASL_SSL")
    if security.tls and not security.check_hostname:
        return warn("transit", said, "who has any certificate of the CA can pose as a broker: kafka_check_hostname")
    return ok("transit", said)


def of_mongo_road(encrypted: bool, servers: Sequence[str]) -> Finding:
    """Whether what goes to MongoDB is encrypted."""
    said = f"MongoDB: {'TLS' if encrypted else 'not encrypted'}"
    if encrypted or all(map(is_loopback, hosts_of(",".join(servers)))):
        return ok("transit", said)
    return warn("transit", said, "who is on the network reads along: mongo_tls")


def of_seals(seals: Seals | None) -> Finding:
    """Whether messages are signed, and what becomes of others."""
    if seals is None:
        return ok("messages", "not signed: whoever may write to Kafka's topics is believed")
    said = f"signed with {seals.ring.own.key_id} of {len(seals.ring)} keys"
    if seals.require:
        return ok("messages", f"{said}; unsigned ones are refused")
    return warn("messages", f"{said}; unsigned ones are believed too", "message_signing=require, once all sign")


def of_signers(workers: Collection[str], unsigned: Collection[str]) -> Finding:
    """Which of the workers that answered signed it with a key that is known here."""
    if not unsigned:
        return ok("signatures", f"known for all of {len(workers)} workers")
    named = ", ".join(sorted(unsigned)[:MOST_NAMED]) + (", ..." if len(unsigned) > MOST_NAMED else "")
    return warn("signatures", f"none that is known here of {len(unsigned)} of {len(workers)} workers: {named}",
                "give them their pool's key, and this process all keys; until then message_signing=sign")  # fmt: skip
