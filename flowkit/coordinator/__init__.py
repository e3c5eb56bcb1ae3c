"""The control unit: decides about tasks, records what it decided, and sends out what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowkit.coordinator.coordinator import Coordinator as Coordinator

__all__ = ["Coordinator"]


def __getattr__(name: str) -> Any:
    if name == "Coordinator":
        from flowkit.coordinator.coordinator import Coordinator

        return Coordinator
    raise AttributeError(f"module 'flowkit.coordinator' has no attribute {name!r}")
