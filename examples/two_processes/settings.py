"""Where MongoDB is. Kafka's address is read from KAFKA_BOOTSTRAP_SERVERS, `localhost:9092` by default."""

from __future__ import annotations

import os

MONGO_URL = os.environ.get("MONGO_URL", "mongodb://localhost:27017/flowkit")
