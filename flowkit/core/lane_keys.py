"""The keys by which a node says where it runs and how urgently: labels, stickiness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from flowkit.core.graph import MISSING
from flowkit.core.kinds import Door, Key, Number, Record, Text
from flowkit.core.lane import TASK
from flowkit.core.problems import LONGEST_NAME, Place, shown, written

LONGEST_VALUE: Final = 256
MOST_LABELS: Final = 32
MOST_VALUES: Final = 100
MOST_PRIORITY: Final = 1_000_000_000
LONGEST_PATIENCE_SEC: Final = 86_400

NAME: Final = Text(LONGEST_NAME, says="a label's name")
VALUE: Final = Text(LONGEST_VALUE, says="a label's value")
PRIORITY: Final = Number(-MOST_PRIORITY, MOST_PRIORITY, whole=True)


@dataclass(frozen=True, slots=True)
class LabelsKind:
    """`{"zone": "eu", "gpu": ["a100", "h100"]}`: texts, or lists of texts of which any will do."""

    def read(self, value: object, place: Place, door: Door) -> Any:
        if not isinstance(value, dict):
            found = f'{shown(value)}; write {{"zone": "eu", "gpu": ["a100", "h100"]}}'
            door.problems.add("E_TYPE", place, f"expected an object of labels, found {found}")
            return MISSING
        if len(value) > MOST_LABELS:
            door.problems.add("E_VALUE", place, f"found {len(value)} labels; ask for at most {MOST_LABELS}")
            return MISSING
        read = {}
        for name, values in value.items():
            name, values = NAME.read(name, place, door), self._values(values, (place, name), door)
            if name is not MISSING and values is not MISSING:
                read[name] = values
        return read

    def _values(self, value: object, place: Place, door: Door) -> Any:
        if not isinstance(value, list | tuple):
            return self._value(value, place, door)
        if not 0 < len(value) <= MOST_VALUES:
            door.problems.add("E_VALUE", place, f"found {len(value)} values; name 1 to {MOST_VALUES}, any of which do")
            return MISSING
        read = [self._value(item, (place, number), door) for number, item in enumerate(value)]
        return MISSING if MISSING in read else read

    def _value(self, value: object, place: Place, door: Door) -> Any:
        if isinstance(value, str):
            return VALUE.read(value, place, door)
        plain = isinstance(value, bool | int | float)
        hint = f"; labels are texts: write {written(shown(value))}" if plain else ""
        door.problems.add("E_TYPE", place, f"expected a text or a list of texts, found {shown(value)}{hint}")
        return MISSING

    def schema(self) -> dict[str, Any]:
        many = {"type": "array", "items": VALUE.schema(), "minItems": 1, "maxItems": MOST_VALUES}
        return {
            "type": "object",
            "propertyNames": NAME.schema(),
            "additionalProperties": {"anyOf": [VALUE.schema(), many]},
            "maxProperties": MOST_LABELS,
        }


FOLLOWS: Final = Record("sticky", "`sticky`", {
    "node": Key(Text(1_000, says="a node id"), "Whose worker; left out, that of the task's first such node."),
    "patience_sec": Key(Number(0, LONGEST_PATIENCE_SEC), "How long it waits for room there before it goes elsewhere."),
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class StickyKind:
    """`"task"`, or `{"node": "load", "patience_sec": 30}`, of which either may be left out."""

    def read(self, value: object, place: Place, door: Door) -> Any:
        if isinstance(value, dict):
            return FOLLOWS.read(value, place, door)
        if value == TASK:
            return TASK
        hint = f'; for the worker of a node write {{"node": {written(value)}}}' if isinstance(value, str) else ""
        code = "E_CHOICE" if isinstance(value, str) else "E_TYPE"
        door.problems.add(code, place, f'expected "task" or {{"node": "load"}}, found {shown(value)}{hint}')
        return MISSING

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"const": TASK}, FOLLOWS.schema()]}
