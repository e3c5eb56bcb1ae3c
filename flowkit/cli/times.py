"""Times and durations as people write and read them."""

from __future__ import annotations

import re
from datetime import datetime

from flowkit.cli.console import UsageError
from flowkit.core.moments import read_moment
from flowkit.errors import InputError

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
LARGE = (("m", "s", 60, 1, 3600.0), ("h", "m", 3600, 60, 86400.0), ("d", "h", 86400, 3600, float("inf")))
NUMBER = re.compile(r"\d+(?:\.\d+)?")
AGO = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def read_time(text: str, now: float) -> float:
    """Epoch seconds of `30m`, `2h`, `7d` (before now), or an ISO time (of this machine's zone if it names none)."""
    if found := AGO.fullmatch(text):
        return now - float(found[1]) * UNITS[found[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise UsageError(f"{text!r} is no time: say 30m, 2h, 7d, or 2026-11-21T08:00:00") from None


def read_deadline(text: str, now: float) -> float:
    """Epoch seconds of `30m`, `2h`, `7d` (from now on), of a time with its zone, or as they are."""
    if found := AGO.fullmatch(text):
        return now + float(found[1]) * UNITS[found[2]]
    try:
        return read_moment(float(text) if NUMBER.fullmatch(text) else text)
    except InputError as error:
        raise UsageError(f"--deadline: {error}; or say 30m, 2h, 7d from now") from None


def show_time(at: float | None) -> str:
    return "" if at is None else datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")


def show_short_time(at: float, now: float) -> str:
    """The day and the second of this year, only the day of another."""
    then = datetime.fromtimestamp(at)
    return then.strftime("%m-%d %H:%M:%S" if then.year == datetime.fromtimestamp(now).year else "%Y-%m-%d")


def show_clock(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%H:%M:%S.%f")[:-3]


def show_seconds(seconds: float | None) -> str:
    """`12 ms`, `3.4 s`, `2 m 05 s`, `3 h 02 m`, `4 d 01 h`."""
    if seconds is None:
        return ""
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    big, small, size, part = next(row for row in LARGE if whole < row[4])[:4]
    return f"{whole // size} {big} {whole % size // part:02d} {small}"
