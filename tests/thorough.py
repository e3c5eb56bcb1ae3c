"""How many examples a property is tried with: `make nightly` takes its time, and other examples each night."""

from __future__ import annotations

import os

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
SHARE = 3


def at_night(examples: int) -> int:
    """So many in `make nightly`, a third of them every day."""
    return examples if NIGHTLY else examples // SHARE
