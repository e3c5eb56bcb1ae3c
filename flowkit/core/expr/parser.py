"""Reads an expression: from its words to its parts, with CEL's precedence.

Precedence climbing: one call for each part in a part, so that the depth that is counted is the depth of the stack.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import replace
from typing import Final, NoReturn, TypeVar

from flowkit.core.expr import names
from flowkit.core.expr.complaint import complaint
from flowkit.core.expr.failure import Span
from flowkit.core.expr.limits import MAX_DEPTH, MAX_TEXT
from flowkit.core.expr.syntax import (
    Arithmetic,
    Call,
    Choice,
    Comparison,
    Field,
    Has,
    Index,
    ListOf,
    Literal,
    Logic,
    MapOf,
    Method,
    Node,
    Output,
    Path,
    Root,
    Step,
    Unary,
)
from flowkit.core.expr.tokens import BAD, END, FLOAT, INT, NAME, SIGN, STRING, Token, tokens_of
from flowkit.core.problems import shown
from flowkit.errors import ExprSyntaxError, did_you_mean

LEVELS: Final = {
    "||": 0, "&&": 1, **dict.fromkeys(names.COMPARISONS, 2), "+": 3, "-": 3, "*": 4, "/": 4, "%": 4,
}  # fmt: skip
LOGIC: Final = 1
COMPARING: Final = 2
NODE_FORM: Final = 'nodes are named by a literal: nodes["id"].output'

T = TypeVar("T")


class Parser:
    """Reads one expression; `roots` and `nodes` are what it has used so far, in order, and `guarded` the nodes that it
    asked about by `has`."""

    def __init__(self, text: str, allowed: Container[str]) -> None:
        if len(text) > MAX_TEXT:
            say = f"an expression has at most {MAX_TEXT:,} characters, this one has {len(text):,}; compute it in a node"
            raise ExprSyntaxError(say, position=MAX_TEXT)
        self.roots: dict[str, None] = {}
        self.nodes: dict[str, None] = {}
        self.guarded: set[str] = set()
        self._mentioned: list[str] = []
        self._text = text
        self._known = [name for name in names.ROOTS if name in allowed]
        self._tokens = tokens_of(text)
        self._at = 0
        self._depth = 0

    def parse(self) -> Node:
        """The whole. Raises `ExprSyntaxError`."""
        if self._next.kind == END:
            self._fail("the expression is empty; write a condition or a value, such as output.errors > 0")
        whole = self._expression()
        if self._next.kind != END:
            self._fail(f"expected an operator or the end, found {self._next}{self._advice()}")
        return whole

    # Words.

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _take(self) -> Token:
        token = self._tokens[self._at]
        self._at += 1
        return token

    def _sees(self, sign: str) -> bool:
        token = self._tokens[self._at]
        return token.kind == SIGN and token.text == sign

    def _skip(self, sign: str) -> bool:
        seen = self._sees(sign)
        self._at += seen
        return seen

    def _expect(self, sign: str, for_what: str) -> Token:
        if not self._sees(sign):
            self._fail(f"expected `{sign}` {for_what}, found {self._next}{self._advice()}")
        return self._take()

    def _advice(self) -> str:
        token = self._next
        if token.kind == FLOAT and token.text.startswith("."):
            return f"; an element is written x[{token.text[1:60]}]"
        if token.kind == SIGN and token.text == "?":
            return "; put a choice that stands in another in parentheses"
        instead = names.INSTEAD.get(token.text) if token.kind == NAME else None
        return f"; write {instead}" if instead else ""

    def _fail(self, say: str, at: int | None = None) -> NoReturn:
        if at is None and self._next.kind == BAD:
            say = self._next.value
        raise complaint(self._text, self._next.start if at is None else at, say)

    def _span(self, start: int) -> Span:
        return start, self._tokens[self._at - 1].end

    def _deeper(self) -> None:
        if self._depth == MAX_DEPTH:
            self._fail(f"an expression is nested at most {MAX_DEPTH} deep; compute a part of it in a node")
        self._depth += 1

    # Operators.

    def _expression(self) -> Node:
        self._deeper()
        start = self._next.start
        test = self._operators(0)
        cases = []
        while self._skip("?"):
            value = self._operators(0)
            self._expect(":", "between the two values of a choice")
            cases.append((test, value))
            test = self._operators(0)
        self._depth -= 1
        return Choice(tuple(cases), test, at=self._span(start)) if cases else test

    def _operand(self, level: int) -> Node:
        self._deeper()
        operand = self._operators(level)
        self._depth -= 1
        return operand

    def _operators(self, loosest: int) -> Node:
        start = self._next.start
        left = self._unary()
        while (level := self._level()) >= loosest:
            if level <= LOGIC:
                left = self._logic(left, level, start)
            elif level == COMPARING:
                left = self._comparison(left, start)
            else:
                left = self._arithmetic(left, level, start)
        return left

    def _level(self) -> int:
        token = self._next
        return LEVELS.get(token.text, -1) if token.kind == SIGN or token.text == names.IN else -1

    def _logic(self, first: Node, level: int, start: int) -> Node:
        sign = self._next.text
        operands = [first]
        while self._skip(sign):
            operands.append(self._operand(level + 1))
        return Logic(sign, tuple(operands), at=self._span(start))

    def _comparison(self, left: Node, start: int) -> Node:
        sign = self._take().text
        right = self._operand(COMPARING + 1)
        if self._level() == COMPARING:
            self._fail("comparisons do not chain; write a < b && b < c, or use parentheses")
        return Comparison(sign, left, right, at=self._span(start))

    def _arithmetic(self, first: Node, level: int, start: int) -> Node:
        rest = []
        while self._level() == level:
            sign = self._take().text
            rest.append((sign, self._operand(level + 1)))
        return Arithmetic(first, tuple(rest), at=self._span(start))

    def _unary(self) -> Node:
        token = self._next
        if token.kind != SIGN or token.text not in ("!", "-"):
            return self._steps(self._primary(), token.start)
        self._take()
        if token.text == "-" and self._next.kind in (INT, FLOAT):
            return self._steps(Literal(-self._take().value, at=self._span(token.start)), token.start)
        self._deeper()
        operand = self._unary()
        self._depth -= 1
        return Unary(token.text, operand, at=self._span(token.start))

    # Steps behind a value.

    def _steps(self, target: Node, start: int) -> Node:
        steps: list[Step] = []
        while True:
            if self._skip("."):
                steps.append(self._member(start))
            elif self._skip("["):
                key = self._expression()
                self._expect("]", "behind an index")
                steps.append(Index(key, at=self._span(start)))
            else:
                break
        return Path(target, tuple(steps), at=self._span(start)) if steps else target

    def _member(self, start: int) -> Step:
        name = self._next
        if name.kind != NAME:
            say = f'expected a field behind the dot, found {name}; other names are written x["name"]'
            self._fail(say)
        self._take()
        if not self._sees("("):
            return Field(name.text, at=self._span(start))
        self._check_name(name, names.METHODS, names.FUNCTIONS, "method")
        arguments = self._arguments(name, names.METHODS[name.text])
        return Method(name.text, arguments, at=self._span(start))

    # Values.

    def _primary(self) -> Node:
        token = self._next
        if token.kind == NAME:
            return self._named()
        if token.kind in (INT, FLOAT, STRING):
            if token.value == 2**63 and token.kind == INT:
                self._fail("an integer has at most 64 bits; write it as a float, such as 1e20")
            self._take()
            return Literal(token.value, at=(token.start, token.end))
        if self._skip("("):
            inner = self._expression()
            self._expect(")", "to close the parenthesis")
            return replace(inner, at=self._span(token.start))
        if self._skip("["):
            return self._list(token.start)
        if self._skip("{"):
            return self._map(token.start)
        self._fail(f"expected a value, found {token}")

    def _list(self, start: int) -> Node:
        items = self._several("]", self._expression, "to end the list")
        return ListOf(tuple(items), at=self._span(start))

    def _map(self, start: int) -> Node:
        entries = self._several("}", self._entry, "to end the map")
        return MapOf(tuple(entries), at=self._span(start))

    def _entry(self) -> tuple[Node, Node]:
        token = self._next
        if token.kind == NAME and self._tokens[self._at + 1].text == ":" and token.text not in self._known:
            self._fail(f'a key is a string; write "{token.text[:60]}"')
        key = self._expression()
        if isinstance(key, Literal) and not isinstance(key.value, str):
            self._fail(f"a key is a string, found {shown(key.value)}; put it in quotes", token.start)
        self._expect(":", "between a key and its value")
        return key, self._expression()

    def _several(self, closing: str, read: Callable[[], T], for_what: str) -> list[T]:
        found: list[T] = []
        while not self._sees(closing):
            found.append(read())
            if not self._skip(","):
                break
        if not self._sees(closing):
            self._fail(f"expected `,` or `{closing}` {for_what}, found {self._next}{self._advice()}")
        self._take()
        return found

    def _named(self) -> Node:
        token = self._next
        if self._tokens[self._at + 1].text == "(" and token.text not in names.WORDS:
            return self._call()
        if token.text in names.WORDS:
            self._take()
            return Literal(names.WORDS[token.text], at=(token.start, token.end))
        self._check_root(token)
        self._take()
        self.roots[token.text] = None
        return self._node(token.start) if token.text == "nodes" else Root(token.text, at=(token.start, token.end))

    def _node(self, start: int) -> Node:
        words = self._tokens[self._at : self._at + 5]
        said = [word.text for word in words if word.kind != STRING]
        if len(words) < 5 or words[1].kind != STRING or said != ["[", "]", ".", "output"]:
            self._fail(NODE_FORM, start)
        self._at += 5
        name = words[1].value
        self.nodes[name] = None
        self._mentioned.append(name)
        return Output(name, at=self._span(start))

    def _check_root(self, token: Token) -> None:
        name, known = token.text, self._known
        if name in known:
            return
        here = f"here are {', '.join(known)}" if known else "no name can be used here, only literals"
        if name in names.ROOTS:
            self._fail(f"{name} has no value at this place; {here}")
        if name in names.INSTEAD:
            self._fail(f"{name} is not a name of this language; write {names.INSTEAD[name]}")
        if name in names.FUNCTIONS or name in names.METHODS or name == names.HAS:
            self._fail(f"{name} is a function; call it, as in {_example(name)}")
        self._fail(f"there is no {shown(name)}{did_you_mean(name[:60], [*known, *names.WORDS])}; {here}")

    # Calls.

    def _call(self) -> Node:
        token = self._take()
        if token.text == names.HAS:
            return self._has(token)
        self._check_name(token, names.FUNCTIONS, names.METHODS, "function")
        arguments = self._arguments(token, names.FUNCTIONS[token.text])
        return Call(token.text, arguments, at=self._span(token.start))

    def _has(self, token: Token) -> Node:
        before = len(self._mentioned)
        (path,) = self._arguments(token, (1, 1))
        self.guarded.update(self._mentioned[before:])
        match path:
            case Output():
                return Has(path, at=self._span(token.start))
            case Path(steps=steps) if not any(isinstance(step, Method) for step in steps):
                return Has(path, at=self._span(token.start))
        self._fail("has() asks about a field or an index, such as has(params.mode) or has(output.rows[0])", token.start)

    def _arguments(self, token: Token, count: tuple[int, int]) -> tuple[Node, ...]:
        self._expect("(", "before the arguments")
        arguments = self._several(")", self._expression, f"to end the arguments of {token.text}")
        least, most = count
        if not least <= len(arguments) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            many = "argument" if wanted == "1" else "arguments"
            self._fail(f"{token.text} takes {wanted} {many}, not {len(arguments)}: {_example(token.text)}", token.start)
        return tuple(arguments)

    def _check_name(self, token: Token, known: Container[str], others: Container[str], noun: str) -> None:
        name = token.text
        if name in known:
            return
        if name in others or name == names.HAS:
            self._fail(f"{name} is not a {noun}; write {_example(name)}", token.start)
        if name in names.INSTEAD:
            self._fail(f"there is no {noun} {name}; write {names.INSTEAD[name]}", token.start)
        every = [*names.FUNCTIONS, *names.METHODS, names.HAS]
        near = did_you_mean(name[:60], every) or f"; there are {', '.join(dict.fromkeys(every))}"
        self._fail(f"there is no {noun} {shown(name)}{near}", token.start)


def _example(name: str) -> str:
    if name == names.HAS:
        return "has(x.y)"
    if name in ("min", "max"):
        return f"{name}(a, b) or {name}(list)"
    if name in names.FUNCTIONS:
        return f"{name}(x)"
    return f"text.{name}(part)"
