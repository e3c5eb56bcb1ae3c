"""Old forms that need more than another kind of value: `io.input_inline`, `io.start_when`."""

from __future__ import annotations

from typing import Any, Final

from flowkit.core.problems import Place, Problems, shown
from flowkit.core.stream import FIRST_BATCH
from flowkit.core.template import LITERAL, Template

OLD_IO: Final = ("input_inline", "start_when")
ADAPTER: Final = ("input_adapter", "input_args")


def modernise(fields: dict[str, Any], place: Place, problems: Problems) -> None:
    """Rewrite a node's fields, in place, to what a node of today says."""
    io = fields.get("io")
    if io is None:
        return

    if io.get("start_when") == FIRST_BATCH:
        fields["start_when"] = FIRST_BATCH
    inline = io.get("input_inline")
    if inline:
        io |= {name: inline[name] for name in ADAPTER if name in inline}
        _check_adapter(io, (place, "io"), problems)
        inline = {name: value for name, value in inline.items() if name not in ADAPTER}
    if inline and fields.get("type") != "coordinator_fn":  # of which it meant nothing
        _move_inputs(inline, fields, ((place, "io"), "input_inline"), problems)

    kept = {name: value for name, value in io.items() if name not in OLD_IO}
    if kept:
        fields["io"] = kept
    else:
        del fields["io"]


def _check_adapter(io: dict[str, Any], place: Place, problems: Problems) -> None:
    for name, kind, says in (("input_adapter", str, "a string"), ("input_args", dict, "an object")):
        if name in io and not isinstance(io[name], kind):
            problems.add("E_TYPE", (place, name), f"expected {says}, found {shown(io[name])}")
            io[name] = kind()


def _move_inputs(inline: dict[str, Any], fields: dict[str, Any], place: Place, problems: Problems) -> None:
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
