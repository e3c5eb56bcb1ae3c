"""Begins `child.py` in its compiled form, where there is one: compiling it would take most of a warm start."""

import os
from importlib.machinery import SourceFileLoader

path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "child.py")
code = SourceFileLoader("__main__", path).get_code("__main__")
assert code is not None
exec(code, {"__name__": "__main__", "__file__": path, "__builtins__": __builtins__})  # noqa: S102 - a file beside this
