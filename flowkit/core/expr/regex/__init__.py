"""Regular expressions in linear time: RE2's syntax, and a search that never goes back in the text.

What would need going back, references to groups and looking around, is refused by name.
"""

from __future__ import annotations

from flowkit.core.expr.regex.parser import parse_pattern
from flowkit.core.expr.regex.problem import PatternError
from flowkit.core.expr.regex.program import Program, build, size_of
from flowkit.core.expr.regex.search import search

__all__ = ["PatternError", "Program", "build", "parse_pattern", "search", "size_of"]
