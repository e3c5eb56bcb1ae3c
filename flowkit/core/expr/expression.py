"""An expression that was read: what it uses, and what it gives for a scope."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowkit.core.expr.compiler import Compiler
from flowkit.core.expr.complaint import complaint
from flowkit.core.expr.failure import Failure
from flowkit.core.expr.limits import MAX_STEPS
from flowkit.core.expr.literals import measure
from flowkit.core.expr.parser import Parser
from flowkit.core.expr.paths import Run
from flowkit.core.expr.values import SCALARS


@dataclass(frozen=True, slots=True)
class Expression:
    """A condition or a value in FlowKit's subset of CEL.

    Attributes: `text` as written; `roots`, the names that it uses (`params`, `nodes`, ...); `nodes`, the ids that it
    reads as `nodes["id"].output`, in the order in which they first stand there; `guarded`, those of them that it asks
    about by `has`, and which so may have no output.
    """

    text: str
    roots: frozenset[str]
    nodes: tuple[str, ...]
    guarded: frozenset[str]
    _run: Run = field(repr=False, compare=False)
    _steps: int = field(repr=False, compare=False)

    def evaluate(self, scope: Mapping[str, Any]) -> Any:
        """The value for a scope: the value of each root by its name, and of `nodes` a mapping from ids to
        `{"output": ...}`, or to `{}` where there is none.

        What it gives is JSON, and may share parts with the scope: change neither. Raises `ExprError`.
        """
        meter = [self._steps]
        try:
            value = self._run(scope, meter)
            if type(value) not in SCALARS:
                measure(value, meter, (0, len(self.text)))
            return value
        except Failure as failure:
            error = failure.error(self.text)
        try:
            raise error
        finally:
            del error  # it holds this frame, so the frame must not hold it


def parse_expression(text: str, allowed: Container[str]) -> Expression:
    """Read an expression that stands where the roots in `allowed` have values. Raises `ExprSyntaxError`."""
    parser = Parser(text, allowed)
    whole = parser.parse()
    compiler = Compiler(text)
    run = compiler.compile(whole)
    if compiler.steps > MAX_STEPS:
        say = f"running it takes {compiler.steps:,} steps or more, and may take {MAX_STEPS:,}; compute a part in a node"
        raise complaint(text, 0, say)
    return Expression(
        text=text,
        roots=frozenset(parser.roots),
        nodes=tuple(parser.nodes),
        guarded=frozenset(parser.guarded),
        _run=run,
        _steps=MAX_STEPS - compiler.steps,
    )
