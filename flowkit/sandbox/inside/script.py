"""Runs a script in this process as if the interpreter had been started with it."""

from __future__ import annotations

import os
import sys
import traceback
from types import ModuleType


def run(argv: list[str], env: dict[str, str]) -> None:
    """Raises `SystemExit`, always: what follows is the interpreter's own way to end."""
    path = argv[-1]
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [path]
    options = "".join(word[1:] for word in argv[1:-1] if word.startswith("-") and not word.startswith("--"))
    if "S" not in options:
        _site_packages(argv[0])
    if not set("IP") & set(options):
        sys.path.insert(0, os.path.dirname(path))
    main = ModuleType("__main__")
    main.__dict__.update(__file__=path, __builtins__=__builtins__)
    sys.modules["__main__"] = main
    try:
        with open(path, "rb") as file:
            code = compile(file.read(), path, "exec")
        exec(code, main.__dict__)  # noqa: S102  the program itself, in its own sandbox
    except SystemExit:
        raise
    except BaseException as error:
        tail = error.__traceback__.tb_next if error.__traceback__ else None
        traceback.print_exception(type(error), error, tail)
        raise SystemExit(1) from None
    raise SystemExit(0)


def _site_packages(interpreter: str) -> None:
    """What the interpreter was begun without, so that no code of an environment ran before the walls were up."""
    import site

    sys.executable = interpreter
    sys._base_executable = os.path.realpath(interpreter)  # type: ignore[attr-defined]
    site.main()
