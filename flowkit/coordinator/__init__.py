"""The control unit: decides about tasks, records what it decided, and sends out what follows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkit.lazy import lazily

if TYPE_CHECKING:
    from flowkit.coordinator.coordinator import Coordinator as Coordinator

_HOMES = {"Coordinator": "flowkit.coordinator.coordinator"}

__all__ = ["Coordinator"]

__getattr__ = lazily(__name__, _HOMES)
