"""Reads a pattern in RE2's syntax, without recursion: open groups wait on a stack."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, NoReturn

from flowkit.core.expr.limits import MAX_DEPTH, MAX_PATTERN
from flowkit.core.expr.regex import classes
from flowkit.core.expr.regex.charset import Charset, Range, all_but, charset, literal
from flowkit.core.expr.regex.escapes import Escape, read_category, read_escape
from flowkit.core.expr.regex.problem import PatternError
from flowkit.core.expr.regex.syntax import Alternatives, Edge, Pattern, Repeat, Sequence

MOST: Final = 1000  # repetitions, as in RE2
COUNTS: Final = re.compile(r"\{([0-9]{1,9})(?:(,)([0-9]{1,9})?)?\}")
FLAGS: Final = re.compile(r"\?([imsU]*)(?:-([imsU]+))?([:)])")
NAMED: Final = re.compile(r"\?P?<([A-Za-z_0-9]+)>")
POSIX: Final = re.compile(r"\[:(\^?)([a-z]+):\]")
EDGES: Final = {"A": Edge.TEXT_START, "z": Edge.TEXT_END, "b": Edge.WORD_EDGE, "B": Edge.NO_WORD_EDGE}
REFUSED: Final = {
    "?=": "looking ahead", "?!": "looking ahead", "?<=": "looking behind", "?<!": "looking behind",
    "?>": "an atomic group", "?P=": "a reference to a group", "?P>": "a call of a group", "?(": "a condition",
    "?|": "a branch reset", "?R": "recursion", "?&": "a call of a group",
}  # fmt: skip


@dataclass(slots=True)
class Group:
    """An open group: what is read of it, and the flags that return when it closes."""

    start: int
    flags: frozenset[str]
    alternatives: list[Pattern] = field(default_factory=list)
    sequence: list[Pattern] = field(default_factory=list)

    def close(self) -> Pattern:
        self.next_alternative()
        return self.alternatives[0] if len(self.alternatives) == 1 else Alternatives(tuple(self.alternatives))

    def next_alternative(self) -> None:
        whole: Pattern = self.sequence[0] if len(self.sequence) == 1 else Sequence(tuple(self.sequence))
        self.alternatives.append(whole)
        self.sequence = []


def parse_pattern(text: str) -> Pattern:
    """The parts of a pattern. Raises `PatternError`."""
    return PatternParser(text).parse()


class PatternParser:
    """Reads one pattern."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_PATTERN:
            raise PatternError(MAX_PATTERN, f"a pattern has at most {MAX_PATTERN:,} characters, not {len(text):,}")
        self._text = text
        self._at = 0
        self._flags: frozenset[str] = frozenset()
        self._open = [Group(0, self._flags)]
        self._names: set[str] = set()
        self._repeatable = False  # whether the last thing read may be repeated

    def parse(self) -> Pattern:
        """The whole. Raises `PatternError`."""
        while self._at < len(self._text):
            self._one()
        if len(self._open) > 1:
            self._fail("this group does not end; close it with )", self._open[-1].start)
        return self._open[0].close()

    def _fail(self, say: str, at: int) -> NoReturn:
        raise PatternError(at, say)

    def _one(self) -> None:
        character = self._text[self._at]
        self._at += 1
        match character:
            case "*" | "+" | "?":
                self._repeat(self._at - 1, *{"*": (0, None), "+": (1, None), "?": (0, 1)}[character])
            case "{" if found := COUNTS.match(self._text, self._at - 1):
                self._count(found)
            case "(":
                self._group()
            case ")":
                self._close()
            case "|":
                self._open[-1].next_alternative()
                self._repeatable = False
            case "[":
                self._add(self._class())
            case "\\":
                self._escape()
            case _:
                self._add(self._plain(character))

    def _add(self, part: Pattern) -> None:
        self._open[-1].sequence.append(part)
        self._repeatable = True

    def _plain(self, character: str) -> Pattern:
        match character:
            case ".":
                return charset(classes.ANY) if "s" in self._flags else charset([(10, 10)], negated=True)
            case "^":
                return Edge.LINE_START if "m" in self._flags else Edge.TEXT_START
            case "$":
                return Edge.LINE_END if "m" in self._flags else Edge.TEXT_END
        return literal(character, "i" in self._flags)

    # Repetition.

    def _count(self, found: re.Match[str]) -> None:
        least = int(found[1])
        most = least if found[2] is None else int(found[3]) if found[3] else None
        self._at = found.end()
        if least > MOST or (most or 0) > MOST:
            self._fail(f"{found[0]}: at most {MOST:,} repetitions can be asked for", found.start())
        if most is not None and most < least:
            self._fail(f"{found[0]}: the most is less than the least", found.start())
        self._repeat(found.start(), least, most)

    def _repeat(self, start: int, least: int, most: int | None) -> None:
        sign = self._text[start : self._at]
        if not self._repeatable:
            self._fail(f"{sign} repeats nothing; write \\{sign} for the sign itself", start)
        if self._text[self._at : self._at + 1] == "?":
            self._at += 1
        follower = self._text[self._at : self._at + 1]
        if follower and (follower in "*+?" or COUNTS.match(self._text, self._at)):
            self._fail(f"{sign} is followed by another repetition; put the first into a group, (?:...)", self._at)
        sequence = self._open[-1].sequence
        sequence[-1] = Repeat(sequence[-1], least, most)
        self._repeatable = False

    # Groups.

    def _group(self) -> None:
        start = self._at - 1
        if self._text[self._at : self._at + 1] == "?" and self._special(start):
            return
        if len(self._open) > MAX_DEPTH:
            self._fail(f"groups are nested at most {MAX_DEPTH} deep", start)
        self._open.append(Group(start, self._flags))
        self._repeatable = False

    def _special(self, start: int) -> bool:
        """Read what follows `(?`; whether the group is over with it."""
        if named := NAMED.match(self._text, self._at):
            if named[1] in self._names:
                self._fail(f"two groups are named {named[1][:60]}", start)
            self._names.add(named[1])
            self._at = named.end()
            return False
        flags = FLAGS.match(self._text, self._at)
        if flags is None or flags[0] == "?)":
            self._refuse_group(start)
        self._at = flags.end()
        changed = (self._flags | frozenset(flags[1])) - frozenset(flags[2] or "")
        if flags[3] == ")":
            self._flags = changed
            self._repeatable = False
            return True
        if len(self._open) > MAX_DEPTH:
            self._fail(f"groups are nested at most {MAX_DEPTH} deep", start)
        self._open.append(Group(start, self._flags))
        self._flags = changed
        self._repeatable = False
        return True

    def _refuse_group(self, start: int) -> NoReturn:
        for sign, noun in REFUSED.items():
            if self._text.startswith(sign, start + 1):
                say = f"{noun}, ({sign}...), needs going back in the text, which this engine never does"
                self._fail(say, start)
        self._fail("after (? stands a flag (i, m, s, U), a colon, or P<name>", start)

    def _close(self) -> None:
        if len(self._open) == 1:
            self._fail(") closes nothing; write \\) for the sign itself", self._at - 1)
        group = self._open.pop()
        self._flags = group.flags
        self._add(group.close())

    # Escapes.

    def _escape(self) -> None:
        start = self._at - 1
        sign = self._text[self._at : self._at + 1]
        if sign in EDGES:
            self._at += 1
            self._add(EDGES[sign])
        elif sign == "Q":
            self._quoted()
        else:
            self._add(self._set(self._read_escape(start)))

    def _quoted(self) -> None:
        end = self._text.find("\\E", self._at + 1)
        text = self._text[self._at + 1 : len(self._text) if end < 0 else end]
        self._at = len(self._text) if end < 0 else end + 2
        for character in text:
            self._add(literal(character, "i" in self._flags))

    def _read_escape(self, start: int) -> Escape:
        read = read_category if self._text[self._at : self._at + 1] in ("p", "P") else read_escape
        escape, self._at = read(self._text, start)
        return escape

    def _set(self, escape: Escape) -> Charset:
        if isinstance(escape, str):
            return literal(escape, "i" in self._flags)
        return charset(escape.ranges, escape.categories, any_case="i" in self._flags)

    # Classes.

    def _class(self) -> Charset:
        start = self._at - 1
        negated = self._text[self._at : self._at + 1] == "^"
        self._at += negated
        ranges: list[Range] = []
        categories: list[str] = []
        first = True
        while first or self._text[self._at : self._at + 1] != "]":
            if self._at >= len(self._text):
                self._fail("this class does not end; close it with ]", start)
            first = False
            self._class_item(ranges, categories)
        self._at += 1
        return charset(ranges, categories, negated=negated, any_case="i" in self._flags)

    def _class_item(self, ranges: list[Range], categories: list[str]) -> None:
        if self._text.startswith("[:", self._at) and (posix := POSIX.match(self._text, self._at)):
            ranges.extend(self._posix(posix))
            return
        start = self._at
        low = self._class_character()
        if not isinstance(low, str):
            ranges.extend(low.ranges)
            categories.extend(low.categories)
            return
        high = low
        if self._text.startswith("-", self._at) and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
            self._at += 1
            end = self._class_character()
            if not isinstance(end, str) or end < low:
                say = f"{self._text[start : self._at][:60]} is no range; write \\- for the sign itself"
                self._fail(say, start)
            high = end
        ranges.append((ord(low), ord(high)))

    def _class_character(self) -> Escape:
        start = self._at
        if self._at >= len(self._text):
            self._fail("this class does not end; close it with ]", start)
        self._at += 1
        if self._text[start] != "\\":
            return self._text[start]
        return self._read_escape(start)

    def _posix(self, found: re.Match[str]) -> list[Range]:
        name = found[2]
        if name not in classes.POSIX:
            say = f"there is no class [:{name[:60]}:]; there are {', '.join(classes.POSIX)}"
            self._fail(say, found.start())
        self._at = found.end()
        return list(all_but(classes.POSIX[name]) if found[1] else classes.POSIX[name])
