"""The kinds of values that keys take: each reads a value, and describes itself as JSON Schema."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from flowkit.core.conditions import read_expression
from flowkit.core.graph import MISSING
from flowkit.core.moments import read_moment
from flowkit.core.problems import Place, Problems, shown, written
from flowkit.core.template import TemplateReader
from flowkit.core.values import Copier
from flowkit.errors import InputError

EXTENSION: Final = "x-"
LONGEST_EXPRESSION: Final = 4096


@dataclass(frozen=True, slots=True)
class Door:
    """What reading one graph needs: where problems go, who copies literals and templates, and who reads a graph inside
    this one."""

    problems: Problems
    literals: Copier
    templates: TemplateReader
    subgraph: Callable[[object, Place], Any] = lambda value, place: MISSING


class Kind(Protocol):
    """`read` gives the value as it is kept, or MISSING after noting a problem."""

    def read(self, value: object, place: Place, door: Door) -> Any: ...

    def schema(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a record. `old` ones are stored in a new form; null means absent unless `null` is set."""

    kind: Kind
    about: str
    required: bool = False
    old: bool = False
    null: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """A string: of `pattern`, which `says` puts into words, and at most `longest` characters."""

    longest: int
    pattern: re.Pattern[str] | None = None
    says: str = "a string"
    code: str = "E_VALUE"

    def read(self, value: object, place: Place, door: Door) -> Any:
        if not isinstance(value, str):
            door.problems.add("E_TYPE", place, f"expected {self.says}, found {shown(value)}")
            return MISSING
        if len(value) > self.longest or not (self.pattern is None or self.pattern.fullmatch(value)):
            say = f"found {shown(value)}; write {self.says}, at most {self.longest} characters"
            door.problems.add(self.code, place, say)
            return MISSING
        return value if type(value) is str and value.isascii() else door.literals.copy(value, place)

    def schema(self) -> dict[str, Any]:
        shape: dict[str, Any] = {"type": "string", "maxLength": self.longest}
        return shape if self.pattern is None else shape | {"pattern": f"^{self.pattern.pattern}$"}


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    def read(self, value: object, place: Place, door: Door) -> Any:
        if isinstance(value, bool):
            return value
        door.problems.add("E_TYPE", place, f"expected true or false, found {shown(value)}")
        return MISSING

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number from `low` (or above it, if `above`) to `high`; a whole one if `whole`."""

    low: float
    high: float
    whole: bool = False
    above: bool = False

    def read(self, value: object, place: Place, door: Door) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            door.problems.add("E_TYPE", place, f"expected {self._says()}, found {shown(value)}")
            return MISSING
        number = int(value) if isinstance(value, int) else float(value)
        fits = math.isfinite(number) if isinstance(number, float) else True
        fits = fits and self.low <= number <= self.high and not (self.above and number == self.low)
        if not fits or (self.whole and number != int(number)):
            door.problems.add("E_RANGE", place, f"expected {self._says()}, found {shown(value)}")
            return MISSING
        return int(number) if self.whole else number

    def _says(self) -> str:
        noun = "a whole number" if self.whole else "a number"
        return f"{noun} {'above' if self.above else 'from'} {self.low:,.0f}, at most {self.high:,.0f}"

    def schema(self) -> dict[str, Any]:
        low = "exclusiveMinimum" if self.above else "minimum"
        return {"type": "integer" if self.whole else "number", low: self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, value: object, place: Place, door: Door) -> Any:
        if isinstance(value, str) and value in self.words:
            return str.__str__(value)
        listed = ", ".join(map(repr, self.words))
        hint = door.problems.suggest(value, self.words) if isinstance(value, str) else ""
        code = "E_CHOICE" if isinstance(value, str) else "E_TYPE"
        door.problems.add(code, place, f"expected one of {listed}, found {shown(value)}{hint}")
        return MISSING

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list; MISSING stands where an item could not be read."""

    kind: Kind
    says: str

    def read(self, value: object, place: Place, door: Door) -> Any:
        if not isinstance(value, list | tuple):
            hint = f"; write [{written(value)}]" if isinstance(value, str) and isinstance(self.kind, Text) else ""
            hint = "; write [{...}]" if isinstance(value, dict) and isinstance(self.kind, Record) else hint
            door.problems.add("E_TYPE", place, f"expected {self.says}, found {shown(value)}{hint}")
            return MISSING
        read = self.kind.read
        return [read(item, (place, number), door) for number, item in enumerate(value)]

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": self.kind.schema()}


@dataclass(frozen=True, slots=True)
class Json:
    """Any JSON value, taken as it is; only an object if `only_object`. `inside` others when it is stored."""

    only_object: bool = False
    inside: int = 0

    def read(self, value: object, place: Place, door: Door) -> Any:
        if self.only_object and not isinstance(value, dict):
            door.problems.add("E_TYPE", place, f"expected an object, found {shown(value)}")
            return MISSING
        return door.literals.copy(value, place, self.inside + 1)

    def schema(self) -> dict[str, Any]:
        return {"type": "object"} if self.only_object else {}


@dataclass(frozen=True, slots=True)
class Holes:
    """A template: JSON in which `$from`, `$param`, `$expr` and others mean something. Gives a `Template`."""

    def read(self, value: object, place: Place, door: Door) -> Any:
        return door.templates.read(value, place)

    def schema(self) -> dict[str, Any]:
        return {"$ref": "#/$defs/template"}


@dataclass(frozen=True, slots=True)
class Moment:
    """A time with its zone, or epoch seconds. Taken as it is written; as a template of the params, if `holes`: then it
    gives a `Template`."""

    holes: bool = False

    def read(self, value: object, place: Place, door: Door) -> Any:
        if not self.holes:
            return value if self._is_one(value, place, door) else MISSING
        read = door.templates.read(value, place)
        if read.references or read.uses or read.streams:
            say = "a deadline is known when its task begins: it may use `$param`, and `$expr` with `params`"
            door.problems.add("E_DEADLINE", place, say)
            return MISSING
        return read if not read.constant or self._is_one(read.value, place, door) else MISSING

    @staticmethod
    def _is_one(value: object, place: Place, door: Door) -> bool:
        try:
            read_moment(value)
        except InputError as error:
            door.problems.add("E_DEADLINE", place, str(error))
            return False
        return True

    def schema(self) -> dict[str, Any]:
        moment = {"type": ["string", "number"]}
        return {"anyOf": [moment, {"$ref": "#/$defs/template"}]} if self.holes else moment


@dataclass(frozen=True, slots=True)
class Formula:
    """An expression that may use these roots. Gives an `Expression`."""

    roots: tuple[str, ...]

    def read(self, value: object, place: Place, door: Door) -> Any:
        found = read_expression(value, place, self.roots, door.templates.known, door.problems)
        return MISSING if found is None else found

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1, "maxLength": LONGEST_EXPRESSION}


@dataclass(frozen=True, slots=True)
class SubGraph:
    """A graph inside a graph. Gives its normalised JSON."""

    def read(self, value: object, place: Place, door: Door) -> Any:
        return door.subgraph(value, place)

    def schema(self) -> dict[str, Any]:
        return {"$ref": "#"}


@dataclass(frozen=True, slots=True)
class Ignored:
    """What older versions kept here; accepted and dropped."""

    def read(self, value: object, place: Place, door: Door) -> Any:
        return MISSING

    def schema(self) -> dict[str, Any]:
        return {}


class Record:
    """An object with known keys; beside them, keys that start with `x-` hold any JSON. Gives what was set."""

    __slots__ = ("_meant", "_required", "_sound", "_worth_naming", "keys", "name", "says")

    def __init__(self, name: str, says: str, keys: Mapping[str, Key], meant: Mapping[str, str] | None = None, *,
                 sound: bool = False) -> None:  # fmt: skip
        """`meant`: what to write instead of a name that other tools have for it. `sound`: gives MISSING where anything
        inside is wrong, so that nobody asks what the rest means together."""
        self.name = name
        self.says = says
        self.keys = keys
        self._meant = meant or {}
        self._sound = sound
        self._required = [name for name, key in keys.items() if key.required]
        self._worth_naming = [name for name, key in keys.items() if not isinstance(key.kind, Ignored)]

    def read(self, value: object, place: Place, door: Door) -> Any:
        if not isinstance(value, dict):
            what = "an object" if self.says.startswith("`") else self.says
            door.problems.add("E_TYPE", place, f"expected {what}, found {shown(value)}")
            return MISSING

        fields = {}
        keys, before = self.keys, len(door.problems)
        for name, item in value.items():
            key = keys.get(name) if isinstance(name, str) else None
            if key is None:
                item = self._read_other(name, item, place, door)
            elif item is None and not key.null:
                continue
            else:
                item = key.kind.read(item, (place, name), door)
            if item is not MISSING:
                fields[name] = item

        for name in self._required:
            if name not in fields and value.get(name) is None:
                door.problems.add("E_KEY_MISSING", place, f"{self.says} needs the key `{name}`")
        return MISSING if self._sound and len(door.problems) > before else fields

    def _read_other(self, name: object, item: object, place: Place, door: Door) -> Any:
        if not isinstance(name, str):
            door.problems.add("E_TYPE", place, f"keys are strings; found {shown(name)}")
        elif name.startswith(EXTENSION):
            door.literals.copy(name, (place, name))
            return door.literals.copy(item, (place, name))
        else:
            meant = (
                f"; write {self._meant[name]}"
                if name in self._meant
                else door.problems.suggest(name, self._worth_naming)
            )
            hint = meant or "; notes of your own go under `meta` or `x-...`"
            door.problems.add("E_KEY_UNKNOWN", (place, name), f"{self.says} has no key {shown(name)}{hint}")
        return MISSING

    def schema(self) -> dict[str, Any]:
        shape = {
            "type": "object",
            "properties": {name: _described(key) for name, key in self.keys.items()},
            "patternProperties": {f"^{EXTENSION}": {}},
            "additionalProperties": False,
        }
        return shape | {"required": list(self._required)} if self._required else shape


def _described(key: Key) -> dict[str, Any]:
    shape = {**key.kind.schema(), "description": key.about}
    return shape | {"deprecated": True} if key.old else shape
