"""Python's cycle collector, tuned while a coordinator runs and put back after it."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator

import pytest

from flowkit import collector
from flowkit.collector import MIDDLE, NEVER, YOUNG, CycleCollection

pytestmark = pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python collects in small steps by itself")

DEFAULTS = (700, 10, 10)
TUNED = (YOUNG, MIDDLE, NEVER)


@pytest.fixture(autouse=True)
def _thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*DEFAULTS)
    yield
    gc.set_threshold(*before)


def test_several_share_the_tuning_and_the_last_puts_it_back() -> None:
    one, two = CycleCollection(), CycleCollection()

    assert one.begin()
    assert two.begin()
    one.end()
    one.end()
    assert gc.get_threshold() == TUNED
    two.end()

    assert gc.get_threshold() == DEFAULTS


def test_what_the_app_has_set_is_left_alone() -> None:
    gc.set_threshold(50_000, 5, 5)
    one = CycleCollection()

    assert not one.begin()
    one.end()

    assert gc.get_threshold() == (50_000, 5, 5)


class Knot:
    def __init__(self) -> None:
        self.itself = self


def old_garbage() -> weakref.ref[Knot]:
    knot = Knot()
    gc.collect(1)  # it survives, and is old now
    return weakref.ref(knot)


async def test_old_garbage_goes_when_the_process_is_idle_or_has_waited_too_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu, now, waits = 0.0, 0.0, 0
    monkeypatch.setattr(collector.time, "process_time", lambda: cpu)
    monkeypatch.setattr(collector.time, "monotonic", lambda: now)
    one = CycleCollection()
    assert one.begin()
    monkeypatch.setattr(collector.gc, "get_count", lambda: (0, 0, waits))
    try:
        gone = old_garbage()
        cpu, now, waits = 0.0, 1.0, collector.FEW_WAITS - 1
        await one.step()
        assert gone() is not None, "idle, but there is little to be found"

        cpu, now, waits = 0.9, 2.0, collector.FEW_WAITS
        await one.step()
        assert gone() is not None, "busy"

        cpu, now = 1.0, 3.0
        await one.step()
        assert gone() is None

        gone = old_garbage()
        cpu, now, waits = 2.0, 4.0, collector.MOST_WAITS
        await one.step()
        assert gone() is None, "busy, but it has waited too long"
    finally:
        one.end()
