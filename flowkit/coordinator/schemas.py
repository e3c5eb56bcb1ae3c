"""JSON Schemas that users give: whether they are any, and whether a value fits. Nothing is ever fetched for them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from flowkit.core.filling import unescape
from flowkit.core.graph import MISSING, Graph, Node
from flowkit.core.model import Task
from flowkit.errors import GraphError, Problem
from flowkit.wire.codec import dumps, loads

if TYPE_CHECKING:
    from jsonschema_rs import Validator

MOST_MISFITS = 20


def check_schemas(graph: Graph) -> None:
    """Raise `GraphError` for a signal node whose `schema` is no JSON Schema."""
    problems: list[Problem] = []
    for number, node in enumerate(graph.nodes.values()):
        schema = schema_of(node)
        if schema is MISSING:
            continue
        try:
            _validator(dumps(schema))
        except ValueError as error:
            problems.append(Problem("E_SCHEMA", f"nodes[{number}].inputs.schema", f"not a JSON Schema: {error}"))
    if problems:
        raise GraphError(problems)


def check_signal(task: Task, name: str, payload: Any) -> None:
    """Raise `GraphError` for a payload that does not fit the schema of the node that is to take the signal."""
    takers = [*task.waiting.get(name, ()), *task.graph.signals.get(name, ())]
    for taker in takers[:1]:
        schema = schema_of(task.node(taker))
        if schema is not MISSING:
            found = list(misfits(schema, payload))
            if found:
                raise GraphError(found)


def schema_of(node: Node) -> Any:
    """The schema that a signal node's payload must fit, where it is known before the node runs; else MISSING."""
    if node.type != "signal" or node.inputs is MISSING or not node.constant:
        return MISSING
    inputs = unescape(node.inputs)
    schema = inputs.get("schema") if isinstance(inputs, dict) else None
    return MISSING if schema is None else schema


def misfits(schema: Any, value: Any) -> Iterator[Problem]:
    """What is wrong with a value, by place."""
    for number, error in enumerate(_validator(dumps(schema)).iter_errors(value)):
        if number == MOST_MISFITS:
            yield Problem("E_MORE", "payload", f"there are more than {MOST_MISFITS} problems; mend these first")
            return
        steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.instance_path)
        yield Problem("E_PAYLOAD", f"payload{steps}", error.message[:500])


@lru_cache(maxsize=512)
def _validator(text: bytes) -> Validator:
    """Raises `ValueError` for what is no schema, or refers to one elsewhere."""
    import jsonschema_rs

    try:
        # A linear regex engine: a pattern of a user must not take for ever.
        options = jsonschema_rs.RegexOptions()
        return jsonschema_rs.validator_for(loads(text), retriever=_nothing_elsewhere, pattern_options=options)
    except jsonschema_rs.ValidationError as error:
        raise ValueError(error.message[:500]) from error
    except jsonschema_rs.ReferencingError as error:
        raise ValueError(str(error)[:500]) from error


def _nothing_elsewhere(uri: str) -> Any:
    raise ValueError(f"{uri} stands elsewhere, and schemas are not fetched: copy it into `$defs`")
