"""The functions that `coordinator_fn` nodes call, by name: the built-in ones, and those that a user registers.

Built-in ones are part of a coordinator's decisions: they cost no worker and no message, and what they change is
recorded with the rest. A user's own is called like a handler, in the coordinator's process, after a lease.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from flowkit.coordinator.detector import SensitiveDetectorProto
from flowkit.core.functions import FUNCTIONS
from flowkit.core.keys import TYPE_RULE
from flowkit.core.starts import function_role
from flowkit.errors import ConfigError, FunctionError

__all__ = ["AdapterError", "CoordinatorAdapters", "SensitiveDetectorProto", "default_adapters"]

AdapterError = FunctionError
NODE_TYPE = "coordinator_fn"


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """Stands for a built-in function; it is known by its name, and runs inside the task that calls it."""

    name: str

    def __call__(self, task_id: str, *args: Any, **fn_args: Any) -> NoReturn:
        """Raises `AdapterError`: nobody but a node can call it."""
        raise FunctionError(
            f"{self.name} is a part of deciding about its task, so that it happens exactly once: call it by a node "
            f'{{"type": "{NODE_TYPE}", "io": {{"fn": "{self.name}", ...}}}}',
            code="not_callable",
        )


class CoordinatorAdapters:
    """A coordinator's functions by name. `functions` replaces the built-in ones: to add to those, begin with
    `default_adapters()`. Raises `ConfigError` for what is no function, or has no name that a node could give.
    """

    def __init__(self, functions: Mapping[str, Callable[..., Any]] | None = None) -> None:
        if not isinstance(functions, Mapping | None):
            raise ConfigError(f"`adapters` says a name for each function: {{'vars.echo': echo}}, not {functions!r}")
        self._functions = default_adapters() if functions is None else dict(functions)
        for name, function in self._functions.items():
            _check(name, function)
        self._overridden = {
            name for name, call in self._functions.items() if name in FUNCTIONS and not isinstance(call, BuiltIn)
        }

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return self._functions[name]

    def __contains__(self, name: object) -> bool:
        return name in self._functions

    def __iter__(self) -> Iterator[str]:
        return iter(self._functions)

    def __len__(self) -> int:
        return len(self._functions)

    def keys(self) -> list[str]:
        return list(self._functions)

    @property
    def own(self) -> dict[str, Callable[..., Any]]:
        """The user's own functions by the role of the nodes that call them."""
        calls = self._functions.items()
        return {function_role(_alias(name)): call for name, call in calls if not isinstance(call, BuiltIn)}

    @property
    def names(self) -> list[str]:
        """What a resolved graph may call."""
        calls = self._functions.items()
        return [name if isinstance(call, BuiltIn) else _alias(name) for name, call in calls]

    def resolve(self, graph: Any) -> Any:
        """The graph with other names for the functions that the user has put in the place of built-in ones: those would
        be taken for the built-in ones. The graph that is given stays as it is."""
        if not self._overridden:
            return graph
        nodes = graph.get("nodes") if isinstance(graph, dict) else None
        if not isinstance(nodes, list | tuple):
            return graph  # whoever reads it says what is wrong
        resolved = [self._node(node) for node in nodes]
        return graph if all(map(_same, nodes, resolved)) else {**graph, "nodes": resolved}

    def _node(self, node: Any) -> Any:
        if not isinstance(node, dict):
            return node
        if "graph" in node:
            inner = self.resolve(node["graph"])
            node = node if inner is node["graph"] else {**node, "graph": inner}
        io = node.get("io") if node.get("type") == NODE_TYPE else None
        name = io.get("fn") if isinstance(io, dict) else None
        if not isinstance(io, dict) or not isinstance(name, str) or name not in self._overridden:
            return node
        return {**node, "io": {**io, "fn": _alias(name)}}


def default_adapters(*, db: Any = None, clock: Any = None, detector: Any = None) -> dict[str, Callable[..., Any]]:
    """The built-in functions by name, to be extended: `{**default_adapters(), "my.fn": my_fn}`.

    `db` and `clock` are taken as older code gives them, and not needed. Raises `ConfigError` for a `detector`.
    """
    if detector is not None:
        raise ConfigError("a detector is the coordinator's: Coordinator(sensitive_detector=...)")
    return {name: BuiltIn(name) for name in FUNCTIONS}


def _alias(name: str) -> str:
    return f"own.{name}" if name in FUNCTIONS else name


def _same(one: Any, other: Any) -> bool:
    return one is other


def _check(name: object, function: object) -> None:
    if not isinstance(name, str) or not TYPE_RULE.fullmatch(name):
        raise ConfigError(f"a coordinator function has a name such as 'vars.echo', not {name!r}")
    if not callable(function):
        raise ConfigError(f"the coordinator function {name!r} must be a function, not {function!r}")
