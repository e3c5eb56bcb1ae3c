"""The coordinator under the name that older code imports it by."""

from flowkit.coordinator.coordinator import Coordinator

__all__ = ["Coordinator"]
