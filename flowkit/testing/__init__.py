"""A whole cluster in one process for tests: `World`, `check_history`, `ManualClock`, and a pytest plugin.

python -m flowkit.testing run --seeds 0:300
python -m flowkit.testing trace 17
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowkit.lazy import lazily

if TYPE_CHECKING:
    from flowkit.clock import ManualClock
    from flowkit.testing.evidence import Asked, Evidence, Frozen, Start, Violation, read_store
    from flowkit.testing.history import check_history
    from flowkit.testing.ledger import LedgerFile
    from flowkit.testing.play import simulate
    from flowkit.testing.world import Report, World

_HOMES = {
    "ManualClock": "flowkit.clock",
    "Asked": "flowkit.testing.evidence",
    "Evidence": "flowkit.testing.evidence",
    "Frozen": "flowkit.testing.evidence",
    "Start": "flowkit.testing.evidence",
    "Violation": "flowkit.testing.evidence",
    "read_store": "flowkit.testing.evidence",
    "check_history": "flowkit.testing.history",
    "LedgerFile": "flowkit.testing.ledger",
    "simulate": "flowkit.testing.play",
    "Report": "flowkit.testing.world",
    "World": "flowkit.testing.world",
}

__all__ = [
    "Asked",
    "Evidence",
    "Frozen",
    "LedgerFile",
    "ManualClock",
    "Report",
    "Start",
    "Violation",
    "World",
    "check_history",
    "read_store",
    "simulate",
]

__getattr__ = lazily(__name__, _HOMES)
