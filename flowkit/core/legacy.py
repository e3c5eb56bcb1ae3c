"""Old forms that need more than another kind of value: `io.input_inline`, `io.start_when`."""

from __future__ import annotations

from typing import Any, Final

from flowkit.core.later import NOT_YET, not_yet
from flowkit.core.problems import Place, Problems
from flowkit.core.template import LITERAL, Template

OLD_IO: Final = ("input_inline", "start_when")


def modernise(fields: dict[str, Any], place: Place, problems: Problems) -> None:
    """Rewrite a node's fields, in place, to what a node of today says."""
    io = fields.get("io")
    if io is None:
        return

    if io.get("start_when") in NOT_YET["start_when"]:
        problems.add("E_NOT_YET", ((place, "io"), "start_when"), not_yet(io["start_when"]))
    inline = io.get("input_inline")
    if inline:
        _move_inputs(inline, fields, ((place, "io"), "input_inline"), problems)

    kept = {name: value for name, value in io.items() if name not in OLD_IO}
    if kept:
        fields["io"] = kept
    else:
        del fields["io"]


def _move_inputs(inline: dict[str, Any], fields: dict[str, Any], place: Place, problems: Problems) -> None:
    for name in NOT_YET["input_inline"] & inline.keys():
        problems.add("E_NOT_YET", (place, name), not_yet(name))
    if "inputs" in fields:
        problems.add("E_KEY_CONFLICT", place, "`inputs` says this already; keep only `inputs`")
        return
    if holds_dollar(inline):
        fields["inputs"] = Template({LITERAL: inline})
    else:
        fields["inputs"] = Template(inline)


def holds_dollar(value: Any) -> bool:
    """Whether a key somewhere inside begins as those of a template do."""
    stack = [value]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            if any(name.startswith("$") for name in part):
                return True
            stack.extend(part.values())
        elif isinstance(part, list):
            stack.extend(part)
    return False
