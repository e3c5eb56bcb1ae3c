"""Metrics for Prometheus. Needs the extra `prometheus`; nothing of it is imported unless it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowkit.metrics.metrics import Metrics as Metrics

__all__ = ["Metrics"]


def __getattr__(name: str) -> Any:
    if name != "Metrics":
        raise AttributeError(f"module 'flowkit.metrics' has no attribute {name!r}")
    from flowkit.metrics.metrics import Metrics

    return Metrics
