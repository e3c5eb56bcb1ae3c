"""The place where older code imports the worker from."""

from __future__ import annotations

from flowkit.config import WorkerConfig
from flowkit.worker.worker import Worker

__all__ = ["Worker", "WorkerConfig"]
