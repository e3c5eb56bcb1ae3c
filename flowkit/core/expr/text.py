"""Looks for one text in another, in time that does not grow with their product."""

from __future__ import annotations

from typing import Final

from flowkit.core.expr.failure import Span, charge
from flowkit.core.expr.limits import Meter

SMALL: Final = 65_536  # comparisons that are made in the time of a few hundred steps
COMPARISONS_PER_STEP: Final = 128
SEARCHED_PER_STEP: Final = 24  # characters, in linear time
TWO_WAY: Final = 30_000  # from this length on, Python searches in linear time


def contains(text: str, part: str, meter: Meter, at: Span) -> bool:
    """Whether `part` stands somewhere in `text`."""
    if len(part) > len(text):
        return False
    work = (len(text) - len(part) + 1) * len(part)
    if work <= SMALL:
        charge(meter, work // COMPARISONS_PER_STEP, at)
        return part in text

    # Python looks for a short text naively in a short one, which takes a millisecond for the worst of them. Made long,
    # the text is searched in linear time; what fills it up does not end the part, so that nothing new is found.
    charge(meter, (max(len(text), TWO_WAY) + len(part)) // SEARCHED_PER_STEP, at)
    filler = "a" if part[-1] != "a" else "b"
    return part in text.ljust(TWO_WAY, filler)
