"""One place on a real Kafka and MongoDB: a topic prefix, a group and a database that nobody else uses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from flowkit import Coordinator, CoordinatorConfig, Worker, WorkerConfig
from flowkit.client import Client


@dataclass(frozen=True)
class Site:
    kafka: str
    prefix: str
    db: str

    @property
    def settings(self) -> dict[str, Any]:
        return {"kafka_bootstrap": self.kafka, "topic_prefix": self.prefix}

    @property
    def environment(self) -> dict[str, str]:
        """For a process that reads its settings from there."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "FLOWKIT_TOPIC_PREFIX": self.prefix,
            "FLOWKIT_GROUP": f"{self.prefix}coordinators",
            "FLOWKIT_DB": self.db,
        }

    def coordinator(self, **settings: Any) -> Coordinator:
        group = f"{self.prefix}coordinators"
        return Coordinator(db=self.db, cfg=CoordinatorConfig(**self.settings, group=group, **settings))

    def worker(self, handlers: Any, **settings: Any) -> Worker:
        return Worker(db=self.db, cfg=WorkerConfig(**self.settings, **settings), handlers=handlers)

    def client(self) -> Client:
        return Client(db=self.db, cfg=CoordinatorConfig(**self.settings))


def database_url(server: str, name: str) -> str:
    return urlunsplit(urlsplit(server)._replace(path=f"/{name}"))


async def until(
    what: str, holds: Callable[[], Coroutine[Any, Any, Any] | Any], *, timeout: float = 60.0, every: float = 0.05
) -> Any:
    """Wait until something holds, and give it; fail with its name, and with what it was last, if it never does."""
    last: Any = None
    try:
        async with asyncio.timeout(timeout):
            while True:
                answer = holds()
                last = await answer if asyncio.iscoroutine(answer) else answer
                if last:
                    return last
                await asyncio.sleep(every)
    except TimeoutError:
        raise AssertionError(f"not within {timeout:g} s: {what}; the last answer was {last!r}") from None
