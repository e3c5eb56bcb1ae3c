"""Random expressions that mostly have a value: each part is made for the type that is wanted there."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

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

NUMBER, TEXT, TRUTH, LIST, OBJECT, NOTHING = "number", "text", "truth", "list", "object", "nothing"
WANTED = (NUMBER, TEXT, TRUTH, LIST, OBJECT)
KINDS = {int: NUMBER, float: NUMBER, str: TEXT, bool: TRUTH, list: LIST, dict: OBJECT, type(None): NOTHING}

INTS = (0, 1, 2, 3, 7, -1, -5, 10, 64, 2**31, 2**63 - 1, -(2**63))
FLOATS = (0.0, 0.5, -1.5, 2.0, 1e10, 1e300, 5e-324, -0.0)
TEXTS = ("", "a", "b", "ab", "aab", "text", "x y", "12", "-3", "1.5", "ä", "\n", "'", "\\")
PATTERNS = ("a", "^a+b$", "x|t", "[a-c]{2}", "(?i)TEXT", "^$", r"\bt", r"\d+", "(a|a)*$", "[^a]", "a{2,3}")
ODD = 0.02  # how often the wrong type is given


class Generator:
    """Makes parts for a scope whose paths it knows."""

    def __init__(self, random: Random, scope: dict[str, Any]) -> None:
        self._random = random
        self._known: dict[str, list[Node]] = {kind: [] for kind in KINDS.values()}
        for name, value in scope.items():
            if name == "nodes":
                self._know_outputs(value)
            else:
                self._know(Root(name), (), value)

    def part(self, depth: int = 4, kind: str = "") -> Node:
        """A part of at most this depth, mostly of this type."""
        if not kind or self._random.random() < ODD:
            kind = self._random.choice(WANTED)
        if depth <= 0 or self._random.random() < 0.15:
            return self._simple(kind)
        if self._random.random() < 0.08:
            cases = [
                (self.part(depth - 1, TRUTH), self.part(depth - 1, kind)) for _ in range(self._random.choice((1, 1, 2)))
            ]
            return Choice(tuple(cases), self.part(depth - 1, kind))
        makers = {NUMBER: self._number, TEXT: self._text, TRUTH: self._truth, LIST: self._list, OBJECT: self._object}
        return makers[kind](depth - 1)

    # What there is to refer to.

    def _know_outputs(self, nodes: dict[str, Any]) -> None:
        for node, entry in nodes.items():
            if "output" in entry:
                self._know(Output(node), (), entry["output"])

    def _know(self, target: Node, steps: tuple[Step, ...], value: Any) -> None:
        self._known[KINDS[type(value)]].append(Path(target, steps) if steps else target)
        if isinstance(value, dict):
            for key, item in list(value.items())[:20]:
                plain = key.isidentifier() and key.isascii()
                self._know(target, (*steps, Field(key) if plain else Index(Literal(key))), item)
        if isinstance(value, list):
            for number, item in enumerate(value[:5]):
                self._know(target, (*steps, Index(Literal(number))), item)

    def _simple(self, kind: str) -> Node:
        if self._known[kind] and self._random.random() < 0.5:
            return self._random.choice(self._known[kind])
        match kind:
            case "number":
                return Literal(self._random.choice(INTS + FLOATS))
            case "text":
                return Literal(self._random.choice(TEXTS))
            case "truth":
                return Literal(self._random.random() < 0.5)
            case "list":
                return ListOf(tuple(self.part(0) for _ in range(self._random.randrange(4))))
        return MapOf(
            tuple((Literal(key), self.part(0)) for key in self._random.sample(TEXTS, self._random.randrange(3)))
        )

    # Parts that have parts.

    def _pick(self, *makers: Callable[[], Node]) -> Node:
        return self._random.choice(makers)()

    def _several(self, depth: int, kind: str) -> tuple[Node, ...]:
        return tuple(self.part(depth, kind) for _ in range(self._random.randrange(2, 4)))

    def _signed(self, signs: str, depth: int, kind: str) -> Node:
        first, *rest = self._several(depth, kind)
        return Arithmetic(first, tuple((self._random.choice(signs), part) for part in rest))

    def _any_of(self, depth: int, *kinds: str) -> Node:
        return self.part(depth, self._random.choice(kinds))

    def _extreme(self, depth: int, kind: str) -> Node:
        name, parts = self._random.choice(("min", "max")), self._several(depth, kind)
        return Call(name, parts if self._random.random() < 0.5 else (ListOf(parts),))

    def _number(self, depth: int) -> Node:
        return self._pick(
            lambda: self._signed("+-", depth, NUMBER),
            lambda: self._signed("*/%", depth, NUMBER),
            lambda: Unary("-", self.part(depth, NUMBER)),
            lambda: Call("size", (self._any_of(depth, TEXT, LIST, OBJECT),)),
            lambda: Path(self._any_of(depth, TEXT, LIST, OBJECT), (Method("size", ()),)),
            lambda: self._extreme(depth, NUMBER),
            lambda: Call(self._random.choice(("int", "double")), (self._any_of(depth, NUMBER, TEXT),)),
            lambda: Path(ListOf(self._several(depth, NUMBER)), (Index(self.part(depth, NUMBER)),)),
        )

    def _text(self, depth: int) -> Node:
        return self._pick(
            lambda: self._signed("+", depth, TEXT),
            lambda: Call("string", (self._any_of(depth, NUMBER, TEXT, TRUTH),)),
            lambda: self._extreme(depth, TEXT),
            lambda: Path(MapOf(((Literal("a"), self.part(depth, TEXT)),)), (Field("a"),)),
            lambda: Path(self.part(depth, LIST), (Index(self.part(depth, NUMBER)),)),
        )

    def _truth(self, depth: int) -> Node:
        return self._pick(
            lambda: self._compared(("==", "!="), depth, WANTED),
            lambda: self._compared(("<", "<=", ">", ">="), depth, (NUMBER, TEXT)),
            lambda: Comparison("in", self._any_of(depth, *WANTED), self.part(depth, LIST)),
            lambda: Comparison("in", self.part(depth, TEXT), self.part(depth, OBJECT)),
            lambda: Logic(self._random.choice(("&&", "||")), self._several(depth, TRUTH)),
            lambda: Unary("!", self.part(depth, TRUTH)),
            lambda: self._asked_of_text(depth),
            lambda: self._asked(depth),
        )

    def _compared(self, signs: tuple[str, ...], depth: int, kinds: tuple[str, ...]) -> Node:
        kind = self._random.choice(kinds)
        return Comparison(self._random.choice(signs), self.part(depth, kind), self.part(depth, kind))

    def _asked_of_text(self, depth: int) -> Node:
        ask = self._random.choice(("contains", "startsWith", "endsWith", "matches", "matches"))
        part = Literal(self._random.choice(PATTERNS)) if ask == "matches" else self.part(depth, TEXT)
        return Path(self.part(depth, TEXT), (Method(ask, (part,)),))

    def _asked(self, depth: int) -> Node:
        steps = tuple(self._random.choice((Field("a"), Field("b"), Index(Literal(0)), Index(self.part(depth, NUMBER))))
                      for _ in range(self._random.randrange(1, 4)))  # fmt: skip
        target = self._random.choice(
            (Root("params"), Root("previous"), Output("x"), Output("gone"), self.part(depth, OBJECT))
        )
        return Has(Path(target, steps))

    def _list(self, depth: int) -> Node:
        return self._pick(
            lambda: ListOf(tuple(self.part(depth) for _ in range(self._random.randrange(4)))),
            lambda: Arithmetic(self.part(depth, LIST), (("+", self.part(depth, LIST)),)),
        )

    def _object(self, depth: int) -> Node:
        keys = self._random.sample(TEXTS, self._random.randrange(1, 3))
        entries = [(Literal(key), self.part(depth)) for key in keys]
        if self._random.random() < 0.2:
            entries.append((Arithmetic(Literal("key "), (("+", self.part(depth, TEXT)),)), self.part(depth)))
        return MapOf(tuple(entries))
