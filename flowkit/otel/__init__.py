"""OpenTelemetry spans of tasks, attempts and what travels for them. Needs the extra `otel`.

Nothing of it is imported unless it is asked for: `FLOWKIT_OTEL=1`, the standard OTEL_* variables, or `trace`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkit.lazy import lazily

if TYPE_CHECKING:
    from flowkit.otel.tracing import trace as trace

_HOMES = {"trace": "flowkit.otel.tracing"}

__all__ = ["trace"]

__getattr__ = lazily(__name__, _HOMES)
