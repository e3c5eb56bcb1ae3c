"""Handlers' parameters become the JSON Schema of their role."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from inspect import Parameter, Signature
from typing import Any

from pydantic import BaseModel

from flowkit.core.signature import read_signature
from flowkit.worker.binding import binding_of
from flowkit.worker.context import Context
from flowkit.worker.handlers.echo import EchoHandler
from flowkit.worker.registry import Registry
from flowkit.worker.schema import MOST_BYTES, schema_of, schemas_of


class Address(BaseModel):
    city: str


class Order(BaseModel):
    id: int
    to: Address


@dataclass
class Point:
    x: int
    y: int = 0


def of(function: Any) -> dict[str, Any]:
    return schema_of(binding_of(function, "f"))


def test_names_defaults_and_plain_types_are_said() -> None:
    def f(name: str, times: int = 1, *, ctx: Context, ratio: float = float("inf"), tags=()) -> None:  # type: ignore[no-untyped-def]
        pass

    schema = of(f)

    assert schema["properties"] == {
        "name": {"type": "string"},
        "times": {"type": "integer", "default": 1},
        "ratio": {"type": "number"},
        "tags": {},
    }
    assert (schema["type"], schema["required"], schema["additionalProperties"]) == ("object", ["name"], False)


def test_models_and_their_parts_are_shared_definitions() -> None:
    def f(order: Order, at: datetime, spot: Point) -> None:
        pass

    schema = of(f)

    assert schema["properties"]["at"] == {"type": "string", "format": "date-time"}
    assert schema["properties"]["order"]["$ref"] == "#/$defs/Order"
    assert {"Order", "Address"} <= schema["$defs"].keys()


def test_a_parameter_that_takes_everything_is_described_as_it_is_and_not_by_name() -> None:
    def f(inputs: Order) -> None:
        pass

    schema = of(f)

    assert schema["$defs"].keys() >= {"Order", "Address"} or schema["properties"].keys() == {"id", "to"}
    assert read_signature(schema) is None


def test_the_signature_says_which_values_can_be_judged_by_their_kind() -> None:
    def f(n: int, at: datetime, anything, **rest: Any) -> None:  # type: ignore[no-untyped-def]
        pass

    signature = read_signature(of(f))

    assert signature is not None
    assert signature.takes == {"n": "integer", "at": "", "anything": ""}
    assert (signature.needs, signature.rest) == (("n", "at", "anything"), True)


def test_classes_say_nothing_and_what_is_too_much_stays_out() -> None:
    def small(a: int) -> None:
        pass

    def large(**given: Any) -> None:
        pass

    many = (Parameter(f"p{n}", Parameter.KEYWORD_ONLY, default="x" * 100) for n in range(MOST_BYTES // 100))
    large.__signature__ = Signature(list(many))  # type: ignore[attr-defined]

    assert list(schemas_of(Registry({"echo": EchoHandler(), "small": small, "large": large}))) == ["small"]
