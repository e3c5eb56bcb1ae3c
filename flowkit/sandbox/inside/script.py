"""Runs a script in this process as if the interpreter had been started with it."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from importlib.machinery import SourceFileLoader
from types import ModuleType


def run(argv: list[str], env: dict[str, str]) -> None:
    """Does not come back: the process ends with the script, as an interpreter would, but for taking itself apart."""
    path = argv[-1]
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [path]
    options = "".join(word[1:] for word in argv[1:-1] if word.startswith("-") and not word.startswith("--"))
    if "S" not in options:
        _site_packages(argv[0])
    if not set("IP") & set(options):
        sys.path.insert(0, os.path.dirname(path))
    _end(_run(path))


def _run(path: str) -> int:
    main = ModuleType("__main__")
    main.__dict__.update(__file__=path, __builtins__=__builtins__)
    sys.modules["__main__"] = main
    try:
        code = SourceFileLoader("__main__", path).get_code("__main__")  # compiled already, if it was once
        assert code is not None
        exec(code, main.__dict__)  # noqa: S102  the program itself, in its own sandbox
    except SystemExit as end:
        return _status(end.code)
    except BaseException as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next  # without this function
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def _status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)  # noqa: T201  what Python does with an exit code that is none
    return 1


def _end(status: int) -> None:
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as an interpreter's end does
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        status = status or 120
    finally:
        os._exit(status)


def _site_packages(interpreter: str) -> None:
    """What the interpreter was begun without, so that no code of an environment ran before the walls were up."""
    import site

    sys.executable = interpreter
    sys._base_executable = os.path.realpath(interpreter)  # type: ignore[attr-defined]
    site.main()
