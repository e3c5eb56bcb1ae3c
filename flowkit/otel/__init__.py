"""OpenTelemetry spans of tasks, attempts and what travels for them. Needs the extra `otel`.

Nothing of it is imported unless it is asked for: `FLOWKIT_OTEL=1`, the standard OTEL_* variables, or `trace`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowkit.otel.tracing import trace as trace

__all__ = ["trace"]


def __getattr__(name: str) -> Any:
    if name != "trace":
        raise AttributeError(f"module 'flowkit.otel' has no attribute {name!r}")
    from flowkit.otel.tracing import trace

    return trace
