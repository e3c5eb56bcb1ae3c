"""Random expressions as Hypothesis makes them, and the scope that they are computed in."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from flowkit.core.expr.names import ROOTS
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

SCOPE: dict[str, Any] = {
    "params": {"a": 1, "b": [1, 2.5, "x", None, True], "c": {"a": "text", "b": {}}, "in": "in", "n": -7, "z": 0},
    "output": {"a": 3, "b": {"a": [0, {"a": "a"}]}, "list": [3, 1, 2], "names": ["b", "a"], "big": 2**63 - 1},
    "nodes": {"x": {"output": {"a": [1], "b": "b"}}, "y.z": {"output": None}, "gone": {}},
    "vars": {},
    "item": "aab",
    "index": 2,
    "task": {"a": 0.5, "b": False},
}  # and nothing for `previous`

NAMES = st.sampled_from(["a", "b", "c", "n", "z", "list", "names", "in", "big", "true", "size"])
NUMBERS = st.integers(-3, 9) | st.sampled_from([2**63 - 1, -(2**63), 0.5, -1.5, 1.0, 1e300, 1e-7])
TEXTS = st.sampled_from(["", "a", "b", "x", "aa", "text", "1", "2.5", "ä", "\n", '"', "\\", "\U0001f600"])
LITERALS = st.builds(Literal, st.none() | st.booleans() | NUMBERS | TEXTS)
OUTPUTS = st.builds(Output, st.sampled_from(["x", "y.z", "gone", "nowhere"]))
ROOT = st.builds(Root, st.sampled_from([name for name in ROOTS if name != "nodes"]))
PATTERNS = st.sampled_from(["a", "^a+b$", "x|t", "[a-c]{2}", "(?i)TEXT", "^$", "(", r"\bt"])


def _steps(parts: st.SearchStrategy[Node]) -> st.SearchStrategy[Step]:
    return (
        st.builds(Field, NAMES)
        | st.builds(Index, st.builds(Literal, NUMBERS | NAMES) | parts)
        | st.builds(Method, st.sampled_from(["contains", "startsWith", "endsWith"]), st.tuples(parts))
        | st.builds(Method, st.just("matches"), st.tuples(st.builds(Literal, PATTERNS.filter(lambda one: one != "("))))
        | st.builds(Method, st.just("matches"), st.tuples(st.builds(Arithmetic, st.just(Literal("")), _plus(PATTERNS))))
        | st.builds(Method, st.just("size"), st.just(()))
    )


def _plus(texts: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[tuple[str, Node], ...]]:
    return texts.map(lambda text: (("+", Literal(text)),))


def _tuples(parts: st.SearchStrategy[Any], least: int, most: int = 4) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(parts, min_size=least, max_size=most).map(tuple)


def _rest(signs: str, parts: st.SearchStrategy[Node]) -> st.SearchStrategy[tuple[tuple[str, Node], ...]]:
    return _tuples(st.tuples(st.sampled_from(list(signs)), parts), 1, 3)


def _larger(parts: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    selections = st.builds(Field, NAMES) | st.builds(Index, st.builds(Literal, NUMBERS | NAMES) | parts)
    starts = ROOT | OUTPUTS | parts
    keys = st.builds(Literal, TEXTS) | parts.filter(lambda part: not isinstance(part, Literal))
    comparisons = st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in"])
    return (
        st.builds(Path, starts, _tuples(_steps(parts), 1, 3))
        | st.builds(Has, OUTPUTS | st.builds(Path, starts, _tuples(selections, 1, 3)))
        | st.builds(Unary, st.sampled_from("!-"), parts)
        | st.builds(Arithmetic, parts, _rest("+-", parts))
        | st.builds(Arithmetic, parts, _rest("*/%", parts))
        | st.builds(Comparison, comparisons, parts, parts)
        | st.builds(Logic, st.sampled_from(["&&", "||"]), _tuples(parts, 2))
        | st.builds(Choice, _tuples(st.tuples(parts, parts), 1, 2), parts)
        | st.builds(ListOf, _tuples(parts, 0))
        | st.builds(MapOf, _tuples(st.tuples(keys, parts), 0, 3))
        | st.builds(Call, st.sampled_from(["size", "int", "double", "string"]), st.tuples(parts))
        | st.builds(Call, st.sampled_from(["min", "max"]), _tuples(parts, 1, 3))
    )


PARTS: st.SearchStrategy[Node] = st.recursive(LITERALS | ROOT | OUTPUTS, _larger, max_leaves=12)
