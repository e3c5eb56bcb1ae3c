"""The handlers of a worker, by role: what they are, how they are called, and what they say about themselves."""

from __future__ import annotations

import enum
import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeVar, overload

from flowkit.core.code import CODE
from flowkit.core.dialect import parse_graph
from flowkit.core.graph import BUILT_INS
from flowkit.core.starts import function_role
from flowkit.errors import ConfigError, GraphError, did_you_mean
from flowkit.worker.binding import Binding, binding_of

F = TypeVar("F", bound=Callable[..., Any])
MARK = "__flowkit_handler__"
FUNCTION_ROLES = function_role("")
ROLE_RULE = re.compile(r"(?!\.+\Z)[A-Za-z0-9_.-]{1,128}\Z")


class Kind(enum.Enum):
    ASYNC = "async"
    PLAIN = "plain"
    CLASS = "class"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Said:
    """What `@flowkit.handler(...)` says about a function."""

    role: str | None = None
    retry_policy: Mapping[str, Any] | None = None
    timeout_sec: float | None = None
    replay: bool | None = None


@dataclass(eq=False, slots=True)
class Role:
    """One kind of work and who does it. `call` is the function, or makes the `RoleHandler` of an attempt.
    `in_turn`: one attempt at a time, because they share an object that may keep an attempt's state in itself. `yields`:
    the function is a generator; a plain one is driven in threads, a piece at a time, so it counts as async."""

    name: str
    kind: Kind
    call: Callable[..., Any]
    binding: Binding | None = None
    given: Any = None
    in_turn: bool = False
    yields: bool = False
    said: Said = field(default_factory=Said)


@overload
def handler(function: F, /) -> F: ...
@overload
def handler(*, role: str | None = None, retry_policy: Mapping[str, Any] | None = None,
            timeout_sec: float | None = None, replay: bool | None = None) -> Callable[[F], F]: ...  # fmt: skip
def handler(function: Any = None, /, *, role: str | None = None, retry_policy: Mapping[str, Any] | None = None,
            timeout_sec: float | None = None, replay: bool | None = None) -> Any:  # fmt: skip
    """Mark a function as a handler and set defaults for its role: `@flowkit.handler` or
    `@flowkit.handler(role="greet")`. `replay`: whether a new attempt reads its streams from the first batch on, because
    the handler keeps something in mind between batches.

    Raises `ConfigError` for a role that no node could have as its type.
    """
    if role is not None:
        _check_name(role)
    if retry_policy is not None:
        _check_policy(retry_policy)
    if timeout_sec is not None and not timeout_sec > 0:
        raise ConfigError(f"timeout_sec must be more than 0, not {timeout_sec!r}")

    def mark(target: Any) -> Any:
        setattr(target, MARK, Said(role, retry_policy, timeout_sec, replay))
        return target

    return mark if function is None else mark(function)


class Registry:
    """Roles by name. From a list of functions (a role is a function's name), a dict `role -> handler`, or a module."""

    def __init__(self, handlers: object = None) -> None:
        self._roles: dict[str, Role] = {}
        for name, given in _named(handlers):
            self.add(name, given)

    def add(self, name: str | None, given: Any) -> Role:
        """Register a handler; without a name it says its own. Raises `ConfigError`."""
        role = _role(name, given)
        if role.name in self._roles:
            raise ConfigError(f"two handlers for the role {role.name!r}: rename one, or give them as {{role: handler}}")
        self._roles[role.name] = role
        return role

    def serve_code(self) -> None:
        """Nodes bring their own code: no handler of this worker runs them."""
        self._roles.setdefault(CODE, Role(CODE, Kind.CODE, _no_handler))

    def only(self, roles: Iterable[str]) -> Registry:
        """The same handlers for these roles alone. Raises `ConfigError` for one without a handler."""
        chosen = Registry()
        for name in dict.fromkeys(roles):
            if name not in self._roles:
                known = ", ".join(self._roles) or "none"
                raise ConfigError(
                    f"no handler for the role {name!r}{did_you_mean(name, self._roles)}: pass "
                    f"handlers={{{name!r}: ...}}; known are: {known}"
                )
            chosen._roles[name] = self._roles[name]
        return chosen

    def get(self, name: str) -> Role | None:
        return self._roles.get(name)

    def room(self, slots: int) -> int:
        """How many of so many slots can be in use at once: fewer, where every role takes turns."""
        return min(slots, len(self)) if self and all(role.in_turn for role in self) else slots

    @property
    def roles(self) -> list[str]:
        return list(self._roles)

    def __iter__(self) -> Iterator[Role]:
        return iter(self._roles.values())

    def __len__(self) -> int:
        return len(self._roles)


def _no_handler() -> None:
    raise AssertionError("code is run as a program, never called")


def _named(handlers: object) -> Iterator[tuple[str | None, Any]]:
    match handlers:
        case None:
            return
        case Mapping():
            for name, given in handlers.items():
                if not isinstance(name, str):
                    raise ConfigError(f"a role is a string, not {name!r}")
                yield name, given
        case ModuleType():
            yield from _of_module(handlers)
        case str() | bytes():
            raise ConfigError(f"handlers must be functions, a dict or a module, not the string {handlers!r}")
        case Iterable():
            for given in handlers:
                yield None, given
        case _:
            name = getattr(handlers, "__name__", "")
            hint = f": write handlers=[{name}]" if callable(handlers) and name.isidentifier() else ""
            raise ConfigError(f"handlers must be a list of functions, a dict or a module, not {handlers!r}{hint}")


def _of_module(module: ModuleType) -> Iterator[tuple[str | None, Any]]:
    """The marked functions, else every public function that the module itself defines."""
    functions = [thing for thing in vars(module).values() if inspect.isfunction(thing)]
    marked = [function for function in dict.fromkeys(functions) if hasattr(function, MARK)]
    if marked:
        yield from ((None, function) for function in marked)
        return
    own = [f for f in dict.fromkeys(functions) if f.__module__ == module.__name__ and not f.__name__.startswith("_")]
    if not own:
        raise ConfigError(f"the module {module.__name__!r} defines no public function to be a handler")
    yield from ((None, function) for function in own)


def _role(name: str | None, given: Any) -> Role:
    if hasattr(given, "process_batch"):
        return _class_role(name, given)
    if not callable(given) or isinstance(given, type):
        raise ConfigError(f"a handler is a function or a RoleHandler, not {given!r}")
    said: Said = getattr(given, MARK, Said())
    chosen = _check_name(name if name is not None else said.role or _name_of(given))
    yields = _is(given, inspect.isgeneratorfunction) or _is(given, inspect.isasyncgenfunction)
    kind = Kind.ASYNC if yields or _is(given, inspect.iscoroutinefunction) else Kind.PLAIN
    return Role(chosen, kind, given, binding_of(given, chosen), given, yields=yields, said=said)


def _class_role(name: str | None, given: Any) -> Role:
    chosen = _check_name(name if name is not None else getattr(given, "role", "") or _name_of(given))
    said: Said = getattr(given, MARK, Said())
    if isinstance(given, type):
        return Role(chosen, Kind.CLASS, given, given=given, said=said)
    in_turn = not getattr(given, "concurrent", False)
    return Role(chosen, Kind.CLASS, lambda: given, given=given, in_turn=in_turn, said=said)


def _name_of(given: Any) -> str:
    inner = given.func if isinstance(given, functools.partial) else given
    name = getattr(inner, "__name__", None) or type(inner).__name__
    if name == "<lambda>":
        raise ConfigError("a lambda has no name to be a role: give it as {role: handler}")
    return str(name)


def _check_policy(policy: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for a policy that no node could have."""
    node = {"node_id": "handler", "type": "handler", "retry_policy": dict(policy)}
    try:
        parse_graph({"nodes": [node]})
    except GraphError as error:
        said = "; ".join(f"{p.place.removeprefix('nodes[0].')}: {p.message}" for p in error.problems)
        raise ConfigError(said) from error


def _check_name(name: str) -> str:
    if name in BUILT_INS:
        raise ConfigError(f"the role {name!r} is built in; choose another name")
    if not ROLE_RULE.match(name.removeprefix(FUNCTION_ROLES)):
        raise ConfigError(f"{name!r} cannot be a role: letters, digits and `_ - .`, at most 128")
    return name


def _is(given: Any, test: Callable[[Any], bool]) -> bool:
    inner = given
    while isinstance(inner, functools.partial):
        inner = inner.func
    return test(inner) or (not inspect.isroutine(inner) and test(type(inner).__call__))
