"""How arguments are read: numbers within their bounds, and words with the nearest that there is.

Imports next to nothing but argparse until something is wrong: a mistyped option must not cost half a second.
"""

from __future__ import annotations

import argparse
import re
from argparse import ArgumentParser
from contextlib import suppress
from typing import NoReturn

from flowkit.paging import LARGEST_PAGE

CHOICE = re.compile(r"invalid choice: '([^']*)' \(choose from (.*)\)$", re.DOTALL)
UNKNOWN = re.compile(r"unrecognized arguments: (.*)$", re.DOTALL)


class Parser(ArgumentParser):
    """Says the nearest word that there is, and leaves it to `parse` to tell of options that nobody knows."""

    def error(self, message: str) -> NoReturn:
        if found := CHOICE.search(message):
            known = [word.strip().strip("'") for word in found[2].split(",")]
            message += _near(found[1], known)
        elif found := UNKNOWN.search(message):
            options = [option for action in self._actions for option in action.option_strings]
            message += next((near for word in found[1].split() if (near := _near(word.partition("=")[0], options))), "")
        super().error(message)


def seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < (value := float(text)) < float("inf"):
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")


def count(text: str) -> int:
    with suppress(ValueError):
        if (value := int(text)) > 0:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")


def rows(text: str) -> int:
    with suppress(ValueError):
        if 1 <= (value := int(text)) <= LARGEST_PAGE:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of rows from 1 to {LARGEST_PAGE:,}")


def natural(text: str) -> int:
    with suppress(ValueError):
        if (value := int(text)) >= 0:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")


def whole(text: str) -> int:
    with suppress(ValueError):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")


def _near(word: str, known: list[str]) -> str:
    from flowkit.errors import did_you_mean

    return did_you_mean(word, known)
