"""Settings as older FlowKit called them: what each is called today, or why it is not needed any more."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any, Final

from flowkit.errors import UnknownSetting, did_you_mean

TOPICS: Final = "topics are named by `topic_prefix`"
TICKS: Final = "nothing waits for a tick: what happens is acted on at once"
OUTBOX: Final = "what a commit says is sent until it is acknowledged, and a stored task is never given up"
SILENCE: Final = "a lease that is not renewed within `lease_ttl_sec` expires; bound a node by `timeouts` in the graph"
ONCE: Final = "a lease runs once, however often its message comes"
PULLS: Final = "whoever reads batches is told of them, and polls nothing"

GONE: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("topic_cmd_fmt", "topic_status_fmt", "topic_worker_announce", "topic_query", "topic_reply", "topic_signals"),
        TOPICS,
    ),
    **dict.fromkeys(("scheduler_tick_sec", "finalizer_tick_sec", "hb_monitor_tick_sec"), TICKS),
    **dict.fromkeys(
        ("outbox_dispatch_tick_sec", "outbox_max_retry", "outbox_backoff_min_ms", "outbox_backoff_max_ms"), OUTBOX
    ),
    **dict.fromkeys(("heartbeat_soft_sec", "heartbeat_hard_sec"), SILENCE),
    "discovery_window_sec": "workers introduce themselves, and a coordinator that starts asks all of them",
    "announce_interval_sec": "workers introduce themselves when they start, when asked, and with every heartbeat",
    "dedup_cache_size": ONCE,
    "dedup_ttl_ms": ONCE,
    "pull_poll_ms_default": PULLS,
    "pull_empty_backoff_ms_max": PULLS,
    "strict_input_adapters": "what an input adapter is given is always checked",
    "db_cancel_poll_ms": "a cancel is sent to the worker, which polls nothing",
}  # fmt: skip

BEAT: Final = "hb_interval_sec"


def modernise(owner: str, given: Mapping[str, Any], known: Collection[str], usual_beat: float) -> dict[str, Any]:
    """The same settings by their names of today. Warns once, the caller's caller, of all that mean nothing any more.

    Raises `UnknownSetting` for a name that never was one.
    """
    today: dict[str, Any] = {}
    notes = []
    for name, value in given.items():
        if name in known:
            today[name] = value
        elif name in GONE:
            notes.append(f"{name} is not needed any more: {GONE[name]}")
        elif name != BEAT:
            raise UnknownSetting(f"{owner} has no setting {name!r}{did_you_mean(name, known)}")
        elif "heartbeat_sec" in given:
            notes.append(f"{BEAT} is called heartbeat_sec, which is given too and counts")
        elif isinstance(value, int | float) and value <= usual_beat:
            today["heartbeat_sec"] = float(value)
        else:
            notes.append(
                f"{BEAT} is called heartbeat_sec, and stays at {usual_beat:g} s: coordinators give no work to a worker "
                f"that is silent for longer than their own heartbeat_sec; to have {value!r}, set heartbeat_sec on both"
            )
    if notes:
        warnings.warn(f"{owner}: {'; '.join(notes)}", UserWarning, stacklevel=3)
    return today


def why_gone(name: str) -> str:
    """Why there is no setting of this name (any more), or nothing for one that never was."""
    seconds = f"{name.removesuffix('_ms')}_sec"
    return f"{name} is not needed any more: {GONE.get(name) or GONE[seconds]}" if {name, seconds} & GONE.keys() else ""
