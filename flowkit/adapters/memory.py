"""The in-process twins of the store and the bus."""

from __future__ import annotations

from flowkit.adapters.memory_broker import MemoryBroker
from flowkit.adapters.memory_bus import MemoryBus
from flowkit.adapters.memory_data import MemoryData
from flowkit.adapters.memory_store import MemoryStore

__all__ = ["MemoryBroker", "MemoryBus", "MemoryData", "MemoryStore"]
