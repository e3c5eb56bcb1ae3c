"""Clocks: the system's, one that a test moves, and those that users bring."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from flowkit.clock import ManualClock, SystemClock, whole_clock
from flowkit.errors import ConfigError


class OlderClock:
    """A clock as older code writes it."""

    def now_ms(self) -> int:
        return 1_500

    def mono_ms(self) -> int:
        return 250


class NarrowClock:
    def wall(self) -> float:
        return 1.5

    def mono(self) -> float:
        return 0.25


async def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(start_ms=1_001)

    assert (clock.now_ms(), clock.mono_ms(), clock.wall()) == (1_001, 1_001, 1.001)
    clock.advance(0.5)
    await clock.sleep_ms(2.0)
    assert clock.now_ms() == 1_503
    assert clock.now_dt() == datetime(1970, 1, 1, 0, 0, 1, 503_000, UTC)
    assert ManualClock(3.5).now_ms() == 3_500
    assert ManualClock().now_ms() == 0


async def test_the_system_clock_tells_the_same_in_every_way() -> None:
    clock = SystemClock()
    before = clock.mono_ms()
    await clock.sleep_ms(20)

    assert 20 <= clock.mono_ms() - before < 5_000
    assert abs(clock.now_ms() / 1000 - time.time()) < 5
    assert abs(clock.now_dt().timestamp() - clock.wall()) < 5


@pytest.mark.parametrize("given", [OlderClock(), NarrowClock()])
async def test_a_clock_of_either_kind_can_be_asked_everything(given: object) -> None:
    clock = whole_clock(given)

    assert (clock.wall(), clock.mono(), clock.now_ms(), clock.mono_ms()) == (1.5, 0.25, 1_500, 250)
    assert clock.now_dt() == datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC)
    await clock.sleep_ms(0)


def test_a_whole_clock_is_used_as_it_is() -> None:
    clock = ManualClock()

    assert whole_clock(clock) is clock


def test_what_tells_no_time_is_no_clock() -> None:
    with pytest.raises(ConfigError, match=r"a clock answers now_ms\(\) and mono_ms\(\)"):
        whole_clock(time)
