"""Throws texts at the language: noise, heaps of its words, expressions that are right, and those with damage.

Whatever comes, it is read or refused by `ExprSyntaxError`, computed or failed by `ExprError`, within a millisecond and
within its size. `python -m tests.core.expr.fuzz 1000000` runs more of it, from another seed each time.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from random import Random
from typing import Any

from flowkit.core.expr import ExprError, Expression, ExprSyntaxError, parse_expression
from flowkit.core.expr.limits import MAX_SIZE, MAX_TEXT
from flowkit.core.expr.names import ROOTS
from tests.core.expr.generator import Generator
from tests.core.expr.parts import SCOPE
from tests.core.expr.printer import printed
from tests.core.expr.timing import MOST_NS, is_fast

WORDS = r"""
    params output nodes vars item index previous task true false null has size min max int double string contains
    startsWith endsWith matches in . . . . ( ) ( ) [ ] [ ] { } , , : ? + - * / % ! < <= > >= == != && || && ||
    1 0 -1 1.5 .5 1e9 0x1F 9223372036854775807 9223372036854775808 'a' "b" '' '\n' '\u00e9' r'\d+' 'a{3,5}' '(a+)+$'
    '[a-z]*' nodes["x"].output params.a output.b.a item.x a b c x é // # = & | ; $ @ ~ ` \ ""' '""
"""
HEAP = [*re.findall(r"\S+", WORDS), "\n", "\t", "\0", "\ud800"]
SIGNS = [
    *"()[]{}.,:?+-*/%!<>=&|'\"\\ \n0123456789abxyzinEeRruU_$@#~`^é",
    "\0",
    "\x7f",
    "\u2028",
    "\U0001f600",
    "\ud800",
]


class Fuzzer:
    """Makes one text and one scope after the other from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.scopes = [SCOPE, {}, *(self._scope() for _ in range(6))]
        self.generators = [Generator(self.random, scope) for scope in self.scopes]

    def case(self) -> tuple[str, dict[str, Any]]:
        """A text, about half of which can be read, and a scope, mostly one that it was made for."""
        number = self.random.randrange(len(self.scopes))
        other = self.random.randrange(len(self.scopes)) if self.random.random() < 0.2 else number
        return self._text(self.generators[number]), self.scopes[other]

    def _text(self, generator: Generator) -> str:
        kind = self.random.randrange(10)
        if kind == 0:
            return self._noise()
        if kind <= 2:
            return self._heap()
        good = self._good(generator)
        if kind <= 6:
            return good
        for _ in range(self.random.choice((1, 1, 1, 2, 3))):
            good = self._damaged(good)
        return good

    def _noise(self) -> str:
        noise = self.random.randbytes(self.random.randrange(1, 60))
        return noise.decode(self.random.choice(("latin-1", "utf-8")), "replace")

    def _heap(self) -> str:
        space = self.random.choice(("", " "))
        return space.join(self.random.choices(HEAP, k=self.random.randrange(1, 20)))

    def _good(self, generator: Generator) -> str:
        text = printed(generator.part(self.random.choice((1, 2, 2, 3, 3))))
        if self.random.random() < 0.02:
            sign = self.random.choice((" + ", " == ", " && ", " || ", ", ", " * "))
            text = sign.join([f"({text})"] * min(self.random.randrange(2, 200), MAX_TEXT // (len(text) + 6)))
        return text

    def _damaged(self, text: str) -> str:
        start, end = sorted(self.random.randrange(len(text) + 1) for _ in range(2))
        end = min(end, start + self.random.choice((0, 1, 1, 2, 8, 80)))
        put = self.random.choice(
            ("", self.random.choice(SIGNS), self.random.choice(HEAP), text[start:end] * self.random.choice((2, 3, 70)))
        )
        return text[:start] + put + text[end:]

    # Scopes.

    def _scope(self) -> dict[str, Any]:
        scope = {name: self._value(4) for name in ROOTS if name != "nodes" and self.random.random() < 0.9}
        outputs = [{"output": self._value(3)}, {}]
        scope["nodes"] = {
            node: self.random.choice(outputs) for node in ("x", "y.z", "gone") if self.random.random() < 0.8
        }
        return scope

    def _value(self, depth: int) -> Any:
        match self.random.randrange(12):
            case 0 | 1 | 2 if depth:
                keys = self.random.sample(["a", "b", "c", "n", "list", "a b", "é", "in", ""], self.random.randrange(6))
                return {key: self._value(depth - 1) for key in keys}
            case 3 | 4 if depth:
                return [self._value(depth - 1) for _ in range(self.random.randrange(5))]
            case 5 if depth:
                return [self._scalar()] * self.random.choice((100, 2_000, 5_000, 20_000))
            case 6:
                return self.random.choice(("a", "ab", "é", "a\n")) * self.random.choice(
                    (1_000, 9_000, 20_000, MAX_SIZE // 2)
                )
            case 7 if depth:
                return {f"key{number}": number for number in range(self.random.choice((10, 500, 3_000)))}
        return self._scalar()

    def _scalar(self) -> Any:
        numbers = (0, 1, 2, -1, 2**63 - 1, -(2**63), 2**63, 10**4000, 0.0, -0.5, 1e308, 5e-324)
        texts = ("", "a", "ab", "text", "(a|a)*b", "12", "1e5", "\0", "é", "\U0001f600", "\ud800")
        return self.random.choice((None, True, False, *numbers, *texts))


def run(seed: int, cases: int) -> Counter[str]:
    """What became of the cases. Raises `AssertionError` for what must not be."""
    fuzzer = Fuzzer(seed)
    became: Counter[str] = Counter()
    for _ in range(cases):
        text, scope = fuzzer.case()
        try:
            expression = parse_expression(text, ROOTS)
        except ExprSyntaxError as error:
            assert 0 <= error.position <= len(text), repr(text)
            assert str(error).encode(), "what is said is text"
            became["refused"] += 1
            continue
        became[evaluated(expression, scope)] += 1
    return became


def evaluated(expression: Expression, scope: dict[str, Any]) -> str:
    start = time.process_time_ns()
    try:
        expression.evaluate(scope)
        became = "computed"
    except ExprError as error:
        assert len(str(error)) < 1000, expression.text
        assert str(error).encode(), "what is said is text"
        became = "failed"
    if time.process_time_ns() - start > MOST_NS:
        assert is_fast(expression, scope), f"takes more than a millisecond: {expression.text!r}"
    return became


if __name__ == "__main__":
    begun, chosen = time.perf_counter(), int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns()
    counted = run(chosen, int(sys.argv[1]))
    print(f"seed {chosen}: {dict(counted)} in {time.perf_counter() - begun:.0f} s")
