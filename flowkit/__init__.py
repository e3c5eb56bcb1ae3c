"""FlowKit: durable graphs of Python functions, embedded in one process or spread over Kafka and MongoDB.

Names are loaded when they are first used, so that importing the package costs next to nothing.

PYTEST_DONT_REWRITE: pytest would warn where FlowKit, which brings a plugin of pytest, was imported before it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowkit.client import Client as Client
    from flowkit.config import CoordinatorConfig as CoordinatorConfig
    from flowkit.config import WorkerConfig as WorkerConfig
    from flowkit.coordinator.coordinator import Coordinator as Coordinator
    from flowkit.coordinator.creation import Creation as Creation
    from flowkit.coordinator.views import TaskResult as TaskResult
    from flowkit.core.redaction import Redactor as Redactor
    from flowkit.embedded import Embedded as Embedded
    from flowkit.embedded import arun as arun
    from flowkit.embedded import run as run
    from flowkit.errors import Cancelled as Cancelled
    from flowkit.errors import FlowKitError as FlowKitError
    from flowkit.errors import GraphError as GraphError
    from flowkit.errors import Permanent as Permanent
    from flowkit.errors import Retry as Retry
    from flowkit.errors import TaskFailed as TaskFailed
    from flowkit.log import Logger as Logger
    from flowkit.node import Node as Node
    from flowkit.secrets.secrets import Secrets as Secrets
    from flowkit.worker.context import Context as Context
    from flowkit.worker.registry import handler as handler
    from flowkit.worker.results import Next as Next
    from flowkit.worker.stream import Stream as Stream
    from flowkit.worker.worker import Worker as Worker

__version__ = "0.1.0"

_HOMES = {
    "Cancelled": "flowkit.errors",
    "Client": "flowkit.client",
    "Context": "flowkit.worker.context",
    "Coordinator": "flowkit.coordinator.coordinator",
    "CoordinatorConfig": "flowkit.config",
    "Creation": "flowkit.coordinator.creation",
    "Embedded": "flowkit.embedded",
    "FlowKitError": "flowkit.errors",
    "GraphError": "flowkit.errors",
    "Logger": "flowkit.log",
    "Next": "flowkit.worker.results",
    "Node": "flowkit.node",
    "Permanent": "flowkit.errors",
    "Redactor": "flowkit.core.redaction",
    "Retry": "flowkit.errors",
    "Secrets": "flowkit.secrets.secrets",
    "Stream": "flowkit.worker.stream",
    "TaskFailed": "flowkit.errors",
    "TaskResult": "flowkit.coordinator.views",
    "Worker": "flowkit.worker.worker",
    "WorkerConfig": "flowkit.config",
    "arun": "flowkit.embedded",
    "handler": "flowkit.worker.registry",
    "run": "flowkit.embedded",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 - the keys are strings


def __getattr__(name: str) -> Any:
    # Not `lazily`: programs in sandboxes load this package, and nothing that they do not need.
    home = _HOMES.get(name)
    if home is None:
        from flowkit.lazy import unknown

        raise unknown(__name__, name, _HOMES)
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
