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


async def test_old_garbage_goes_when_the_process_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """And stays while it is busy, unless it has waited too often."""
    cpu, now, waits = 0.0, 0.0, collector.FEW_WAITS
    monkeypatch.setattr(collector.time, "process_time", lambda: cpu)
    monkeypatch.setattr(collector.time, "monotonic", lambda: now)
    one = CycleCollection()
    assert one.begin()
    try:
        knot = Knot()
        gone = weakref.ref(knot)
        gc.collect(1)  # it survives, and is old now
        monkeypatch.setattr(collector.gc, "get_count", lambda: (0, 0, waits))
        del knot

        cpu, now = 0.9, 1.0
        await one.step()
        assert gone() is not None

        cpu, now = 1.0, 2.0
        await one.step()
        assert gone() is None
    finally:
        one.end()


async def test_a_process_that_is_never_idle_looks_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, now = 0.0, 0.0
    monkeypatch.setattr(collector.time, "process_time", lambda: cpu)
    monkeypatch.setattr(collector.time, "monotonic", lambda: now)
    one = CycleCollection()
    assert one.begin()
    try:
        knot = Knot()
        gone = weakref.ref(knot)
        gc.collect(1)
        monkeypatch.setattr(collector.gc, "get_count", lambda: (0, 0, collector.MOST_WAITS))
        del knot

        cpu, now = 1.0, 1.0
        await one.step()

        assert gone() is None
    finally:
        one.end()
