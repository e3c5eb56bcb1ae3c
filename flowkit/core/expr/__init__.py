"""FlowKit's own expressions, a subset of CEL: read once, run often, bounded in all that they may cost."""

from __future__ import annotations

from flowkit.core.expr.expression import Expression, parse_expression
from flowkit.errors import ExprError, ExprSyntaxError

__all__ = ["ExprError", "ExprSyntaxError", "Expression", "parse_expression"]
