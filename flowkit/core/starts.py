"""What a node's keys say about how it starts: a condition, items, repetitions, and the nodes that no worker runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from flowkit.core import policies
from flowkit.core.derived import compensation_of, group_of
from flowkit.core.expr import Expression
from flowkit.core.functions import FUNCTIONS
from flowkit.core.graph import BUILT_INS, MISSING, Cache, Foreach, Node, Reference, Repeat
from flowkit.core.lane import WORKERLESS, of_role
from flowkit.core.opening import ENDINGS, named, wakes_at
from flowkit.core.problems import Place, Problems, shown
from flowkit.core.scope import as_list
from flowkit.core.template import Template, expression_references
from flowkit.errors import InputError

INPUTS: Final[dict[str, frozenset[str]]] = {
    "sleep": frozenset({"seconds", "until"}),
    "signal": frozenset({"name", "schema"}),
    "end": frozenset({"output", "status"}),
}
UNTIMED: Final = {
    "sleep": ("timeout_sec", "run_sec", "queued_sec", "heartbeat_sec"),
    "signal": ("timeout_sec", "run_sec", "queued_sec", "heartbeat_sec"),
    "task": ("queued_sec", "heartbeat_sec"),
}
"""The times that nodes of a type do not have."""
OF_ITEMS: Final = ("max_parallel", "gather", "on_item_failure")


def function_role(name: str) -> str:
    """The role of a coordinator function that is the user's own: an in-process worker serves it."""
    return f"coordinator_fn.{name}"


def of(fields: dict[str, Any]) -> dict[str, Any]:
    """What the fields of a node say about its start: arguments of `Node`."""
    said: dict[str, Any] = {}
    if "foreach" in fields:
        said["foreach"] = Foreach(
            items=fields["foreach"].value,
            most=fields.get("max_parallel"),
            need=policies.need_of(fields.get("gather", "all")),
            cancel_losers=fields.get("losers") == "cancel",
            collect=fields.get("on_item_failure") == "collect",
        )
    if "repeat" in fields:
        repeat = fields["repeat"]
        said["repeat"] = Repeat(repeat["until"], repeat.get("every_sec", 0.0), repeat.get("max", 100))
    if "cache" in fields:
        said["cache"] = Cache(fields["cache"]["key"], fields["cache"]["ttl_sec"])
    if "graph" in fields:
        said["child"] = fields["graph"]
    if "flow" in fields:
        said["flow"] = fields["flow"]
    if "compensate" in fields:
        said["compensate"] = _compensation(fields["node_id"], fields["compensate"])
    return said


def _compensation(name: str, fields: dict[str, Any]) -> Node:
    template = fields.get("inputs", Template(MISSING))
    basis = compensation_of(name), fields["type"], template.value, template.constant, template.references
    return Node(*basis, **policies.of({key: value for key, value in fields.items() if key != "inputs"}))


def finished(node: Node, fields: dict[str, Any]) -> Node:
    """The node with what follows from all that was said: what its body is, whether it is plain."""
    if node.type == "coordinator_fn":
        node = _function(node, fields.get("io", {}))
    more = _references(fields)
    if more:
        node = replace(node, references=_merged(node.references, more))
    if node.foreach is not None:
        body = _body(replace(node, foreach=None))
        return replace(node, body=body, plain=False)
    if node.repeat is not None:
        return replace(node, body=_body(replace(node, repeat=None)), plain=False)
    return replace(node, plain=_is_plain(node))


def _body(node: Node) -> Node:
    """What a member of a group does, and how that is undone: what its group waits for, and how long in all, is the
    group's."""
    timeouts = replace(node.timeouts, total_sec=None)
    node = replace(node, when=None, fan_in=policies.ALL, timeouts=timeouts, continue_on_failure=False, deadline=None)
    return finished(node, {})


def _is_plain(node: Node) -> bool:
    workerless = node.type in WORKERLESS or node.type == "coordinator_fn"
    return not (workerless or node.when is not None or node.cache is not None)


def _function(node: Node, io: dict[str, Any]) -> Node:
    if not io:
        return node
    args = io.get("fn_args", Template({}))
    if io["fn"] in FUNCTIONS:
        return replace(node, fn=io["fn"], fn_args=args.value, references=_merged(node.references, args.references))
    return replace(
        node, type=function_role(io["fn"]), inputs=args.value, constant=args.constant, references=args.references,
        lane=of_role(node.lane, function_role(io["fn"])),
    )  # fmt: skip


def _references(fields: dict[str, Any]) -> list[Reference]:
    found: list[Reference] = []
    if "foreach" in fields:
        found += fields["foreach"].references
    for expression in (fields.get("when"), fields.get("cache", {}).get("key"), fields.get("repeat", {}).get("until")):
        if expression is not None:
            found += expression_references(expression)
    return found


def references(fields: dict[str, Any]) -> tuple[Reference, ...]:
    """All nodes that a node reads, whichever of its keys says so."""
    found: tuple[Reference, ...] = fields["inputs"].references if "inputs" in fields else ()
    args = fields.get("io", {}).get("fn_args")
    more = [*_references(fields), *(args.references if args is not None else ())]
    return _merged(found, more) if more else found


def _merged(first: tuple[Reference, ...], more: Any) -> tuple[Reference, ...]:
    """One for each source and path; what is wanted once without a default is wanted."""
    merged: dict[Any, Reference] = {(one.source, one.path): one for one in first}
    for one in more:
        known = merged.get((one.source, one.path))
        if known is None or (known.has_default and not one.has_default):
            merged[one.source, one.path] = one
    return tuple(merged.values())


def signal_of(node: Node) -> str:
    """The name of the signal that a node waits for; empty where that is known only when it starts."""
    own = "" if node.foreach is not None else node.node_id
    if node.inputs is MISSING:
        return own
    if not node.constant or not isinstance(node.inputs, dict):
        return ""
    name = node.inputs.get("name", own)
    return name if isinstance(name, str) else ""


def may_be_called(node: Node, name: str) -> bool:
    """Whether a node whose signal is known only when it starts, or one of its items, may wait for one of this name."""
    said = node.inputs
    if node.foreach is None or (
        isinstance(said, dict) and ("name" in said or any(key.startswith("$") for key in said))
    ):
        return True
    return group_of(name) == node.node_id and name.endswith("]")


# ---------------------------------------------------------------------------------------------- what is wrong


def check(fields: dict[str, Any], place: Place, problems: Problems) -> None:
    """Report what a node says about its start that makes no sense together."""
    kind = fields.get("type")
    for name in OF_ITEMS:
        if name in fields and "foreach" not in fields:
            problems.add("E_KEY_CONFLICT", (place, name), f"`{name}` is about items: it needs `foreach` beside it")
    _check_uses(fields, place, problems)
    _check_list(fields, place, problems)
    for name in ("graph", "flow"):
        if name in fields and kind != "task":
            problems.add("E_KEY_CONFLICT", (place, name), f'`{name}` belongs to a node of type "task"')
    if kind == "task" and ("graph" in fields) == ("flow" in fields):
        problems.add("E_SUBGRAPH", place, 'a node of type "task" needs `graph` or `flow`, one of them')
    if kind == "coordinator_fn":
        _check_function(fields, place, problems)
    elif "fn" in fields.get("io", {}):
        problems.add("E_KEY_CONFLICT", ((place, "io"), "fn"), '`fn` belongs to a node of type "coordinator_fn"')
    if kind in WORKERLESS:
        _check_workerless(str(kind), fields, place, problems)
    undoing = fields.get("compensate", {}).get("type")
    if undoing in BUILT_INS:
        say = f"{undoing!r} is a built-in type: what undoes a node is run by a worker, so name a role"
        problems.add("E_NODE_TYPE", ((place, "compensate"), "type"), say)


def _check_uses(fields: dict[str, Any], place: Place, problems: Problems) -> None:
    said: list[tuple[Place, Any]] = [((place, "inputs"), fields.get("inputs"))]
    parts = (("compensate", "inputs"), ("io", "fn_args"), ("repeat", "until"), ("cache", "key"))
    said += [(((place, part), key), fields[part].get(key)) for part, key in parts if part in fields]
    for where, one in said:
        for name in sorted(_uses(one)):
            needed = "repeat" if name == "previous" else "foreach"
            if needed not in fields:
                problems.add("E_TEMPLATE", where, f"`{name}` means something only in a node with `{needed}`")
    if "previous" in _uses(fields.get("compensate", {}).get("inputs")) and "repeat" in fields:
        say = "`previous` has no value where a run is undone; without `inputs`, what undoes it is given its output"
        problems.add("E_TEMPLATE", ((place, "compensate"), "inputs"), say)
    for name in sorted(_uses(fields.get("foreach"))):
        say = f"`{name}` has no value before there are items: a list is made of params and of what other nodes gave"
        problems.add("E_TEMPLATE", (place, "foreach"), say)


def _uses(said: Any) -> frozenset[str]:
    """Which of `item`, `index` and `previous` a template or an expression needs."""
    if isinstance(said, Expression):
        return said.roots & {"item", "index", "previous"}
    return said.uses if isinstance(said, Template) else frozenset()


def _check_list(fields: dict[str, Any], place: Place, problems: Problems) -> None:
    foreach = fields.get("foreach")
    if isinstance(foreach, Template) and foreach.constant:
        try:
            as_list(foreach.value)
        except InputError as error:
            problems.add("E_TYPE", (place, "foreach"), str(error).removeprefix("foreach: "))


def _check_function(fields: dict[str, Any], place: Place, problems: Problems) -> None:
    io = fields.get("io", {})
    if "fn" not in io:
        say = f'a node of type "coordinator_fn" needs `io.fn`, such as "vars.set"; there are {", ".join(FUNCTIONS)}'
        problems.add("E_KEY_MISSING", (place, "io"), say)
    if "inputs" in fields:
        say = "a coordinator function reads no `inputs`; write its arguments as `io.fn_args`"
        problems.add("E_KEY_CONFLICT", (place, "inputs"), say)
    args = io.get("fn_args")
    if args is not None and not isinstance(args.value, dict):
        problems.add("E_TYPE", ((place, "io"), "fn_args"), f"expected an object, found {shown(args.value)}")


def _check_workerless(kind: str, fields: dict[str, Any], place: Place, problems: Problems) -> None:
    if kind == "end" and ("foreach" in fields or "repeat" in fields):
        problems.add("E_KEY_CONFLICT", place, "a node that ends the task runs once: leave `foreach` and `repeat` out")
    if "cache" in fields and kind != "task":
        problems.add("E_KEY_CONFLICT", (place, "cache"), f"a node of type {kind!r} has no output worth keeping")
    if kind in UNTIMED:
        _check_times(kind, fields, place, problems)
    inputs = fields.get("inputs")
    known = INPUTS.get(kind)
    if known is None:
        return
    value = inputs.value if isinstance(inputs, Template) else None
    if value is None:
        if kind == "sleep":
            problems.add(
                "E_INPUTS", place, 'a sleep needs `inputs`: {"seconds": 60} or {"until": "2027-01-01T00:00:00Z"}'
            )
        return
    if not isinstance(value, dict):
        problems.add("E_INPUTS", (place, "inputs"), f"expected an object, found {shown(value)}")
        return
    if any(name.startswith("$") for name in value):
        return  # what another node, or the params, will give
    for name in value:
        if name not in known:
            say = f"a node of type {kind!r} takes {', '.join(sorted(known))}, not {shown(name)}"
            problems.add("E_INPUTS", ((place, "inputs"), name), say + problems.suggest(name, known))
    _check_values(kind, value, (place, "inputs"), problems)


def _check_times(kind: str, fields: dict[str, Any], place: Place, problems: Problems) -> None:
    """What bounds the work of a worker bounds nothing where there is none."""
    named = [(place, "timeout_sec")] if "timeout_sec" in fields else []
    named += [((place, "timeouts"), name) for name in fields.get("timeouts", {})]
    for where in named:
        if where[1] in UNTIMED[kind]:
            say = f"no worker runs a node of type {kind!r}, so this bounds nothing: write `timeouts.total_sec`"
            problems.add("E_KEY_CONFLICT", where, say)


def _check_values(kind: str, value: dict[str, Any], place: Place, problems: Problems) -> None:
    if kind == "sleep" and ("seconds" in value) == ("until" in value):
        problems.add("E_INPUTS", place, "a sleep takes `seconds` or `until`, one of them")
    try:
        if kind == "sleep" and not isinstance(value.get("seconds", value.get("until", {})), dict):
            wakes_at(value, 0.0)
        elif kind == "signal" and not isinstance(value.get("name"), dict):
            named(value.get("name", "any"))
    except InputError as error:
        where, _, say = str(error).removeprefix("inputs.").partition(": ")
        problems.add("E_INPUTS", (place, where), say)
    status = value.get("status")
    if kind == "end" and isinstance(status, str) and status not in ENDINGS:
        say = f"expected one of {', '.join(ENDINGS)}, found {shown(status)}{problems.suggest(status, ENDINGS)}"
        problems.add("E_CHOICE", (place, "status"), say)
