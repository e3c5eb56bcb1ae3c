"""Carries letters between tasks and limits: at once where both are owned here, else by `facts`. Any may be lost."""

from __future__ import annotations

from collections.abc import Callable

from flowkit.coordinator.cell import Item
from flowkit.coordinator.engine import Engine
from flowkit.coordinator.publisher import Publisher
from flowkit.core.permits import ToLimit, ToTask
from flowkit.wire.messages import Mail
from flowkit.wire.topics import partition_of


class Post:
    """`hear` is what a letter to a limit that is owned here is given to."""

    def __init__(self, engine: Engine, publisher: Publisher, partitions: int,
                 hear: Callable[[str, str, ToLimit], None]) -> None:  # fmt: skip
        self._engine = engine
        self._publisher = publisher
        self._partitions = partitions
        self._hear = hear

    def to_limit(self, limit_id: str, tenant: str, letter: ToLimit) -> None:
        partition = partition_of(limit_id, self._partitions)
        if partition in self._engine.owned:
            self._hear(limit_id, tenant, letter)
        else:
            self._publisher.tell(partition, Mail(limit_id, tenant, letter))

    def to_task(self, task_id: str, partition: int, tenant: str, letter: ToTask) -> None:
        """The engine decides about it in its next round."""
        if partition in self._engine.owned:
            self._engine.deliver(self._engine.get(task_id, partition), Item(letter, None, tenant))
        else:
            self._publisher.tell(partition, Mail(task_id, tenant, letter))
