"""The JSON Schema says what the parser does: held against it by a validator small enough to read."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings

from flowkit.core.dialect import normalise, parse_graph
from flowkit.core.keys import GRAPH, NODE
from flowkit.core.schema import graph_schema
from flowkit.errors import GraphError
from tests.core.graphs import broken_graphs, graph, node, valid_graphs
from tests.thorough import at_night

SCHEMA = graph_schema()
KEYWORDS = {
    "$schema", "$defs", "$ref", "title", "description", "deprecated", "type", "enum", "not", "anyOf",
    "pattern", "maxLength", "minimum", "exclusiveMinimum", "maximum", "items",
    "minItems", "maxItems", "properties", "patternProperties", "propertyNames", "additionalProperties", "required",
}  # fmt: skip
TYPES: dict[str, Any] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: TYPES["number"](value) and value == int(value),
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def fits(value: Any, schema: Any) -> bool:
    """Whether `value` is valid under `schema`, whose every keyword must be one that is understood here."""
    if isinstance(schema, bool):
        return schema
    assert schema.keys() <= KEYWORDS, schema.keys() - KEYWORDS
    types = schema.get("type", list(TYPES))
    return (
        any(TYPES[name](value) for name in ([types] if isinstance(types, str) else types))
        and ("$ref" not in schema or fits(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")]))
        and ("enum" not in schema or any(value == word and type(value) is type(word) for word in schema["enum"]))
        and ("not" not in schema or not fits(value, schema["not"]))
        and ("anyOf" not in schema or any(fits(value, one) for one in schema["anyOf"]))
        and (not isinstance(value, str) or _text_fits(value, schema))
        and (not TYPES["number"](value) or _number_fits(value, schema))
        and (not isinstance(value, list) or _list_fits(value, schema))
        and (not isinstance(value, dict) or _object_fits(value, schema))
    )


def _text_fits(value: str, schema: Any) -> bool:
    found = re.search(schema.get("pattern", "").removesuffix("$") + r"\Z" if "pattern" in schema else "", value)
    return len(value) <= schema.get("maxLength", len(value)) and found is not None


def _number_fits(value: float, schema: Any) -> bool:
    return (
        value >= schema.get("minimum", value)
        and value <= schema.get("maximum", value)
        and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
    )


def _list_fits(value: list[Any], schema: Any) -> bool:
    fewest, most = schema.get("minItems", 0), schema.get("maxItems", len(value))
    return fewest <= len(value) <= most and all(fits(item, schema.get("items", True)) for item in value)


def _object_fits(value: dict[str, Any], schema: Any) -> bool:
    if not value.keys() >= set(schema.get("required", ())):
        return False
    for name, item in value.items():
        kinds = [kind for known, kind in schema.get("properties", {}).items() if known == name]
        kinds += [kind for rule, kind in schema.get("patternProperties", {}).items() if re.search(rule, name)]
        if not all(fits(item, kind) for kind in kinds or [schema.get("additionalProperties", True)]):
            return False
        if not fits(name, schema.get("propertyNames", True)):
            return False
    return True


def test_the_schema_is_json_and_no_two_share_their_parts() -> None:
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    graph_schema()["properties"]["nodes"]["items"]["properties"].clear()
    assert graph_schema() == SCHEMA


def test_every_key_is_described() -> None:
    nodes = SCHEMA["properties"]["nodes"]["items"]["properties"]

    assert SCHEMA["properties"].keys() == GRAPH.keys.keys()
    assert nodes.keys() == NODE.keys.keys()
    assert all(said["description"] for said in [*SCHEMA["properties"].values(), *nodes.values()])
    assert nodes["status"]["deprecated"] and "deprecated" not in nodes["inputs"]


@pytest.mark.parametrize(
    ("raw", "valid"),
    [
        (graph(node("a")), True),
        (graph(node("a"), edges=[["a", "b"], {"from": "a", "to": "b", "on": "end"}]), True),
        (
            graph(node("a", inputs={"x": [{"$from": "b", "default": 1}, {"$literal": {"$x": 1}}, {"$gt": 5}]})),
            True,
        ),
        (graph(node("a", fan_in="count:2")), True),
        (graph(node("a", **{"x-y": 1})), True),
        (graph(), False),
        ({}, False),
        (graph({"node_id": "a"}), False),
        (graph(node("a", type="code", code={"source": 1})), False),
        (graph(node("a/b")), False),
        (graph(node("a", fan_in="most")), False),
        (graph(node("a", fan_in={"count": 0})), False),
        (graph(node("a", inputs=[{"$secret": 1}])), False),
        (graph(node("a", inputs={"$from": 1})), False),
        (graph(node("a", inputs={"$from": "b", "x": 1})), False),
        (graph(node("a", retry_policy={"max": 0})), False),
        (graph(node("a", timeout_sec=0)), False),
        (graph(node("a", depnds_on=[])), False),
        (graph(node("a"), edges=[["a"]]), False),
    ],
)
def test_the_schema_knows_right_from_wrong(raw: Any, valid: bool) -> None:
    assert fits(raw, SCHEMA) is valid


@given(valid_graphs())
def test_the_stored_form_is_valid(raw: Any) -> None:
    assert fits(normalise(raw), SCHEMA)


@settings(max_examples=at_night(300))
@given(broken_graphs())
def test_what_the_schema_refuses_the_parser_refuses(raw: Any) -> None:
    try:
        parse_graph(raw)
    except GraphError:
        return
    assert fits(without_nulls(raw), SCHEMA)


def without_nulls(raw: dict[str, Any]) -> Any:
    """`raw` as JSON has it, less the keys that are null where that means absent."""
    raw = json.loads(json.dumps(raw, default=repr))

    def clean(value: Any, keep: str = "") -> Any:
        return {key: item for key, item in value.items() if item is not None or key == keep}

    def clean_node(value: Any) -> Any:
        value = clean(value, keep="inputs")
        for name in ("io", "timeouts", "retry_policy", "routing"):
            if name in value:
                value[name] = clean(value[name])
        if "rules" in value.get("retry_policy", {}):
            value["retry_policy"]["rules"] = [clean(rule) for rule in value["retry_policy"]["rules"]]
        return value

    raw = clean(raw, keep="output")
    raw["nodes"] = [clean_node(one) for one in raw["nodes"]]
    raw["edges"] = [clean(edge) if isinstance(edge, dict) else edge for edge in raw.get("edges", [])]
    raw.pop("edges_ex", None)
    return raw
