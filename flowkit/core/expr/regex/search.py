"""Searches a text for a pattern: all ways through the program at once, and every set of ways worked out once.

The time is linear in the text, times the size of the program at the very worst; it is charged as it is spent. What was
worked out is forgotten with the search: otherwise what an expression may do would depend on what ran before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from flowkit.core.expr.failure import Span, charge
from flowkit.core.expr.limits import Meter
from flowkit.core.expr.regex.charset import Seen
from flowkit.core.expr.regex.program import Ask, Fork, Program, Take
from flowkit.core.expr.regex.syntax import Edge

START, NEWLINE, WORD, OTHER = "start", "newline", "word", "other"  # what stands before a place

END: Final = ""  # stands for the character behind the last
MATCHED: Final = 0  # the state in which it is known that the pattern matches
TEXT_PER_STEP: Final = 3
STEPS_PER_SEARCH: Final = 50
STEPS_PER_STATE: Final = 25
STEPS_PER_INSTRUCTION: Final = 6


def search(program: Program, text: str, meter: Meter, at: Span) -> bool:
    """Whether the pattern matches somewhere in the text. Raises `Exceeded`."""
    charge(meter, STEPS_PER_SEARCH + len(text) // TEXT_PER_STEP, at)
    table = _Table(program, meter, at)
    rows = table.rows
    state = table.number(frozenset(), START)
    for character in text:
        try:
            state = rows[state][character]
        except KeyError:
            state = table.after(state, character)
        if state == MATCHED:
            return True
    return table.after(state, END) == MATCHED


class _Table:
    """The states that were met: what waits for the next character, and what stands before it.

    `rows` has, for each of them, the states that characters lead to: numbers, so that nothing refers to itself.
    """

    def __init__(self, program: Program, meter: Meter, at: Span) -> None:
        self.rows: list[dict[str, int]] = [{}]
        self._states: list[tuple[frozenset[int], str]] = [(frozenset(), OTHER)]  # of MATCHED, never looked at
        self._numbers: dict[tuple[frozenset[int], str], int] = {}
        self._characters: dict[str, Seen | None] = {END: None}
        self._program = program
        self._meter = meter
        self._at = at

    def number(self, waiting: frozenset[int], before: str) -> int:
        state = (waiting, before)
        number = self._numbers.setdefault(state, len(self.rows))
        if number == len(self.rows):
            self.rows.append({})
            self._states.append(state)
        return number

    def after(self, state: int, character: str) -> int:
        # A match may begin at every character, so the start of the program always waits as well.
        waiting, before = self._states[state]
        following = self._follow([self._program.start, *waiting], before, character)
        number = MATCHED
        if following is not None:
            number = self.number(following, _kind(character) if self._program.asks else OTHER)
        self.rows[state][character] = number
        return number

    def _seen(self, character: str) -> Seen | None:
        if character not in self._characters:
            self._characters[character] = Seen(character)
        return self._characters[character]

    def _follow(self, waiting: Iterable[int], before: str, character: str) -> frozenset[int] | None:
        """Where the character leads, or None if the program ends before it."""
        charge(self._meter, STEPS_PER_STATE, self._at)
        seen = self._seen(character)
        following = set()
        reached = set(waiting)
        stack = list(reached)
        instructions, meter = self._program.instructions, self._meter
        while stack:
            instruction = instructions[stack.pop()]
            if type(instruction) is Take:
                if seen is not None and instruction.charset.holds(seen):
                    following.add(instruction.to)
            elif type(instruction) is Fork:
                for target in instruction.to:
                    if target not in reached:
                        reached.add(target)
                        stack.append(target)
            elif type(instruction) is Ask:
                if instruction.to not in reached and _is_here(instruction.edge, before, character):
                    reached.add(instruction.to)
                    stack.append(instruction.to)
            else:  # done
                return None

            meter[0] -= STEPS_PER_INSTRUCTION
            if meter[0] < 0:
                charge(meter, 0, self._at)
        return frozenset(following)


def _kind(character: str) -> str:
    if character == "\n":
        return NEWLINE
    return WORD if _is_word(character) else OTHER


def _is_word(character: str) -> bool:
    return character.isascii() and (character.isalnum() or character == "_")


def _is_here(edge: Edge, before: str, character: str) -> bool:
    match edge:
        case Edge.TEXT_START:
            return before is START
        case Edge.TEXT_END:
            return character == END
        case Edge.LINE_START:
            return before in (START, NEWLINE)
        case Edge.LINE_END:
            return character in (END, "\n")
        case Edge.WORD_EDGE:
            return (before is WORD) is not _is_word(character)
        case Edge.NO_WORD_EDGE:
            return (before is WORD) is _is_word(character)
