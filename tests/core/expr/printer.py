"""Writes the parts of an expression as text, with parentheses only where precedence asks for them."""

from __future__ import annotations

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

CHOICE, OR, AND, COMPARING, ADDING, MULTIPLYING, SIGNED, POSTFIX, ATOM = range(9)


def printed(part: Node) -> str:
    return _within(part, CHOICE)


def _within(part: Node, tightness: int) -> str:
    text = _text(part)
    return text if _tightness(part) >= tightness else f"({text})"


def _tightness(part: Node) -> int:
    match part:
        case Choice():
            return CHOICE
        case Logic(sign=sign):
            return OR if sign == "||" else AND
        case Comparison():
            return COMPARING
        case Arithmetic(rest=rest):
            return ADDING if rest[0][0] in "+-" else MULTIPLYING
        case Unary():
            return SIGNED
        case Path():
            return POSTFIX
    return ATOM


def _text(part: Node) -> str:
    match part:
        case Literal(value):
            return _literal(value)
        case Root(name):
            return name
        case Output(node):
            return f"nodes[{_literal(node)}].output"
        case Path(target, steps):
            return _target(target) + "".join(map(_step, steps))
        case Has(path):
            return f"has({printed(path)})"
        case Call(name, arguments):
            return f"{name}({_several(arguments)})"
        case Unary(sign, operand):
            bare = isinstance(operand, Literal) and sign == "-" and type(operand.value) in (int, float)
            return f"{sign}({_text(operand)})" if bare else sign + _within(operand, SIGNED)
        case Logic(sign, operands):
            return f" {sign} ".join(_within(operand, _tightness(part) + 1) for operand in operands)
        case Comparison(sign, left, right):
            return f"{_within(left, ADDING)} {sign} {_within(right, ADDING)}"
        case Arithmetic(first, rest):
            inner = _tightness(part) + 1
            return _within(first, inner) + "".join(f" {sign} {_within(operand, inner)}" for sign, operand in rest)
        case Choice(cases, otherwise):
            before = "".join(f"{_within(test, OR)} ? {_within(value, OR)} : " for test, value in cases)
            return before + _within(otherwise, OR)
        case ListOf(items):
            return f"[{_several(items)}]"
        case MapOf(entries):
            return "{" + ", ".join(f"{printed(key)}: {printed(value)}" for key, value in entries) + "}"


def _target(target: Node) -> str:
    number = isinstance(target, Literal) and type(target.value) in (int, float)
    return f"({_text(target)})" if number else _within(target, ATOM)


def _step(step: Step) -> str:
    match step:
        case Field(name):
            return f".{name}"
        case Index(key):
            return f"[{printed(key)}]"
        case Method(name, arguments):
            return f".{name}({_several(arguments)})"


def _several(parts: tuple[Node, ...]) -> str:
    return ", ".join(map(printed, parts))


def _literal(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return '"' + "".join(map(_character, value)) + '"'
    return repr(value)


def _character(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    return character if character.isprintable() else f"\\U{ord(character):08x}"
