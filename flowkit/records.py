"""`dataclass(slots=True)` as the standard library has it, made in a third of the time.

FlowKit has three hundred of them, and Python 3.11 compiles five functions for each, one by one: that was half of what
a start of the command took. Here only `__init__` is compiled; the rest is the same function for all classes. Type
checkers see the original.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]


class _Factory:
    """The default of what a factory makes: it stands in signatures, as in those of the standard library."""

    def __repr__(self) -> str:
        return "<factory>"


_FACTORY = _Factory()


def _dataclass(
    *, slots: bool, frozen: bool = False, eq: bool = True, unsafe_hash: bool = False
) -> Callable[[type[Any]], type[Any]]:
    """What a class body defines itself is left alone. Without slots, take the original."""
    if not slots or (unsafe_hash and not eq):
        raise TypeError("flowkit.records makes classes with slots, and hashed ones are compared; dataclasses has more")
    return lambda cls: _made(cls, frozen, eq, unsafe_hash)


def _made(cls: type[Any], frozen: bool, eq: bool, unsafe_hash: bool) -> type[Any]:
    own = set(vars(cls))
    said, cls.__doc__ = (
        cls.__doc__,
        cls.__doc__ or ".",
    )  # one that says nothing would get its signature, which takes long
    made: type[Any] = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True)(cls)
    made.__doc__ = said
    every = dataclasses.fields(made)
    new: dict[str, Any] = {"__init__": _init(made, every, frozen), "__repr__": _repr(every)}
    if eq:
        compared = [item for item in every if item.compare]
        new["__eq__"] = _eq(_values(compared))
        hashed = [item for item in every if (item.compare if item.hash is None else item.hash)]
        if "__hash__" not in own or ("__eq__" in own and vars(made)["__hash__"] is None):
            new["__hash__"] = _hash(_values(hashed)) if frozen or unsafe_hash else None
    if frozen:
        names = frozenset(item.name for item in every)
        new |= {"__setattr__": _setattr(made, names), "__delattr__": _delattr(made, names)}
        new |= {"__getstate__": _state(every), "__setstate__": _set_state(every)}
    for name, value in new.items():
        if name not in own or name == "__hash__":
            if value is not None:
                value.__qualname__ = f"{made.__qualname__}.{name}"
            setattr(made, name, value)
    return made


# ---- how one begins


def _init(made: type[Any], every: tuple[Field[Any], ...], frozen: bool) -> Callable[..., None]:
    known: dict[str, Any] = {"_FACTORY": _FACTORY}
    places = ["self"]
    names: list[str] = []
    lines: list[str] = []
    for item in every:
        name, value = item.name, item.name
        default = ""
        if item.default is not MISSING:
            known[f"_default_{name}"] = item.default
            default = value = f"_default_{name}"
        elif item.default_factory is not MISSING:
            known[f"_make_{name}"] = item.default_factory
            default, value = "_FACTORY", f"_make_{name}()"
        if item.init:
            said = f"{name}={default}" if default else name
            (names if item.kw_only else places).append(said)
            value = f"{value} if {name} is _FACTORY else {name}" if default == "_FACTORY" else name
        elif not default:
            continue
        if frozen:
            known[f"_set_{name}"] = getattr(made, name).__set__
            lines.append(f"_set_{name}(self, {value})")
        else:
            lines.append(f"self.{name} = {value}")
    if hasattr(made, "__post_init__"):
        lines.append("self.__post_init__()")
    if names:
        places += ["*", *names]
    text = f"def __init__({', '.join(places)}):\n  " + "\n  ".join(lines or ["pass"])
    exec(text, known)  # noqa: S102 - made of the names of fields, as the standard library does
    init: Callable[..., None] = known["__init__"]
    init.__annotations__ = {item.name: item.type for item in every if item.init} | {"return": None}
    init.__module__ = made.__module__
    return init


# ---- what is the same for all


def _values(items: list[Field[Any]]) -> Callable[[Any], tuple[Any, ...]]:
    """Of an object, always as a tuple: in those, what is identical is equal."""
    if len(items) > 1:
        return attrgetter(*(item.name for item in items))
    if not items:
        return lambda self: ()
    value = attrgetter(items[0].name)
    return lambda self: (value(self),)


def _eq(values: Callable[[Any], tuple[Any, ...]]) -> Callable[[Any, object], Any]:
    def __eq__(self: Any, other: object) -> Any:
        if other.__class__ is self.__class__:
            return values(self) == values(other)
        return NotImplemented

    return __eq__


def _hash(values: Callable[[Any], tuple[Any, ...]]) -> Callable[[Any], int]:
    def __hash__(self: Any) -> int:
        return hash(values(self))

    return __hash__


def _repr(every: tuple[Field[Any], ...]) -> Callable[[Any], str]:
    names = [item.name for item in every if item.repr]

    @recursive_repr()
    def __repr__(self: Any) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{self.__class__.__qualname__}({shown})"

    return __repr__


def _setattr(made: type[Any], names: frozenset[str]) -> Callable[[Any, str, Any], None]:
    def __setattr__(self: Any, name: str, value: Any) -> None:
        if type(self) is made or name in names:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        super(made, self).__setattr__(name, value)

    return __setattr__


def _delattr(made: type[Any], names: frozenset[str]) -> Callable[[Any, str], None]:
    def __delattr__(self: Any, name: str) -> None:
        if type(self) is made or name in names:
            raise FrozenInstanceError(f"cannot delete field {name!r}")
        super(made, self).__delattr__(name)

    return __delattr__


def _state(every: tuple[Field[Any], ...]) -> Callable[[Any], list[Any]]:
    def __getstate__(self: Any) -> list[Any]:
        return [getattr(self, item.name) for item in every]

    return __getstate__


def _set_state(every: tuple[Field[Any], ...]) -> Callable[[Any, list[Any]], None]:
    def __setstate__(self: Any, state: list[Any]) -> None:
        for item, value in zip(every, state, strict=True):
            object.__setattr__(self, item.name, value)

    return __setstate__


if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:
    dataclass = _dataclass
