"""Times and durations as people write and read them."""

from __future__ import annotations

from datetime import datetime

import pytest

from flowkit.cli.console import UsageError
from flowkit.cli.times import read_time, show_clock, show_seconds, show_short_time, show_time

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "ago"),
    [("30s", 30), ("15m", 900), ("2h", 7200), ("7d", 604800), ("1w", 604800), ("1.5h", 5400), ("0s", 0)],
)
def test_a_time_may_be_given_as_so_long_ago(text: str, ago: float) -> None:
    assert read_time(text, NOW) == NOW - ago


def test_a_time_may_be_given_as_iso() -> None:
    assert read_time("2026-11-21T08:00:00+00:00", NOW) == 1795248000.0
    assert read_time("2026-11-21T08:00:00Z", NOW) == 1795248000.0
    assert read_time("2026-11-21", NOW) == datetime(2026, 11, 21).timestamp()


@pytest.mark.parametrize("text", ["", "yesterday", "7", "7y", "-1h", "2026-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no time: say 30m"):
        read_time(text, NOW)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, ""), (-0.001, "0 ms"), (0.0, "0 ms"), (0.0124, "12 ms"), (0.9994, "999 ms"), (0.9996, "1.0 s"),
        (3.44, "3.4 s"), (59.94, "59.9 s"), (59.96, "1 m 00 s"), (125, "2 m 05 s"), (3599.4, "59 m 59 s"),
        (3599.6, "1 h 00 m"), (7320, "2 h 02 m"), (86399, "23 h 59 m"), (86400, "1 d 00 h"), (8640000, "100 d 00 h"),
    ],
)  # fmt: skip
def test_a_duration_is_shown_in_its_two_largest_units(seconds: float | None, shown: str) -> None:
    assert show_seconds(seconds) == shown


def test_times_are_shown_in_the_local_zone() -> None:
    here = datetime(2026, 11, 21, 8, 5, 9, 12000)
    assert show_time(here.timestamp()) == "2026-11-21 08:05:09"
    assert show_clock(here.timestamp()) == "08:05:09.012"
    assert show_time(None) == ""
    assert show_short_time(here.timestamp(), here.timestamp()) == "11-21 08:05:09"
    assert show_short_time(here.timestamp(), datetime(2027, 1, 1).timestamp()) == "2026-11-21"
