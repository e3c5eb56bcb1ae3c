"""The topics, how keys choose partitions, and who writes what where (architecture, section 2)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from flowkit.ports import TopicSpec

FLEET_PARTITIONS = 4
WORK_PARTITIONS = 8
EVENT_PARTITIONS = 4
STREAM_PARTITIONS = 8
LOG_PARTITIONS = 8
SHORT_RETENTION_SEC = 600.0
LOG_RETENTION_SEC = 86_400.0
"""So long whoever writes log lines down may be away."""
MAX_MESSAGE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Topics:
    """Topic names under one prefix; `partitions` is the number of `facts` partitions, which tasks are divided into."""

    prefix: str = "flowkit."
    partitions: int = 8

    @property
    def facts(self) -> str:
        return f"{self.prefix}facts.v1"

    @property
    def work(self) -> str:
        return f"{self.prefix}work.v1"

    @property
    def fleet(self) -> str:
        return f"{self.prefix}fleet.v1"

    @property
    def control(self) -> str:
        return f"{self.prefix}control.v1"

    @property
    def events(self) -> str:
        return f"{self.prefix}events.v1"

    @property
    def streams(self) -> str:
        return f"{self.prefix}streams.v1"

    @property
    def logs(self) -> str:
        return f"{self.prefix}logs.v1"

    @property
    def dead(self) -> str:
        return f"{self.prefix}dead.v1"

    def specs(self) -> dict[str, TopicSpec]:
        """Every topic with its partitions and retention, as they are to be created."""
        return {
            self.facts: TopicSpec(self.partitions),
            self.work: TopicSpec(WORK_PARTITIONS, SHORT_RETENTION_SEC),
            self.fleet: TopicSpec(FLEET_PARTITIONS, SHORT_RETENTION_SEC),
            self.control: TopicSpec(1, SHORT_RETENTION_SEC),
            self.events: TopicSpec(EVENT_PARTITIONS),
            self.streams: TopicSpec(STREAM_PARTITIONS, SHORT_RETENTION_SEC),
            self.logs: TopicSpec(LOG_PARTITIONS, LOG_RETENTION_SEC),
            self.dead: TopicSpec(1),
        }


def partition_of(key: str, partitions: int) -> int:
    """The partition of a task, a worker or a sender: stable over processes, versions and languages (CRC-32)."""
    return zlib.crc32(key.encode("utf-8", "surrogatepass")) % partitions
