"""Which offsets of `facts` may be committed: those whose every item has had its effect acknowledged (rule 11)."""

from __future__ import annotations


class Receipt:
    """What is owed to one record: it is settled once each of its items is."""

    __slots__ = ("offset", "owed", "tracker")

    def __init__(self, tracker: OffsetTracker, offset: int, owed: int) -> None:
        self.tracker = tracker
        self.offset = offset
        self.owed = owed

    def settle(self) -> None:
        self.owed -= 1
        if self.owed == 0:
            self.tracker.settled(self.offset)


class OffsetTracker:
    """The records of one partition that were read and are not settled yet. `position` is the next offset to read."""

    def __init__(self) -> None:
        self.position = 0
        self._open: dict[int, None] = {}
        self._committed = -1

    def reached(self, end: int) -> bool:
        """Nothing before `end` is left to read; a tracker that has read nothing has nothing left to say."""
        return not self.position or self.position >= end

    def read(self, offset: int, items: int) -> Receipt:
        """A record with so many items was read."""
        if offset < self.position:
            self._open.clear()
            self._committed = -1
        self.position = offset + 1
        self._open[offset] = None
        receipt = Receipt(self, offset, max(1, items))
        if items == 0:
            receipt.settle()
        return receipt

    def settled(self, offset: int) -> None:
        self._open.pop(offset, None)

    def to_commit(self) -> int | None:
        """The offset to commit now, or None where nothing has moved since the last that was committed."""
        upto = next(iter(self._open), self.position)
        return upto if upto > max(self._committed, 0) else None

    def committed(self, offset: int) -> None:
        self._committed = offset
