"""What is wrong with a graph: gathered, placed and worded, in bounded time whatever was found."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final, NoReturn, TypeAlias

from flowkit.errors import GraphError, Problem, did_you_mean

MAX_PROBLEMS: Final = 50
LONGEST_NAME: Final = 128
MAX_COMPARISONS: Final = 20_000  # of names, in all: a comparison costs about 10 us
FEW: Final = 500

# A place is written out only when there is a problem; until then it is a chain of steps from a root.
Place: TypeAlias = "str | tuple[Place, str | int]"

PLAIN_STEP: Final = re.compile(r"[A-Za-z0-9_$-]{1,64}")


def render(place: Place) -> str:
    """`nodes[2].inputs.rows.$from`, or `graph` for the whole; a step that is not a plain name is quoted."""
    steps = []
    while not isinstance(place, str):
        place, step = place
        if isinstance(step, str) and PLAIN_STEP.fullmatch(step):
            steps.append(f".{step}")
        else:
            steps.append(f"[{shown(step)}]")
    return (place + "".join(reversed(steps))).removeprefix(".") or "graph"


def shown(value: object) -> str:
    """A value as it may stand in a message: short, on one line, and cheap however large the value is."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            text = str.__str__(value)
            return repr(text if len(text) <= 60 else text[:57] + "...")
        case int():
            return str(int(value)) if value.bit_length() <= 200 else "a huge integer"
        case float():
            return repr(float(value))
        case dict():
            return "an object"
        case list() | tuple():
            return "a list"
        case _:
            return f"a Python {type(value).__name__}"[:60]


def written(value: str) -> str:
    """A string as JSON has it, for what the reader is to write; short, as `shown` is."""
    text = str.__str__(value)
    return json.dumps(text if len(text) <= 60 else text[:57] + "...", ensure_ascii=not text.isprintable())


class Problems:
    """The problems found so far; the one after the fiftieth ends the reading."""

    def __init__(self) -> None:
        self._found: list[Problem] = []
        self._comparisons = MAX_COMPARISONS

    def __len__(self) -> int:
        return len(self._found)

    def add(self, code: str, place: Place, message: str) -> None:
        """Note a problem. Raises `GraphError` when there are too many to be of use."""
        if len(self._found) == MAX_PROBLEMS:
            say = f"there are more than {MAX_PROBLEMS} problems; mend these first"
            raise GraphError([*self._found, Problem("E_MORE", "graph", say)])
        self._found.append(Problem(code, render(place), message))

    def stop(self, code: str, place: Place, message: str) -> NoReturn:
        """Note a problem after which reading on makes no sense."""
        self.add(code, place, message)
        raise GraphError(self._found)

    def raise_any(self) -> None:
        if self._found:
            raise GraphError(self._found)

    def suggest(self, name: str, known: Iterable[Any]) -> str:
        """` (did you mean 'x'?)`, or nothing; cheap among many names, and when asked often."""
        if len(name) > LONGEST_NAME:
            return ""
        likely = [other for other in known if isinstance(other, str) and abs(len(other) - len(name)) <= 4]

        if len(likely) > FEW:
            half = len(name) // 2
            head, tail = name[:half], name[half:]
            likely = [other for other in likely if other.startswith(head) or other.endswith(tail)][:FEW]
        likely = likely[: self._comparisons]
        self._comparisons -= len(likely)

        return did_you_mean(name, likely)


class Unheard(Problems):
    """Takes no notice of problems."""

    def add(self, code: str, place: Place, message: str) -> None:
        """Nothing happens."""
