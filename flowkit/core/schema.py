"""The dialect as JSON Schema (2020-12), made from the tables that graphs are read by."""

from __future__ import annotations

from typing import Any, Final

from flowkit.core.code import SECRET_RULE
from flowkit.core.keys import GRAPH
from flowkit.core.kinds import LONGEST_EXPRESSION
from flowkit.core.template import COMPANY, EXPR, FORMS, INDEX, LITERAL, LONGEST_REFERENCE, SECRET, STREAM

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"

ABOUT_FORMS: Final = {
    "$from": 'Replaced by a node\'s output, or a part of it: "node", "node.path[0].field".',
    "$param": 'Replaced by one of the task\'s params, or a part of it: "name.field[0]".',
    "$literal": "Replaced by its value as it is, whatever keys that has.",
    "$stream": "A node's batches, or those of several nodes, as they come. Only as an input of its own.",
    "$item": "Replaced by the item of a `foreach` that the node runs for, or a part of it.",
    "$index": "Replaced by the item's place in its list, from 0.",
    "$previous": "Replaced by the output of the last repetition, or a part of it.",
    "$var": 'Replaced by one of the task\'s variables, or a part of it: "name.field[0]".',
    "$expr": "Replaced by what the expression says.",
    "$secret": "A secret's name, for its value: only in the inputs of nodes of type `code`.",
    "default": "Taken where there is nothing to take.",
}


def graph_schema() -> dict[str, Any]:
    """The JSON Schema of a graph.

    What it refuses, `parse_graph` refuses too, but for a null instead of an absent key. Not the other way
    round: a schema cannot tell whether an edge leads somewhere.
    """
    schema = GRAPH.schema()
    nodes = schema["properties"]["nodes"]
    nodes["minItems"] = 1
    return {
        "$schema": DRAFT,
        "title": "FlowKit graph",
        "description": "Nodes, what each is given, and which waits for which.",
        **schema,
        "required": ["nodes"],
        "$defs": {"template": _template()},
    }


def _template() -> dict[str, Any]:
    again = {"$ref": "#/$defs/template"}
    plain = {
        "type": "object",
        "propertyNames": {"not": {"enum": sorted(FORMS)}},
        "additionalProperties": again,
    }
    return {
        "description": 'Any JSON in which objects such as {"$from": "node"} are replaced.',
        "anyOf": [
            {"type": ["null", "boolean", "number", "string"]},
            {"type": "array", "items": again},
            plain,
            *map(_form, COMPANY),
        ],
    }


def _form(name: str) -> dict[str, Any]:
    value: dict[str, Any] = {"type": "string", "maxLength": LONGEST_REFERENCE}
    if name in (LITERAL, INDEX):
        value = {}
    elif name == EXPR:
        value["maxLength"] = LONGEST_EXPRESSION
    elif name == SECRET:
        value = {"type": "string", "pattern": f"^{SECRET_RULE.pattern}$"}
    elif name == STREAM:
        value = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
    beside = {other: {"description": ABOUT_FORMS[other]} for other in sorted(COMPANY[name])}
    return {
        "type": "object",
        "properties": {name: value | {"description": ABOUT_FORMS[name]}, **beside},
        "required": [name],
        "additionalProperties": False,
    }
