"""Gives a node's inputs to a handler's parameters, by name, as its annotations ask."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from flowkit.core.signature import misfit
from flowkit.errors import ConfigError, InputError
from flowkit.worker.stream import Stream, as_stream

CONTEXT_NAMES = frozenset({"Context", "RunContext"})
PLAIN_TYPES = frozenset({int, str, bool, float, dict, list})
ITERATED = (AsyncIterator, AsyncIterable, AsyncGenerator, Stream)
MISSING: Any = inspect.Parameter.empty
MOST_NAMES = 20


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; `convert` makes of an input what the annotation asks, None where it asks nothing."""

    name: str
    default: Any
    convert: Callable[[Any], Any] | None
    annotation: Any = MISSING


@dataclass(frozen=True, slots=True)
class Binding:
    """How one handler is called. `parameters` take inputs; `context` names the one that gets the context, or is empty;
    `positional` are those without a name for the caller; `everything`: the only parameter, `inputs`, gets the inputs as
    they are; `rest`: there is a `**rest`."""

    owner: str
    parameters: tuple[Parameter, ...]
    context: str
    positional: tuple[Parameter, ...]
    everything: bool
    rest: bool

    def bind(self, inputs: Any, context: Callable[[], object]) -> tuple[list[Any], dict[str, Any]]:
        """The arguments of a call. Raises `InputError` where the inputs do not fit the parameters."""
        values = self._values(inputs)
        if self.context:
            values[self.context] = context()
        return [values.pop(parameter.name, parameter.default) for parameter in self.positional], values

    @property
    def takes_nothing(self) -> bool:
        return not (self.parameters or self.rest)

    def unfit(self, names: Iterable[str]) -> tuple[list[str], list[str]]:
        """Of inputs with these names: which are missing, and which nobody takes."""
        given = set(names)
        if self.everything:
            return [], []
        missing = [p.name for p in self.parameters if p.default is MISSING and p.name not in given]
        known = {parameter.name for parameter in self.parameters}
        return missing, [] if self.rest else sorted(given - known)

    def _values(self, inputs: Any) -> dict[str, Any]:
        if self.everything:
            return {"inputs": self._convert(self.parameters[0], inputs)}
        if not isinstance(inputs, dict):
            return self._from_one_value(inputs)

        values: dict[str, Any] = {}
        for parameter in self.parameters:
            value = inputs.get(parameter.name, MISSING)
            if value is not MISSING:
                values[parameter.name] = value if parameter.convert is None else self._convert(parameter, value)
            elif parameter.default is MISSING:
                raise self._misfit(inputs)
        if len(values) < len(inputs):
            if not self.rest:
                raise self._misfit(inputs)
            values |= {name: value for name, value in inputs.items() if name not in values}
        if self.context in values:
            raise self._misfit(inputs)
        return values

    def _from_one_value(self, value: Any) -> dict[str, Any]:
        if len(self.parameters) == 1:
            return {self.parameters[0].name: self._convert(self.parameters[0], value)}
        if value is None and all(parameter.default is not MISSING for parameter in self.parameters):
            return {}
        wanted = ", ".join(parameter.name for parameter in self.parameters) or "nothing"
        raise InputError(f"{self.owner!r} takes {wanted} by name, but its inputs are {_kind_of(value)}, not an object")

    def _convert(self, parameter: Parameter, value: Any) -> Any:
        if parameter.convert is None:
            return value
        if isinstance(value, Stream) and parameter.convert is not as_stream:
            raise InputError(
                f"{self.owner!r} gets a stream as {parameter.name}: annotate it with AsyncIterator, or not at all, and "
                f"iterate over it"
            )
        try:
            return parameter.convert(value)
        except ValueError as error:  # pydantic's ValidationError is one
            raise InputError(f"{self.owner!r} got an unfit input: {_explained(parameter.name, error)}") from None

    def _misfit(self, inputs: dict[str, Any]) -> InputError:
        missing, unknown = self.unfit(inputs)
        known = [parameter.name for parameter in self.parameters]
        return InputError(f"{self.owner!r} {misfit(missing, unknown, known)}")


def binding_of(function: Callable[..., Any], owner: str) -> Binding:
    """Read a handler's signature. Raises `ConfigError` for one that cannot be bound by name."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"handler {owner!r} has no signature to bind inputs to: wrap it in a function") from error

    globalns = _globals_of(function)
    parameters: list[Parameter] = []
    positional: list[Parameter] = []
    context, rest = "", False
    for raw in signature.parameters.values():
        if raw.kind is raw.VAR_POSITIONAL:
            raise ConfigError(f"handler {owner!r} takes *{raw.name}, but inputs have names: use **{raw.name} instead")
        if raw.kind is raw.VAR_KEYWORD:
            rest = True
            continue
        if _is_context(raw):
            if context:
                raise ConfigError(f"handler {owner!r} has two parameters for the context; keep one")
            context, parameter = raw.name, Parameter(raw.name, None, None)
        else:
            annotation = _resolved(raw.annotation, globalns, f"{owner}({raw.name})")
            parameter = Parameter(raw.name, raw.default, _converter(annotation, owner, raw.name), annotation)
            parameters.append(parameter)
        if raw.kind is raw.POSITIONAL_ONLY:
            positional.append(parameter)

    everything = len(parameters) == 1 and parameters[0].name == "inputs" and not rest
    return Binding(owner, tuple(parameters), context, tuple(positional), everything, rest)


def _is_context(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    if isinstance(annotation, str):  # as `from __future__ import annotations` leaves it; perhaps for type checkers only
        named = annotation.replace("| None", "").strip().strip("\"'")
        return parameter.name == "ctx" or named.rpartition(".")[2] in CONTEXT_NAMES
    for kind in (annotation, *typing.get_args(annotation)):
        if isinstance(kind, type) and kind.__name__ in CONTEXT_NAMES and kind.__module__.startswith("flowkit."):
            return True
    return parameter.name == "ctx"


def _resolved(annotation: Any, globalns: dict[str, Any], where: str) -> Any:
    if not isinstance(annotation, str):
        return annotation
    holder = SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, globalns=globalns, include_extras=True)["it"]
    except Exception as error:  # an annotation is code of the user's
        raise ConfigError(
            f"the annotation {annotation!r} of {where} cannot be resolved ({error}): import its names at run time, "
            f"not under TYPE_CHECKING or inside a function"
        ) from error


def _globals_of(function: Callable[..., Any]) -> dict[str, Any]:
    inner: Any = inspect.unwrap(function)
    while isinstance(inner, functools.partial):
        inner = inspect.unwrap(inner.func)
    if not hasattr(inner, "__globals__"):
        inner = getattr(inner, "__func__", None) or type(inner).__call__
    return dict(getattr(inner, "__globals__", {}))


def _converter(annotation: Any, owner: str, name: str) -> Callable[[Any], Any] | None:
    if annotation in (MISSING, Any, object):
        return None
    if isinstance(annotation, type) and annotation in PLAIN_TYPES:
        return _plain(annotation)
    if is_stream(annotation):
        return as_stream
    return _adapter(annotation, owner, name)


def is_stream(annotation: Any) -> bool:
    """Whether a parameter asks to be iterated over asynchronously, or for a `flowkit.Stream`."""
    kind = typing.get_origin(annotation) or annotation
    return kind in ITERATED


def _plain(kind: type) -> Callable[[Any], Any]:
    """Values of the very type pass as they are; only others cost the import of pydantic."""
    adapter: Callable[[Any], Any] | None = None

    def convert(value: Any) -> Any:
        nonlocal adapter
        if type(value) is kind:
            return value
        if adapter is None:
            adapter = _adapter(kind, "", "")
        return adapter(value)

    return convert


def _adapter(annotation: Any, owner: str, name: str) -> Callable[[Any], Any]:
    from pydantic import PydanticUserError, TypeAdapter
    from pydantic.errors import PydanticSchemaGenerationError

    try:
        return TypeAdapter(annotation).validate_python
    except (PydanticUserError, PydanticSchemaGenerationError, TypeError) as error:
        raise ConfigError(
            f"parameter {name!r} of handler {owner!r} is annotated with {annotation!r}, which JSON cannot become: "
            f"use builtins, dataclasses or pydantic models, or leave the annotation out"
        ) from error


def _explained(name: str, error: ValueError) -> str:
    """What pydantic found, by place; never the value, which may be a secret."""
    details = getattr(error, "errors", None)
    if details is None:
        return f"{name}: {error}"
    found = details(include_url=False, include_context=False, include_input=False)
    lines = (".".join(map(str, (name, *item["loc"]))) + f": {item['msg']}" for item in found[:MOST_NAMES])
    return "; ".join(lines)


def _kind_of(value: Any) -> str:
    names = {str: "a string", list: "a list", bool: "a boolean", int: "a number", float: "a number", bytes: "bytes"}
    return "null" if value is None else names.get(type(value), f"a {type(value).__name__}")
