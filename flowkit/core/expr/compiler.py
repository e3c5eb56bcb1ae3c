"""Makes one function of an expression's parts: closures over closures, nothing is looked up or decided twice."""

from __future__ import annotations

from typing import Any, Final

from flowkit.core.expr import logic, paths
from flowkit.core.expr.arithmetic import arithmetic, negation
from flowkit.core.expr.complaint import complaint
from flowkit.core.expr.failure import Span
from flowkit.core.expr.functions import call, matches_literal
from flowkit.core.expr.limits import MAX_PROGRAM
from flowkit.core.expr.literals import list_of, map_of
from flowkit.core.expr.paths import Run
from flowkit.core.expr.regex import PatternError, Program, build, parse_pattern, size_of
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

# What running a part costs, in steps; more where it depends on how many there are of something.
COSTS: Final[dict[type, int]] = {
    Literal: 1, Root: 1, Output: 3, Path: 1, Has: 4, Comparison: 3, Logic: 2, Choice: 1, Unary: 2, Arithmetic: 1,
    ListOf: 4, MapOf: 2, Call: 5,
}  # fmt: skip
DEARER_CALLS: Final = {"int": 5, "double": 8, "string": 6, "min": 4, "max": 4}
PER_STEP, PER_COMPUTED_STEP, PER_OPERATOR, PER_CASE, PER_ENTRY = 1, 3, 2, 1, 2


class Compiler:
    """Compiles one expression; `steps` is what running all of its parts once costs."""

    def __init__(self, text: str) -> None:
        self.steps = 0
        self._text = text
        self._patterns = 0  # the size of their programs

    def compile(self, part: Node) -> Run:
        """The function that computes `part`. Raises `ExprSyntaxError` for a pattern that cannot be read."""
        self.steps += COSTS[type(part)]
        match part:
            case Literal(value):
                return lambda _scope, _meter: value
            case Root(name):
                return paths.root(name, part.at)
            case Output(node):
                return paths.output(node, part.at)
            case Path(target, steps):
                return self._path(target, steps)
            case Has(path):
                return self._has(path)
            case Comparison(sign, left, right):
                return self._comparison(sign, left, right, part.at)
            case Logic(sign, operands):
                return logic.logic(sign, [(self.compile(operand), operand.at) for operand in operands])
            case Choice(cases, otherwise):
                return self._choice(cases, otherwise)
            case Unary(sign, operand):
                value = self.compile(operand)
                return negation(value, part.at) if sign == "-" else logic.inversion(value, operand.at)
            case Arithmetic(first, rest):
                return self._arithmetic(first, rest)
            case ListOf(items):
                return self._list(items)
            case MapOf(entries):
                return self._map(entries)
            case Call(name, arguments):
                return self._call(name, [], arguments, part.at)

    # Operators.

    def _comparison(self, sign: str, left: Node, right: Node, at: Span) -> Run:
        match right:
            case Literal(value):
                return logic.literal_comparison(sign, self.compile(left), value, at)
            case ListOf(items) if sign == "in" and (constants := _constants(items)):
                return logic.literal_comparison(sign, self.compile(left), constants, at)
        return logic.comparison(sign, self.compile(left), self.compile(right), at)

    def _choice(self, cases: tuple[tuple[Node, Node], ...], otherwise: Node) -> Run:
        self.steps += PER_CASE * len(cases)
        compiled = [(self.compile(test), test.at, self.compile(value)) for test, value in cases]
        return logic.choice(compiled, self.compile(otherwise))

    def _arithmetic(self, first: Node, rest: tuple[tuple[str, Node], ...]) -> Run:
        self.steps += PER_OPERATOR * len(rest)
        compiled = [(sign, self.compile(operand), (first.at[0], operand.at[1])) for sign, operand in rest]
        return arithmetic(self.compile(first), compiled)

    # Values.

    def _list(self, items: tuple[Node, ...]) -> Run:
        if constants := _constants(items):
            self.steps += len(items)
            return lambda _scope, _meter: constants.copy()
        return list_of([self.compile(item) for item in items])

    def _map(self, entries: tuple[tuple[Node, Node], ...]) -> Run:
        self.steps += PER_ENTRY * len(entries)
        return map_of([(self.compile(key), key.at, self.compile(value)) for key, value in entries])

    # Paths.

    def _path(self, target: Node, steps: tuple[Step, ...]) -> Run:
        match target, steps[0]:
            case Root(name), Field(key):
                self.steps += COSTS[Root] + PER_STEP
                run, steps = paths.root_field(name, key, target.at, steps[0].at), steps[1:]
            case _:
                run = self.compile(target)
        return self._steps(run, steps)

    def _steps(self, run: Run, steps: tuple[Step, ...]) -> Run:
        constant: list[tuple[Any, Span]] = []
        for step in steps:
            if key := _constant_key(step):
                self.steps += PER_STEP
                constant.append((key[0], step.at))
            else:
                run = self._step(paths.constant_path(run, tuple(constant)) if constant else run, step)
                constant = []
        return paths.constant_path(run, tuple(constant)) if constant else run

    def _step(self, target: Run, step: Step) -> Run:
        match step:
            case Index(key):
                self.steps += PER_COMPUTED_STEP
                return paths.computed_step(target, self.compile(key), step.at)
            case Method(name, arguments):
                self.steps += COSTS[Call]
                return self._call(name, [target], arguments, step.at)
        raise AssertionError(step)

    def _has(self, path: Path | Output) -> Run:
        target, steps = (path.target, path.steps) if isinstance(path, Path) else (path, ())
        self.steps += PER_COMPUTED_STEP * len(steps)
        keys = [self._key(step) for step in steps]
        match target:
            case Root(name):
                start = paths.root_or_missing(name)
            case Output(node):
                start = paths.output_or_missing(node)
            case _:
                start = self.compile(target)
        return paths.has(start, keys, path.at)

    def _key(self, step: Step) -> tuple[Any, Run | None]:
        if isinstance(step, Index) and not isinstance(step.key, Literal):
            return None, self.compile(step.key)
        return _constant_key(step) or (None, None)

    # Calls.

    def _call(self, name: str, before: list[Run], arguments: tuple[Node, ...], at: Span) -> Run:
        match name, arguments:
            case "matches", (Literal(str(pattern)) as literal,):
                return matches_literal(before[0], pattern, self._program(pattern, literal.at[0]), at)
        self.steps += DEARER_CALLS.get(name, 0)
        return call(name, [*before, *(self.compile(argument) for argument in arguments)], at)

    def _program(self, pattern: str, position: int) -> Program:
        try:
            parsed = parse_pattern(pattern)
            self._patterns += size_of(parsed)
        except PatternError as error:
            say = f"this pattern cannot be used, from its character {error.position + 1} on: {error.say}"
            raise complaint(self._text, position, say) from None
        if self._patterns > MAX_PROGRAM:
            say = f"the patterns so far have more than {MAX_PROGRAM:,} parts when their repetitions are written out"
            raise complaint(self._text, position, f"{say}; ask for fewer")
        return build(parsed)


def _constant_key(step: Step) -> tuple[Any, None] | None:
    match step:
        case Field(key) | Index(Literal(key)):
            return key, None
    return None


def _constants(items: tuple[Node, ...]) -> list[Any]:
    """The values of a list of literals, nothing for any other list."""
    values = [item.value for item in items if isinstance(item, Literal)]
    return values if len(values) == len(items) else []
