"""The ids that the engine derives from those of a graph's nodes: `load[17]` is an item, `poll#3` a repetition, and
`charge/compensate` undoes what `charge` did. No id that a user gives holds `[`, `#` or `/`."""

from __future__ import annotations

import re
from typing import Final

COMPENSATE: Final = "/compensate"

_MARK: Final = re.compile(r"[\[#/]")
_STEP: Final = re.compile(r"\[(\d+)\]|#(\d+)|(/compensate)")


def item_of(group: str, index: int) -> str:
    return f"{group}[{index}]"


def repetition_of(group: str, number: int) -> str:
    return f"{group}#{number}"


def compensation_of(name: str) -> str:
    return name + COMPENSATE


def base_of(name: str) -> str:
    """The id in the graph that a node's id is derived from; its own if it is not derived."""
    return name.partition("[")[0].partition("#")[0].partition("/")[0]


def steps_of(name: str) -> list[str] | None:
    """What was derived, one step after the other: `[`, `#` or `/` for each. None for what is no derived id."""
    mark = _MARK.search(name)
    if mark is None:
        return []
    steps, at = [], mark.start()
    while at < len(name):
        step = _STEP.match(name, at)
        if step is None:
            return None
        steps.append(name[at])
        at = step.end()
    return steps


def group_of(name: str) -> str:
    """The group that an item or a repetition belongs to; empty for any other node."""
    if name.endswith("]"):
        return name[: name.rindex("[")]
    mark = name.rfind("#")
    return name[:mark] if mark > 0 and name[mark + 1 :].isdigit() else ""


def number_of(name: str) -> int:
    """Which item of its group, or which repetition, a node is."""
    return int(name[name.rindex("[") + 1 : -1]) if name.endswith("]") else int(name[name.rindex("#") + 1 :])


def item_of_name(name: str) -> str:
    """The item of a node of the graph that a name begins with: the name itself, if it is one."""
    return name[: name.find("]") + 1]
