from __future__ import annotations

from flowkit.testing.plugin import flowkit_world, manual_clock

__all__ = ["flowkit_world", "manual_clock"]
