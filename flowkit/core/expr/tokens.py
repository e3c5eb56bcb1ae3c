"""Cuts an expression into its words: names, numbers, strings and signs."""

from __future__ import annotations

import re
from typing import Any, Final

from flowkit.core.expr.complaint import Misread
from flowkit.core.expr.strings import read_string
from flowkit.core.immutable import immutable
from flowkit.core.problems import shown

NAME: Final = "name"
INT: Final = "int"
FLOAT: Final = "float"
STRING: Final = "string"
SIGN: Final = "sign"
END: Final = "end"
BAD: Final = "bad"  # where the rest is no word; its value is what is wrong with it

# Every alternative is linear, and so is the whole: what fails, fails at once.
WORD: Final = re.compile(
    r"""
    (?P<space>   (?: [ \t\n\f\r]+ | //[^\n]* )+ )
  | (?P<string>  [rR] (?: "{3} .*? "{3} | [']{3} .*? [']{3} | " [^"\r\n]* " | ['] [^'\r\n]* ['] )
              |  "{3} (?: [^\\] | \\. )*? "{3} | [']{3} (?: [^\\] | \\. )*? [']{3}
              |  (?!"{3}|[']{3}) (?: " (?: [^"\\\r\n] | \\. )* " | ['] (?: [^'\\\r\n] | \\. )* ['] ) )
  | (?P<float>   [0-9]* \. [0-9]+ (?: [eE][+-]?[0-9]+ )? | [0-9]+ [eE][+-]?[0-9]+ )
  | (?P<int>     0[xX][0-9a-fA-F]+ | [0-9]+ )
  | (?P<name>    [A-Za-z_][A-Za-z0-9_]* )
  | (?P<sign>    && | \|\| | == | != | <= | >= | [-+*/%<>!?:.,()\[\]{}] )
    """,
    re.VERBOSE | re.DOTALL,
)
GLUED: Final = re.compile(r"[A-Za-z0-9_]")
INSTEAD: Final = {
    "=": "compare with ==",
    "&": "write &&",
    "|": "write ||",
    "$": "names have no $ here; write params.x, not $params.x",
    "@": "write index or item",
}


@immutable
class Token:
    """One word. `text` as written (a string's is long), `value` what it stands for."""

    kind: str
    text: str
    value: Any
    start: int
    end: int

    def __str__(self) -> str:
        return "the end" if self.kind == END else shown(self.text) if self.kind == STRING else f"`{self.text[:60]}`"


def tokens_of(text: str) -> list[Token]:
    """The words of `text`, up to its end or to what is no word: what is wrong before that shall be said first."""
    tokens = []
    at = 0
    while at < len(text):
        try:
            kind, end = _cut(text, at)
            if kind != "space":
                tokens.append(_token(kind, text, at, end))
        except Misread as error:
            return [*tokens, Token(BAD, text[at], error.say, error.position, error.position)]
        at = end
    return [*tokens, Token(END, "", None, len(text), len(text))]


def _cut(text: str, at: int) -> tuple[str, int]:
    found = WORD.match(text, at)
    if found is None:
        raise _no_word(text, at)
    return found.lastgroup or "", found.end()


def _no_word(text: str, at: int) -> Misread:
    if text[at] in "'\"":
        say = "this string does not end; close it with the quote that it began with, and write a line's end as \\n"
        return Misread(at, say)
    if text[at].isalpha():
        return Misread(at, f'names are ASCII letters, digits and _; write x["{text[at]}"] for any other field')
    advice = INSTEAD.get(text[at], "text stands in quotes")
    return Misread(at, f"{shown(text[at])} means nothing here; {advice}")


def _token(kind: str, text: str, start: int, end: int) -> Token:
    word = text[start:end]
    if kind in (INT, FLOAT) and GLUED.match(text, end):
        raise _glued(text, start, end)
    if kind == NAME and text[end : end + 1] in ("'", '"'):
        raise Misread(start, f"a string has no prefix {word[:60]!r}; only r, for raw, is known")
    match kind:
        case "string":
            return Token(kind, word, read_string(text, start, end), start, end)
        case "float":
            return Token(kind, word, _float(text, start, word), start, end)
        case "int":
            return Token(kind, word, _int(text, start, word), start, end)
        case _:
            return Token(kind, word, word, start, end)


def _glued(text: str, start: int, end: int) -> Misread:
    if text[end] in "uU":
        return Misread(end, "there are no unsigned numbers here, as there are none in JSON; leave the u out")
    return Misread(end, f"a number ends before {shown(text[end])}; put a sign or a space between them")


def _int(text: str, start: int, word: str) -> int:
    digits = word[2:] if word[:2] in ("0x", "0X") else word
    # The parser knows whether a minus stands before it; beyond 20 digits nothing helps.
    if len(digits.lstrip("0")) <= 20:
        value = int(word, 16) if digits is not word else int(word)
        if value <= 2**63:
            return value
    raise Misread(start, "an integer has at most 64 bits; write it as a float, such as 1e20")


def _float(text: str, start: int, word: str) -> float:
    value = float(word)
    if value == float("inf"):
        raise Misread(start, f"{word[:60]} is beyond what a float can hold, which is about 1.8e308")
    return value
