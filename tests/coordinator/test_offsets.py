"""Which offsets may be committed: never one whose effect is not acknowledged (rule 11)."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.coordinator.offsets import OffsetTracker, Receipt


def test_nothing_read_is_nothing_to_commit() -> None:
    assert OffsetTracker().to_commit() is None


def test_a_record_may_be_committed_once_all_its_items_are_settled() -> None:
    tracker = OffsetTracker()
    receipt = tracker.read(0, 2)
    receipt.settle()
    assert tracker.to_commit() is None

    receipt.settle()

    assert tracker.to_commit() == 1


def test_a_record_without_items_is_settled_at_once() -> None:
    tracker = OffsetTracker()

    tracker.read(7, 0)

    assert tracker.to_commit() == 8


def test_an_open_record_holds_back_those_behind_it() -> None:
    tracker = OffsetTracker()
    first, second, third = (tracker.read(offset, 1) for offset in (5, 6, 7))
    second.settle()
    third.settle()
    assert tracker.to_commit() == 5

    first.settle()

    assert tracker.to_commit() == 8


def test_what_is_committed_is_not_committed_again() -> None:
    tracker = OffsetTracker()
    tracker.read(3, 1).settle()
    tracker.committed(4)
    assert tracker.to_commit() is None

    tracker.read(4, 1)

    assert tracker.to_commit() is None


def test_offsets_may_have_gaps() -> None:
    tracker = OffsetTracker()
    first = tracker.read(3, 1)
    tracker.read(90, 1).settle()
    assert tracker.to_commit() == 3

    first.settle()

    assert tracker.to_commit() == 91


def test_a_receipt_that_is_settled_too_often_settles_nothing_else() -> None:
    tracker = OffsetTracker()
    receipt = tracker.read(0, 1)
    receipt.settle()
    tracker.read(1, 1)

    receipt.settle()

    assert tracker.to_commit() == 1


def test_reading_again_from_an_earlier_offset_begins_anew() -> None:
    tracker = OffsetTracker()
    tracker.read(10, 1)
    tracker.committed(10)

    receipt = tracker.read(4, 1)

    assert tracker.position == 5
    assert tracker.to_commit() == 4
    receipt.settle()
    assert tracker.to_commit() == 5


def test_the_end_is_reached_when_the_position_is_there() -> None:
    tracker = OffsetTracker()
    assert tracker.reached(99)  # nothing was read, so nothing is known to be left

    tracker.read(5, 1)

    assert tracker.reached(6)
    assert not tracker.reached(7)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), max_size=12), st.randoms(use_true_random=False))
def test_no_offset_is_committed_before_everything_up_to_it_is_settled(
    records: list[tuple[int, int]], dice: object
) -> None:
    tracker, owed, offset = OffsetTracker(), {}, 0
    receipts: list[tuple[int, Receipt]] = []
    for items, gap in records:
        receipt = tracker.read(offset, items)
        owed[offset] = items
        receipts += [(offset, receipt)] * items
        offset += gap
    dice.shuffle(receipts)  # type: ignore[attr-defined]

    for at, receipt in receipts:
        receipt.settle()
        owed[at] -= 1
        may = next((offset for offset, items in owed.items() if items), tracker.position)
        assert tracker.to_commit() == (may or None)
