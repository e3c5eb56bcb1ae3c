"""A role's inputs as JSON Schema, from its handler's parameters: announced in the worker's hello, for forms and
checks."""

from __future__ import annotations

import math
from typing import Any, Final

from flowkit.core.signature import BY_NAME
from flowkit.wire.codec import dumps
from flowkit.worker.binding import MISSING, Binding, Parameter, is_stream
from flowkit.worker.registry import Registry

MOST_BYTES: Final = 32 * 1024
"""Of all schemas of a worker together: they travel in one message."""

TYPES: Final[dict[Any, str]] = {
    str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", list: "array",
}  # fmt: skip


def schemas_of(registry: Registry) -> dict[str, Any]:
    """The schemas by role; those without parameters to read one from are left out, and those that are too much."""
    schemas: dict[str, Any] = {}
    room = MOST_BYTES
    for role in registry:
        if role.binding is None:
            continue
        schema = schema_of(role.binding)
        room -= len(dumps(schema)) + len(role.name)
        if room < 0:
            break
        schemas[role.name] = schema
    return schemas


def schema_of(binding: Binding) -> dict[str, Any]:
    """The JSON Schema of a handler's inputs."""
    complex_ones = {p.name: p.annotation for p in binding.parameters if _is_complex(p.annotation)}
    said, shared = _described(complex_ones) if complex_ones else ({}, {})
    if binding.everything:
        (only,) = binding.parameters
        return {**_property(only, said), **shared}
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {parameter.name: _property(parameter, said) for parameter in binding.parameters},
        "required": [parameter.name for parameter in binding.parameters if parameter.default is MISSING],
        "additionalProperties": binding.rest,
        BY_NAME: {parameter.name: _type_of(parameter.annotation) for parameter in binding.parameters},
    }
    return schema | shared


def _property(parameter: Parameter, said: dict[str, Any]) -> dict[str, Any]:
    kind, default = _type_of(parameter.annotation), parameter.default
    described: dict[str, Any] = {"type": kind} if kind else dict(said.get(parameter.name, {}))
    if default is None or isinstance(default, str | int) or (isinstance(default, float) and math.isfinite(default)):
        described.setdefault("default", default)
    return described


def _type_of(annotation: Any) -> str:
    return TYPES.get(annotation, "") if isinstance(annotation, type) else ""


def _is_complex(annotation: Any) -> bool:
    return annotation not in (MISSING, Any, object) and not _type_of(annotation) and not is_stream(annotation)


def _described(annotations: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What pydantic says of these annotations, and the definitions that they share. One that JSON Schema cannot say
    is left out: it takes anything."""
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticInvalidForJsonSchema

    adapters: list[tuple[str, Any, TypeAdapter[Any]]] = []
    for name, annotation in annotations.items():
        adapter = TypeAdapter(annotation)
        try:
            adapter.json_schema()
        except (PydanticInvalidForJsonSchema, ValueError):
            continue
        adapters.append((name, "validation", adapter))
    if not adapters:
        return {}, {}
    found, shared = TypeAdapter.json_schemas(adapters)
    return {name: schema for (name, _), schema in found.items()}, shared
