"""The names that an expression may use: roots, functions, methods, and how many arguments they take."""

from __future__ import annotations

from typing import Final

ROOTS: Final = ("params", "output", "nodes", "vars", "item", "index", "previous", "task")

# From how many arguments to how many; the text before the dot of a method is none of them.
FUNCTIONS: Final = {
    "size": (1, 1), "min": (1, 64), "max": (1, 64), "int": (1, 1), "double": (1, 1), "string": (1, 1),
}  # fmt: skip
METHODS: Final = {"size": (0, 0), "contains": (1, 1), "startsWith": (1, 1), "endsWith": (1, 1), "matches": (1, 1)}

WORDS: Final = {"true": True, "false": False, "null": None}
HAS: Final = "has"
IN: Final = "in"
COMPARISONS: Final = frozenset({"==", "!=", "<", "<=", ">", ">=", IN})

# What other languages call it.
INSTEAD: Final = {
    "and": "&&", "or": "||", "not": "!", "is": "==", "True": "true", "False": "false", "None": "null",
    "nil": "null", "undefined": "null", "len": "size(x)", "length": "size(x)", "str": "string(x)", "float": "double(x)",
    "number": "double(x)", "exists": "has(x.y)", "defined": "has(x.y)", "includes": "x in list, or text.contains(part)",
}  # fmt: skip
