"""A real Kafka, MongoDB and OpenBao on this machine, for development and tests, without a container engine."""

from __future__ import annotations

from deploy.local.kafka import KafkaServer
from deploy.local.mongo import MongoServer
from deploy.local.openbao import OpenBaoServer
from deploy.local.server import ServiceUnavailable

__all__ = ["KafkaServer", "MongoServer", "OpenBaoServer", "ServiceUnavailable"]
