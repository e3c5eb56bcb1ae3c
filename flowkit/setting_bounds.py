"""How small a number may be as a setting: with less, nothing would ever run, or be written."""

from __future__ import annotations

import math
from typing import Final

from flowkit.errors import ConfigError

ABOVE_ZERO: Final = frozenset({
    "accept_sec", "code_install_sec", "connect_timeout_sec", "head_sec", "heartbeat_sec", "lease_ttl_sec",
    "priority_ageing_sec", "sweep_sec",
})  # fmt: skip
FROM_ONE: Final = frozenset({
    "code_environments", "commit_flights", "facts_partitions", "max_commit_bytes", "max_output_bytes", "slots",
})  # fmt: skip
FROM_ZERO: Final = frozenset({
    "cache_bytes", "cancel_grace_sec", "code_cache_bytes", "drain_sec", "evict_after_sec", "log_bytes", "log_lines",
    "metrics_tenants", "prefetch", "retention_failed_sec", "retention_logs_sec", "retention_sec", "snapshot_bytes",
    "started_after_sec", "sticky_patience_sec",
})  # fmt: skip
OR_NONE: Final = frozenset({"retention_failed_sec", "retention_logs_sec", "retention_sec"})


def check_number(owner: str, name: str, value: object) -> None:
    """Raises `ConfigError` for a number that a setting cannot be."""
    rule = _rule(name)
    if not rule or (value is None and name in OR_NONE):
        return
    number = isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    if number and _fits(name, float(value)):  # type: ignore[arg-type]
        return
    what = "a number of seconds" if name.endswith("_sec") else "a whole number"
    raise ConfigError(f"{owner}.{name} is {what}, {rule}{', or None' if name in OR_NONE else ''}, not {value!r}")


def _rule(name: str) -> str:
    if name in ABOVE_ZERO:
        return "more than 0"
    return "1 or more" if name in FROM_ONE else "0 or more" if name in FROM_ZERO else ""


def _fits(name: str, value: float) -> bool:
    return value > 0 if name in ABOVE_ZERO else value >= 1 if name in FROM_ONE else value >= 0
