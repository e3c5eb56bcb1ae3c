"""Runs a script in this process as if the interpreter had been started with it."""

from __future__ import annotations

import atexit
import os
import site
import sys
import threading
from importlib.machinery import PathFinder, SourceFileLoader
from types import ModuleType, TracebackType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _prepare(path: str) -> Callable[[], None]:
    """Load a script, have it rehearse, and give its `main`."""
    script = _load("prepared", path)
    script.rehearse()
    main: Callable[[], None] = script.main
    return main


def _be_another_process() -> None:
    """What Python sees to in a fork, as far as it matters where there was one thread and nobody else's code."""
    threading.main_thread()._set_native_id()  # type: ignore[attr-defined]
    if (random := sys.modules.get("random")) is not None:
        random.seed()


def _load(name: str, path: str) -> Any:
    module = ModuleType(name)
    module.__dict__.update(__file__=path, __builtins__=__builtins__)
    sys.modules[name] = module
    code = SourceFileLoader(name, path).get_code(name)  # compiled already, if it was once
    assert code is not None
    exec(code, module.__dict__)  # noqa: S102  the program itself, in its own sandbox, or the starter's own
    return module


def _outcome(act: Callable[[], object]) -> int:
    try:
        act()
    except SystemExit as end:
        return _status(end.code)
    except BaseException as error:
        error.__traceback__ = _without_ours(error.__traceback__)
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    return 0


def _without_ours(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    return traceback


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


class Site:
    """What `site` does when an interpreter starts, in two parts: `look` before the walls are up, which finds out
    what there is and runs none of it, and `load` behind them, which runs what is to be run. `prepared`: a script
    that `look` loads, if any, whose `main` is then called instead of the program's."""

    def __init__(self, prepared: str = "") -> None:
        self._prepared = prepared
        self._main: Callable[[], None] | None = None
        self._interpreter = ""
        self._paths: list[str] = []
        self._pth: list[tuple[str, str]] = []
        self._customised = False

    def run(self, argv: list[str], env: dict[str, str]) -> None:
        """Run a program's script. Does not come back: the process ends with the script, as an interpreter would, but
        for taking itself apart."""
        path = argv[-1]
        for name, value in env.items():
            os.environ[name] = value
        _be_another_process()
        sys.argv = [path]
        sys.executable = argv[0]
        sys._base_executable = self._interpreter  # type: ignore[attr-defined]
        options = [word for word in argv[1:-1] if word[0] == "-" and word[:2] != "--"]
        if not any("S" in word for word in options):
            self.load()
        if not any("I" in word or "P" in word for word in options):
            sys.path.insert(0, os.path.dirname(path))
        _end(_outcome(self._main or (lambda: _load("__main__", path))))

    def look(self) -> None:
        os.environ.clear()  # each program has its own
        self._interpreter = os.path.realpath(sys.executable)
        self._main = _prepare(self._prepared) if self._prepared else None
        site.removeduppaths()
        self._paths = list(sys.path)
        for folder in site.getsitepackages(_prefixes()):
            if os.path.isdir(folder) and folder not in self._paths:
                self._paths.append(folder)
                self._pth += [(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(".pth")]
        # Looking for it fills the caches of what is in all these folders, which forks then have.
        self._customised = PathFinder.find_spec("sitecustomize", self._paths) is not None
        site.setquit()
        site.setcopyright()
        site.sethelper()

    def load(self) -> None:
        sys.path[:] = self._paths
        site.ENABLE_USER_SITE = False  # there is no home
        known = {os.path.normcase(path) for path in self._paths} if self._pth else set()
        for folder, name in self._pth:
            site.addpackage(folder, name, known)
        if self._customised:
            site.execsitecustomize()


def _prefixes() -> list[str]:
    """Where packages are looked for. An environment is told by a file beside its interpreter, or above it."""
    folder = os.path.dirname(os.path.abspath(sys.executable))
    for place in (folder, os.path.dirname(folder)):
        settings = os.path.join(place, "pyvenv.cfg")
        if os.path.isfile(settings):
            system = [sys.base_prefix, sys.base_exec_prefix] if _takes_system_packages(settings) else []
            sys.prefix = sys.exec_prefix = os.path.dirname(folder)
            return [sys.prefix, *system]
    return [sys.prefix, sys.exec_prefix]


def _takes_system_packages(settings: str) -> bool:
    with open(settings, encoding="utf-8") as file:
        found = {key.strip().lower(): value.strip().lower() for key, _, value in (line.partition("=") for line in file)}
    return found.get("include-system-site-packages") == "true"
