"""Makes one function of an expression's parts: closures over closures, nothing is looked up or decided twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowkit.core.expr import logic, paths
from flowkit.core.expr.arithmetic import OPERATORS, negate
from flowkit.core.expr.failure import Span
from flowkit.core.expr.functions import call
from flowkit.core.expr.limits import Meter
from flowkit.core.expr.literals import list_of, map_of
from flowkit.core.expr.paths import Run
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


class Compiler:
    """Compiles one expression; `steps` is how many parts it has, which is what running each of them once costs."""

    def __init__(self) -> None:
        self.steps = 0

    def compile(self, part: Node) -> Run:
        """The function that computes `part`."""
        self.steps += 1
        match part:
            case Literal(value):
                return lambda _scope, _meter: value
            case Root(name):
                return paths.root(name, part.at)
            case Output(node):
                return paths.output(node, part.at)
            case Path(target, steps):
                return self._path(self.compile(target), steps)
            case Has(path):
                return self._has(path)
            case Comparison(sign, left, right):
                return logic.comparison(sign, self.compile(left), self.compile(right), part.at)
            case Logic(sign, operands):
                return logic.logic(sign, [(self.compile(operand), operand.at) for operand in operands])
            case Choice(cases, otherwise):
                return self._choice(cases, otherwise)
            case Unary(sign, operand):
                return self._unary(sign, operand, part.at)
            case Arithmetic(first, rest):
                return self._arithmetic(first, rest, part.at)
            case ListOf(items):
                return list_of([self.compile(item) for item in items])
            case MapOf(entries):
                return map_of([(self.compile(key), key.at, self.compile(value)) for key, value in entries])
            case Call(name, arguments):
                return self._call(name, [], arguments, part.at)

    def _choice(self, cases: tuple[tuple[Node, Node], ...], otherwise: Node) -> Run:
        compiled = [(self.compile(test), test.at, self.compile(value)) for test, value in cases]
        return logic.choice(compiled, self.compile(otherwise))

    def _unary(self, sign: str, operand: Node, at: Span) -> Run:
        value = self.compile(operand)
        if sign == "-":
            return lambda scope, meter: negate(value(scope, meter), at)
        return logic.negation(value, operand.at)

    def _arithmetic(self, first: Node, rest: tuple[tuple[str, Node], ...], at: Span) -> Run:
        begin = self.compile(first)
        self.steps += len(rest)
        chain = [(OPERATORS[sign], self.compile(part), (at[0], part.at[1])) for sign, part in rest]

        def run(scope: Mapping[str, Any], meter: Meter) -> Any:
            value = begin(scope, meter)
            for operator, operand, upto in chain:
                value = operator(value, operand(scope, meter), meter, upto)
            return value

        return run

    def _path(self, target: Run, steps: tuple[Step, ...]) -> Run:
        self.steps += len(steps)
        constant: list[tuple[Any, Span]] = []
        for number, step in enumerate(steps):
            match step:
                case Field(name) | Index(Literal(name)):
                    constant.append((name, step.at))
                    continue
            run = paths.constant_path(target, tuple(constant)) if constant else target
            return self._path(self._step(run, step), steps[number + 1 :])
        return paths.constant_path(target, tuple(constant)) if constant else target

    def _step(self, target: Run, step: Step) -> Run:
        match step:
            case Index(key):
                return paths.computed_step(target, self.compile(key), step.at)
            case Method():
                return self._call(step.name, [target], step.arguments, step.at)
        raise AssertionError(step)

    def _call(self, name: str, before: list[Run], arguments: tuple[Node, ...], at: Span) -> Run:
        return call(name, [*before, *(self.compile(argument) for argument in arguments)], at)

    def _has(self, path: Path | Output) -> Run:
        if isinstance(path, Output):
            node = path.node
            return lambda scope, _meter: paths.look_up_output(scope, node) is not paths.MISSING
        keys = [self.compile(step.key) if isinstance(step, Index) else _constant(step) for step in path.steps]
        return paths.has(self._start(path.target), keys, path.at)

    def _start(self, target: Node) -> Run:
        match target:
            case Root(name):
                return lambda scope, _meter: scope.get(name, paths.MISSING)
            case Output(node):
                return lambda scope, _meter: paths.look_up_output(scope, node)
        return self.compile(target)


def _constant(step: Step) -> Run:
    name = step.name if isinstance(step, Field) else ""
    return lambda _scope, _meter: name
