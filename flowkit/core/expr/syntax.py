"""The parts of an expression as it was written.

What stands side by side is one part however long it is (`a + b - c`, `a.b[0].c`), so that parts nest no deeper than the
text does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from flowkit.core.expr.failure import Span

NOWHERE: Span = (0, 0)


@dataclass(frozen=True, slots=True)
class Part:
    """`at`: where it stands in the text. Parts that say the same are equal wherever they stand."""

    at: Span = field(default=NOWHERE, compare=False, repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Literal(Part):
    """A string, a number, true, false or null."""

    value: Any


@dataclass(frozen=True, slots=True)
class Root(Part):
    """`params` and the like."""

    name: str


@dataclass(frozen=True, slots=True)
class Output(Part):
    """`nodes["id"].output`."""

    node: str


@dataclass(frozen=True, slots=True)
class Field(Part):
    """`.name`, behind something."""

    name: str


@dataclass(frozen=True, slots=True)
class Index(Part):
    """`[key]`, behind something."""

    key: Node


@dataclass(frozen=True, slots=True)
class Method(Part):
    """`.name(arguments)`, behind something."""

    name: str
    arguments: tuple[Node, ...]


Step: TypeAlias = "Field | Index | Method"


@dataclass(frozen=True, slots=True)
class Path(Part):
    """Steps from a value to a value in it, or to what a method makes of it."""

    target: Node
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Call(Part):
    """`name(arguments)`."""

    name: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Has(Part):
    """`has(path)`."""

    path: Path | Output


@dataclass(frozen=True, slots=True)
class Unary(Part):
    """`!operand` or `-operand`."""

    sign: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Arithmetic(Part):
    """Operators of one precedence, from left to right: `+ -` or `* / %`."""

    first: Node
    rest: tuple[tuple[str, Node], ...]


@dataclass(frozen=True, slots=True)
class Comparison(Part):
    """`left sign right`, where the sign may be `in`."""

    sign: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Logic(Part):
    """All of the operands (`&&`) or any of them (`||`)."""

    sign: str
    operands: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice(Part):
    """`test ? value : test ? value : otherwise`."""

    cases: tuple[tuple[Node, Node], ...]
    otherwise: Node


@dataclass(frozen=True, slots=True)
class ListOf(Part):
    """`[item, ...]`."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class MapOf(Part):
    """`{key: value, ...}`."""

    entries: tuple[tuple[Node, Node], ...]


Node: TypeAlias = (
    "Literal | Root | Output | Path | Call | Has | Unary | Arithmetic | Comparison | Logic | Choice | ListOf | MapOf"
)
