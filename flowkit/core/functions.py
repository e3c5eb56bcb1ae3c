"""The built-in functions of `coordinator_fn` nodes: what a call changes in the task's variables, and what it gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flowkit.core import vars as variables
from flowkit.core.payload import holds_artifacts
from flowkit.core.problems import shown
from flowkit.core.sensitive import looks_secret
from flowkit.core.vars import Operation
from flowkit.errors import FunctionError, did_you_mean

OutputOf = Callable[[str], Any]
Detector = Callable[[str, Any], bool]

LARGEST_BITS: Final = 1023  # of a whole number that a float can still say


@dataclass(frozen=True, slots=True)
class FunctionResult:
    """What to record, and the node's output. `sensitive_hits` counts the values that look like secrets."""

    operations: list[Operation]
    output: dict[str, Any]
    sensitive_hits: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its arguments, and what it may look at."""

    args: Mapping[str, Any]
    vars: Mapping[str, Any]
    output_of: OutputOf
    detector: Detector
    node: str

    def take(self, *known: str) -> list[Any]:
        """The arguments of these names, None for those not given. Raises `FunctionError` for any other."""
        for name in self.args:
            if name not in known:
                say = f"{shown(name)} is not one of the arguments: {', '.join(known)}{did_you_mean(name, known)}"
                raise _bad_args(say)
        return [self.args.get(name) for name in known]


def run_function(name: str, args: Mapping[str, Any], *, vars: Mapping[str, Any], output_of: OutputOf,
                 detector: Detector = looks_secret, node: str = "") -> FunctionResult:  # fmt: skip
    """Call a function. It changes nothing: `apply` of `flowkit.core.vars` makes the operations true.

    `output_of` gives a node's output as a plain value and raises `LookupError` where there is none; `node` is the id of
    the node that calls. Raises `FunctionError`, whose code and message become those of the failed node.
    """
    function = _TABLE.get(name)
    if function is None:
        say = f"there is no coordinator function {shown(name)}{did_you_mean(name, FUNCTIONS)}"
        raise FunctionError(f"{say}; there are {', '.join(FUNCTIONS)}", code="unknown_function")
    return function(Call(args, vars, output_of, detector, node))


# Variables.


def _set(call: Call) -> FunctionResult:
    said = dict(call.args)
    block, given = said.pop("block_sensitive", None), said.pop("kv", None)
    if given is not None and not isinstance(given, dict):
        raise _bad_args(f"`kv` is an object of names and values, not {shown(given)}")
    if twice := said.keys() & (given or {}).keys():
        raise _bad_args(f"{shown(min(twice))} is set twice, inside `kv` and beside it")
    return _put(call, said | (given or {}), block)


def _merge(call: Call) -> FunctionResult:
    data, kv, block = call.take("data", "kv", "block_sensitive")
    if (data is None) == (kv is None) or not isinstance(data if kv is None else kv, dict):
        raise _bad_args('what is to be merged is one object, given as `data` (or `kv`): {"data": {"a": 1}}')
    return _put(call, data if kv is None else kv, block)


def _put(call: Call, values: Mapping[str, Any], block: Any) -> FunctionResult:
    if not isinstance(block, bool | None):
        raise _bad_args(f"`block_sensitive` is true or false, not {shown(block)}")
    leaves = variables.flatten(values)
    if not leaves:
        raise _bad_args('there is nothing to set: {"total": 3} sets a variable')
    for path, _ in leaves:
        variables.read(call.vars, path)  # no path may lead through a number or a text
    secrets = [path for path, value in leaves if _is_secret(".".join(path), value, call.detector)]
    if block and secrets:
        names = ", ".join(repr(".".join(path)) for path in secrets[:5])
        say = f"what {names} would hold looks like a secret, and `block_sensitive` is set: keep it in the secret store"
        raise FunctionError(say, code="sensitive_value")
    operations: list[Operation] = [["set", list(path), value] for path, value in leaves]
    return FunctionResult(operations, {"ok": True, "touched": len(operations)}, len(secrets))


def _is_secret(key_path: str, value: Any, detector: Detector) -> bool:
    try:
        return any(detector(at, part) for at, part in _parts(key_path, value))
    except Exception as error:  # it is the user's, and must not spoil the decision about the whole task
        say = f"the sensitive detector failed on {key_path!r}: {type(error).__name__}"
        raise FunctionError(say, code="sensitive_detector") from error


def _parts(key_path: str, value: Any) -> Iterator[tuple[str, Any]]:
    stack = [(key_path, value)]
    while stack:
        at, part = stack.pop()
        yield at, part
        items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        stack.extend((f"{at}.{key}", item) for key, item in items)


def _incr(call: Call) -> FunctionResult:
    key, by = call.take("key", "by")
    by = 1 if by is None else by
    if not _is_number(by):
        raise FunctionError(f"`by` is a finite number, not {shown(by)}", code="bad_amount")
    path = variables.parse_path(key)
    there, before = variables.read(call.vars, path)
    if there and not _is_number(before):
        raise FunctionError(f"{key!r} is {shown(before)}, and only numbers grow: set it first", code="not_a_number")
    after = _sum(before, by) if there else by
    if not _is_number(after):
        raise FunctionError(f"{key!r} would grow too large to be a number", code="bad_amount")
    return FunctionResult([["set", list(path), after]], {"ok": True, "key": key, "by": by})


def _unset(call: Call) -> FunctionResult:
    keys, more = call.take("keys", "paths")
    names = [*_names(keys), *_names(more)]
    if not names:
        raise _bad_args('there is nothing to unset: {"keys": ["total"]} unsets a variable')
    variables.check_count(len(names))
    paths = [variables.parse_path(name) for name in names]
    operations: list[Operation] = [["unset", list(path)] for path in paths if _is_there(call.vars, path)]
    return FunctionResult(operations, {"ok": True, "touched": len(paths)})


def _names(given: Any) -> list[Any]:
    if isinstance(given, list | None):
        return given or []
    return [given]


def _is_there(values: Mapping[str, Any], path: variables.Path) -> bool:
    try:
        return variables.read(values, path)[0]
    except FunctionError:  # what a path leads through is no object, so nothing is there
        return False


# Outputs.


def _merge_generic(call: Call) -> FunctionResult:
    sources, target = call.take("from_nodes", "target")
    if not isinstance(sources, list) or not sources:
        raise _bad_args('`from_nodes` is a list of node ids: {"from_nodes": ["a", "b"]}')
    _check_target(target, call.node)
    merged: dict[str, Any] = {}
    for source in sources:
        output = _output_of(call, source)
        _merge_into(merged, output if isinstance(output, dict) else {source: output})
    variables.check_bytes(variables.json_size(merged))
    return FunctionResult([], {"ok": True, "meta": merged})


def _check_target(target: Any, node: str) -> None:
    if target is None:
        return
    if not isinstance(target, dict) or not isinstance(target.get("node_id"), str):
        raise _bad_args(f'`target` is an object such as {{"node_id": "all"}}, not {shown(target)}')
    if node and target["node_id"] != node:
        say = f"a node gives an output of its own only: leave `target` out, and read {node}.meta"
        raise FunctionError(say, code="bad_target")


def _merge_into(whole: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add to `whole`, whose objects are all its own; where both have a value, the later one counts."""
    stack = [(whole, more)]
    while stack:
        into, part = stack.pop()
        for key, value in part.items():
            if not isinstance(value, dict):
                into[key] = value
                continue
            if not isinstance(into.get(key), dict):
                into[key] = {}
            stack.append((into[key], value))


def _aggregate(call: Call) -> FunctionResult:
    source, mode = call.take("node_id", "mode")
    mode = "sum" if mode is None else mode
    if mode not in ("sum", "mean"):
        raise _bad_args(f"`mode` is 'sum' or 'mean', not {shown(mode)}")
    output = _output_of(call, source)
    columns: dict[str, list[Any]] = {}
    for sample in output if isinstance(output, list) else [output]:
        for name, value in _metrics(sample, source):
            columns.setdefault(name, []).append(value)
    stats = {name: _total(name, values, mode) for name, values in columns.items()}
    return FunctionResult([], {"ok": True, "mode": mode, "stats": stats})


def _metrics(sample: Any, source: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(sample, dict):
        say = f"the output of {shown(source)} holds no metrics: it is {shown(sample)}, not an object of numbers"
        raise FunctionError(say, code="not_metrics")
    metrics = sample.get("metrics")
    for name, value in (metrics if isinstance(metrics, dict) else sample).items():
        if _is_number(value):
            yield name, value


def _total(name: str, values: list[Any], mode: str) -> Any:
    total: Any = 0
    for value in values:
        total = _sum(total, value)
    total = total / len(values) if mode == "mean" and _is_number(total) else total
    if not _is_number(total):
        raise FunctionError(f"the {mode} of {shown(name)} is too large to be a number", code="bad_amount")
    return total


def _output_of(call: Call, source: Any) -> Any:
    if not isinstance(source, str):
        raise _bad_args(f"a node is named by its id, not by {shown(source)}")
    try:
        output = call.output_of(source)
    except LookupError:
        say = f"the node {shown(source)} has no output: it must have finished before; put it into `depends_on`"
        raise FunctionError(say, code="no_output") from None
    if holds_artifacts(output):
        say = f"the output of {shown(source)} is kept as an artifact, which only a handler can read"
        raise FunctionError(say, code="output_too_large")
    return output


def _noop(call: Call) -> FunctionResult:
    return FunctionResult([], {"ok": True})


# Numbers.


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else value.bit_length() <= LARGEST_BITS


def _sum(one: Any, other: Any) -> Any:
    try:
        return one + other
    except OverflowError:
        return math.inf


def _bad_args(message: str) -> FunctionError:
    return FunctionError(message, code="bad_args")


_TABLE: Final[Mapping[str, Callable[[Call], FunctionResult]]] = {
    "vars.set": _set,
    "vars.merge": _merge,
    "vars.incr": _incr,
    "vars.unset": _unset,
    "merge.generic": _merge_generic,
    "metrics.aggregate": _aggregate,
    "noop": _noop,
}
FUNCTIONS: Final = tuple(_TABLE)
