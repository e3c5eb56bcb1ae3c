"""Looks for one text in another, in time that does not grow with their product."""

from __future__ import annotations

from typing import Final

from flowkit.core.expr.failure import Span, charge
from flowkit.core.expr.limits import Meter
from flowkit.core.expr.values import LONG

SMALL: Final = 65_536  # comparisons that are made in the time of a few hundred steps
TWO_WAY: Final = 30_000  # from this length on, Python searches in linear time


def contains(text: str, part: str, meter: Meter, at: Span) -> bool:
    """Whether `part` stands somewhere in `text`."""
    if len(part) > len(text):
        return False
    work = (len(text) - len(part) + 1) * len(part)
    if work <= SMALL:
        charge(meter, work // 128, at)
        return part in text

    # Python looks for a short text naively in a short one, which takes a millisecond for the worst of them. Made long,
    # the text is searched in linear time; what fills it up does not end the part, so that nothing new is found.
    charge(meter, (len(text) + len(part)) // LONG + TWO_WAY // 64, at)
    filler = "a" if part[-1] != "a" else "b"
    return part in text.ljust(TWO_WAY, filler)
