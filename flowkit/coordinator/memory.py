"""How much the tasks in memory weigh, and whether that is too much (rule 14)."""

from __future__ import annotations

from flowkit.coordinator.cell import Cell


class TaskMemory:
    """The weight of the cells of one coordinator: the text of the commits that their states are the fold of, a measure
    that is at hand and grows with all that grows. In Python's memory it is several times as much."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.bytes = 0

    @property
    def full(self) -> bool:
        """Whether whoever only waits should leave now, not after a while."""
        return self.bytes > self._most_bytes

    def add(self, cell: Cell, size: int) -> None:
        """So many bytes more were committed, or loaded."""
        cell.bytes += size
        self.bytes += size

    def drop(self, cell: Cell) -> None:
        self.bytes -= cell.bytes
        cell.bytes = 0
