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
from flowkit.errors import ConfigError, FunctionError, GraphError, Problem, did_you_mean

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
        self._functions = default_adapters() if functions is None else dict(functions)
        for name, function in self._functions.items():
            _check(name, function)
        self._usual = self._functions == default_adapters()

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
        return {_role(name): call for name, call in self._functions.items() if not isinstance(call, BuiltIn)}

    def resolve(self, graph: Any) -> Any:
        """The graph as the engine reads it: a node that calls a function of the user's own becomes one of its role.
        The graph that is given stays as it is. Raises `GraphError` for a function that is not registered."""
        if self._usual:
            return graph
        problems: list[Problem] = []
        resolved = self._graph(graph, "", problems)
        if problems:
            raise GraphError(problems)
        return resolved

    def _graph(self, graph: Any, place: str, problems: list[Problem]) -> Any:
        nodes = graph.get("nodes") if isinstance(graph, dict) else None
        if not isinstance(nodes, list | tuple):
            return graph  # whoever reads it says what is wrong
        resolved = [self._node(node, f"{place}nodes[{number}]", problems) for number, node in enumerate(nodes)]
        return graph if all(map(_same, nodes, resolved)) else {**graph, "nodes": resolved}

    def _node(self, node: Any, place: str, problems: list[Problem]) -> Any:
        if not isinstance(node, dict):
            return node
        if "graph" in node:
            inner = self._graph(node["graph"], f"{place}.graph.", problems)
            node = node if inner is node["graph"] else {**node, "graph": inner}
        io = node.get("io") if node.get("type") == NODE_TYPE else None
        if not isinstance(io, dict) or not isinstance(name := io.get("fn"), str):
            return node
        call = self._functions.get(name)
        if call is None:
            hint = did_you_mean(name, self._functions) or f"; there are {', '.join(self._functions) or 'none'}"
            say = f"this coordinator has no function {name!r}{hint}"
            problems.append(Problem("E_ADAPTER_UNKNOWN", f"{place}.io.fn", say))
        return node if call is None or isinstance(call, BuiltIn) else _own_node(node, io, name)


def _own_node(node: dict[str, Any], io: dict[str, Any], name: str) -> dict[str, Any]:
    rest = {key: value for key, value in io.items() if key not in ("fn", "fn_args")}
    kept = {key: value for key, value in node.items() if key != "io"}
    return {**kept, **({"io": rest} if rest else {}), "type": _role(name), "inputs": io.get("fn_args") or {}}


def default_adapters(*, db: Any = None, clock: Any = None, detector: Any = None) -> dict[str, Callable[..., Any]]:
    """The built-in functions by name, to be extended: `{**default_adapters(), "my.fn": my_fn}`.

    `db` and `clock` are taken as older code gives them, and not needed. Raises `ConfigError` for a `detector`.
    """
    if detector is not None:
        raise ConfigError("a detector is the coordinator's: Coordinator(sensitive_detector=...)")
    return {name: BuiltIn(name) for name in FUNCTIONS}


def _role(name: str) -> str:
    return f"{NODE_TYPE}.{name}"


def _same(one: Any, other: Any) -> bool:
    return one is other


def _check(name: object, function: object) -> None:
    if not isinstance(name, str) or not name:
        raise ConfigError(f"a coordinator function has a name such as 'vars.echo', not {name!r}")
    if not callable(function):
        raise ConfigError(f"the coordinator function {name!r} must be a function, not {function!r}")
