"""What the start of a node means that does not simply wait for a worker: its condition, the items that it becomes, a
sleep, a signal, a task of its own, a function, the end of the task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from flowkit.core import facts as f
from flowkit.core.effects import LookUp
from flowkit.core.expr import Expression
from flowkit.core.functions import run_function
from flowkit.core.graph import MISSING, Node
from flowkit.core.inputs import node_inputs
from flowkit.core.model import Task
from flowkit.core.moments import show_moment
from flowkit.core.payload import Artifact, Payload, holds_artifacts
from flowkit.core.problems import shown
from flowkit.core.scope import Scope, Unanswered, depends_on
from flowkit.core.sensitive import looks_secret
from flowkit.core.vars import MOST_BYTES
from flowkit.errors import ExprError, InputError

MOST_ITEMS: Final = 100_000
MOST_KEPT: Final = 256 * 1024
LONGEST_SLEEP_SEC: Final = 1e9
ENDINGS: Final = ("finished", "failed", "cancelled")

Detector = Callable[[str, Any], bool]


def opening(task: Task, name: str, now: float, detector: Detector = looks_secret) -> list[f.Fact]:
    """The facts that a node's start is, at `now` (epoch seconds). Raises `InputError`, `ExprError` and `FunctionError`
    for what fails the node, `Unanswered` for what must be read first."""
    node = task.node(name)
    if node.when is not None and not _is_wanted(task, name, node.when):
        return [f.NodeSkipped(name, "condition", False)]
    if node.foreach is not None:
        return [_expanded(task, name, node.foreach.items)]
    if node.repeat is not None:
        return [f.NodeRepeated(name, 1, now)]
    match node.type:
        case "sleep":
            return [_sleep(task, name, now)]
        case "signal":
            return [_signal(task, name)]
        case "task":
            run = task.runs[name]
            attempt = run.attempt + 1
            if run.child_of and run.started_at is None:
                continued_params(task, name)
                return [f.ChildContinued(name, attempt, child_id(task.task_id, name, run.child_of))]
            child_params(task, name)
            return [f.ChildStarted(name, attempt, child_id(task.task_id, name, attempt))]
        case "coordinator_fn":
            return [_function(task, name, node, detector)]
        case "end":
            return [_end(task, name)]
    if node.cache is not None:
        return [_from_cache(task, name, node.cache.key)]
    return [f.NodeOpened(name)]


def holds(scope: Scope, condition: Expression) -> bool:
    """Whether a condition is true. Raises `ExprError` if it is neither true nor false."""
    value = scope.evaluate(condition)
    if not isinstance(value, bool):
        raise ExprError(f"{condition.text!r} is {shown(value)}, and a condition is true or false: compare it")
    return value


def _is_wanted(task: Task, name: str, when: Expression) -> bool:
    try:
        return holds(Scope(task, name), when)
    except ExprError as error:
        raise error.at("when") from None


# ---------------------------------------------------------------------------------------------- each kind


def _expanded(task: Task, name: str, template: Any) -> f.Fact:
    items = Scope(task, name).items(name)
    size = len(items)
    if size > MOST_ITEMS:
        raise InputError(f"foreach: the list has {size:,} items, and {MOST_ITEMS:,} are the most: map over parts of it")
    if not depends_on(template, "vars"):
        return f.NodeExpanded(name, size)
    if holds_artifacts(items) or len(json.dumps(items)) > MOST_KEPT:
        say = f"foreach: a list that is made of variables has at most {MOST_KEPT:,} bytes, as it is kept with its map"
        raise InputError(f"{say}: read a larger one by $from")
    return f.NodeExpanded(name, size, items)


def _sleep(task: Task, name: str, now: float) -> f.Fact:
    at = wakes_at(_object(task, name), now)
    if at - now > LONGEST_SLEEP_SEC:
        raise InputError(f"inputs.until: {show_moment(at)} is more than {LONGEST_SLEEP_SEC:,.0f} seconds away")
    return f.NodeWaiting(name, at)


def wakes_at(said: dict[str, Any], now: float) -> float:
    """When a sleep with these inputs is over, which begins `now`. Raises `InputError`."""
    if "until" in said:
        return _moment(said["until"])
    seconds = said.get("seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= LONGEST_SLEEP_SEC:
        raise InputError(f"inputs.seconds: expected seconds from 0 to {LONGEST_SLEEP_SEC:,.0f}, found {shown(seconds)}")
    return now + seconds


def _moment(value: Any) -> float:
    """Epoch seconds of an RFC 3339 time, or as given."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        example = '"2027-01-01T00:00:00Z"'
        raise InputError(f"inputs.until: expected a time such as {example}, found {shown(value)}") from None
    return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()


def _signal(task: Task, name: str) -> f.Fact:
    wanted = signal_name(task, name)
    kept = task.signals.get(wanted)
    return f.SignalReceived(wanted, kept[0], name) if kept else f.NodeWaiting(name, None, wanted)


def signal_name(task: Task, name: str) -> str:
    """The name of the signal that a node waits for: what its inputs say, else its id, and that of an item its own. The
    runs of a repetition wait for the same one after the other."""
    said = _object(task, name) if task.node(name).inputs is not MISSING else {}
    return named(said.get("name", name.partition("#")[0]))


def named(wanted: Any) -> str:
    """The name of a signal, if it is one. Raises `InputError`."""
    if not isinstance(wanted, str) or not wanted:
        raise InputError(f"inputs.name: expected the name of a signal, found {shown(wanted)}")
    return wanted


def child_params(task: Task, name: str) -> Any:
    """The params of a sub-graph node's task; may hold `Artifact`s. Raises `InputError` for what is no object."""
    inputs = node_inputs(task, name)
    if inputs is None:
        return {}
    if isinstance(inputs, Artifact) and inputs.kind == "json":
        return inputs  # whoever makes the task sees what it is
    if not isinstance(inputs, dict):
        raise InputError(f"inputs: the params of a sub-graph are an object, found {shown(inputs)}")
    return inputs


def continued_params(task: Task, name: str) -> Any:
    """The params with which a child goes on, None for those that it has: they can be others only where the task's own
    are. Raises as `child_params`."""
    return child_params(task, name) if task.edited_params else None


def child_id(task_id: str, name: str, attempt: int) -> str:
    """The id of the task that is this attempt: a UUID of version 8 (RFC 9562) from a hash."""
    digest = hashlib.sha256(json.dumps([task_id, name, attempt]).encode()).hexdigest()
    return (
        f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-{'89ab'[int(digest[16], 16) % 4]}{digest[17:20]}-{digest[20:32]}"
    )


def _function(task: Task, name: str, node: Node, detector: Detector) -> f.Fact:
    scope = Scope(task, name)
    args = scope.plain(scope.fill(node.fn_args or {}, place="io.fn_args"))
    result = run_function(node.fn, args, vars=task.vars, output_of=_plain_outputs(task), detector=detector, node=name)
    return f.FunctionApplied(name, list(result.operations), Payload(result.output))


def _plain_outputs(task: Task) -> Callable[[str], Any]:
    def output_of(name: str) -> Any:
        if name not in task.graph.nodes:
            raise LookupError(f"no node has the id {shown(name)}")
        value = Scope(task).plain_output_of(name)
        if value is MISSING:
            raise LookupError(f"node {shown(name)} has no output")
        return value

    return output_of


def _end(task: Task, name: str) -> f.Fact:
    ending(task, name)
    said = _object(task, name) if task.node(name).inputs is not MISSING else {}
    output = said.get("output")
    if isinstance(output, Artifact):
        return f.NodeFinished(name, Payload(None, output))
    plain = Scope(task, name).plain(output)
    if plain is not output and (size := len(json.dumps(plain))) > MOST_BYTES:
        say = f"inputs.output: with the outputs in it, it has {size:,} bytes, at most {MOST_BYTES:,}"
        raise InputError(f"{say}: make it in a node, and give that node's output")
    return f.NodeFinished(name, Payload(plain))


def ending(task: Task, name: str) -> str:
    """How an `end` node ends its task. Raises `InputError`, `ExprError`, `Unanswered`."""
    said = _object(task, name) if task.node(name).inputs is not MISSING else {}
    status = said.get("status", "finished")
    if status not in ENDINGS:
        raise InputError(f"inputs.status: expected one of {', '.join(ENDINGS)}, found {shown(status)}")
    return str(status)


def _from_cache(task: Task, name: str, key: Expression) -> f.Fact:
    text = cache_key(task, name, key)
    looked = task.memo.get("looked", {})
    if (name, text) not in looked:
        raise Unanswered(LookUp(name, text))
    output = looked.pop((name, text))
    return f.NodeOpened(name) if output is None else f.NodeFinished(name, output, cached=True)


def cache_key(task: Task, name: str, key: Expression) -> str:
    """The name under which an output is kept: of the tenant, the role, and what the key says."""
    try:
        value = Scope(task, name).evaluate(key)
    except ExprError as error:
        raise error.at("cache.key") from None
    text = json.dumps([task.tenant, task.node(name).type, value], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _object(task: Task, name: str) -> dict[str, Any]:
    """A built-in node's inputs, with what `Artifact`s stand for; but the output that an `end` gives may hold some."""
    scope, said = Scope(task, name), node_inputs(task, name)
    if isinstance(said, Artifact):
        said = scope.plain(said)
    if not isinstance(said, dict):
        raise InputError(f"inputs: expected an object, found {shown(said)}")
    return {key: value if key == "output" else scope.plain(value) for key, value in said.items()}
