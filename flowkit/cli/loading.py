"""Reads what a command line names: graphs, params, and the modules that hold handlers."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from flowkit.cli.console import UsageError, UserCodeError
from flowkit.cli.settings import Project, pair
from flowkit.errors import did_you_mean

STDIN = "-"
MOST_FILES = 1000
NAMED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def load_graph(given: str) -> Any:
    """The graph that GRAPH names: a JSON file, `-`, or `module:attribute`. Raises `UsageError`, `UserCodeError`."""
    if given == STDIN:
        return parse_json(sys.stdin.read(), "stdin")
    if not Path(given).exists() and NAMED.fullmatch(given):
        graph = load_object(given)
        if not isinstance(graph, Mapping):
            raise UsageError(f"{given} is {_kind(graph)}: a graph is a dict with `nodes`")
        return graph
    return parse_json(_read(given), given)


def load_params(pairs: Sequence[str], file: str | None) -> dict[str, Any]:
    """The params: those of the file, then those given one by one."""
    params: dict[str, Any] = {}
    if file is not None:
        read = parse_json(sys.stdin.read() if file == STDIN else _read(file), "stdin" if file == STDIN else file)
        if not isinstance(read, dict):
            raise UsageError(f"--params: {file} holds {_kind(read)}, not a JSON object")
        params = read
    for text in pairs:
        name, value = pair(text, "--param")
        params[name] = read_value(value)
    return params


def read_value(text: str) -> Any:
    """JSON where the text reads as JSON, else the text itself."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return text


def parse_json(text: str, name: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        yaml = "; FlowKit reads JSON: turn YAML into it first" if name.lower().endswith((".yaml", ".yml")) else ""
        say = f"{name} is not JSON: {error.msg} at line {error.lineno}, column {error.colno}{yaml}"
        raise UsageError(say) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{name} is not JSON: {str(error) or 'it is nested too deeply'}") from error


def load_handlers(given: Sequence[str], project: Project) -> dict[str, Any]:
    """Handlers by role from `MODULE[:ATTR]`s, else from those that [tool.flowkit] names.

    Raises `ConfigError`, `UsageError`, `UserCodeError`.
    """
    specs = list(given)
    if not specs and project.handlers:
        specs = project.handlers
        _first_on_path(project.root)
    found: dict[str, Any] = {}
    for spec in specs:
        for role, handler in _by_role(load_object(spec)):
            if found.setdefault(role, handler) is not handler:
                raise UsageError(f"two handlers for the role {role!r}; the second is from {spec}: rename one")
    return found


def load_object(spec: str) -> Any:
    """What `module`, `module:attribute` or `path/to/file.py[:attribute]` names, imported from here."""
    name, _, attribute = spec.partition(":")
    _first_on_path(Path.cwd())
    if name.endswith(".py"):
        path = Path(name)
        if not path.is_file():
            raise UsageError(f"there is no file {name}")
        _first_on_path(path.resolve().parent)
        name = path.stem
    found: Any = _import(name)
    for step in attribute.split(".") if attribute else ():
        if not hasattr(found, step):
            near = did_you_mean(step, [known for known in dir(found) if not known.startswith("_")])
            raise UsageError(f"{spec}: {name} has no {step!r}{near}")
        found = getattr(found, step)
    return found


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(f"there is no module {name!r} here or on the path{_near_file(name)}") from error
        raise UserCodeError(f"module {name!r} cannot be imported: {error}") from error
    except Exception as error:  # whatever a stranger's module does when it is imported
        raise UserCodeError(f"module {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    except SystemExit as error:
        raise UserCodeError(f"module {name!r} cannot be imported: it ends the program") from error


def _near_file(name: str) -> str:
    return did_you_mean(name, [path.stem for path in Path.cwd().glob("*.py")])


def _by_role(given: Any) -> list[tuple[str, Any]]:
    """The roles of a module, a dict, a list, or one handler, as the worker itself would name them."""
    from flowkit.worker.registry import Registry

    several = isinstance(given, Mapping | ModuleType | list | tuple | set | frozenset)
    return [(role.name, role.given) for role in Registry(given if several else [given])]


def _first_on_path(folder: Path | None) -> None:
    if folder is not None and str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _read(name: str) -> str:
    try:
        return Path(name).read_text("utf-8")
    except OSError as error:
        near = did_you_mean(Path(name).name, _files_beside(Path(name))) if isinstance(error, FileNotFoundError) else ""
        raise UsageError(f"cannot read {name}: {error.strerror}{near}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not UTF-8 text: {error}") from error


def _files_beside(path: Path) -> list[str]:
    try:
        return [other.name for other in islice(path.parent.iterdir(), MOST_FILES) if other.is_file()]
    except OSError:
        return []  # then there is nothing like it


def _kind(value: Any) -> str:
    kinds: dict[type, str] = {
        list: "a list", str: "text", type(None): "null", bool: "a boolean", int: "a number", float: "a number",
        ModuleType: "a module",
    }  # fmt: skip
    return kinds.get(type(value), "a function" if callable(value) else f"a {type(value).__name__}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
