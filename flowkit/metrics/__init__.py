"""Metrics for Prometheus. Needs the extra `prometheus`; nothing of it is imported unless it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkit.lazy import lazily

if TYPE_CHECKING:
    from flowkit.metrics.metrics import Metrics as Metrics

_HOMES = {"Metrics": "flowkit.metrics.metrics"}

__all__ = ["Metrics"]

__getattr__ = lazily(__name__, _HOMES)
