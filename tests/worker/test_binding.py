"""Inputs find their parameters by name."""

from __future__ import annotations

import functools
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from flowkit.errors import ConfigError, InputError
from flowkit.worker.binding import Binding, binding_of
from flowkit.worker.context import Context

CONTEXT = object()


class Order(BaseModel):
    id: int
    tags: list[str] = []


@dataclass
class Point:
    x: int
    y: int


def bind(function: Any, inputs: Any) -> Any:
    """What the function gets, called with these inputs."""
    args, kwargs = binding_of(function, "f").bind(inputs, lambda: CONTEXT)
    return function(*args, **kwargs)


def refusal(function: Any, inputs: Any) -> str:
    with pytest.raises(InputError) as caught:
        binding_of(function, "f").bind(inputs, lambda: CONTEXT)
    assert caught.value.code == "bad_input"
    return str(caught.value)


def two(a, b=1):  # type: ignore[no-untyped-def]
    return a, b


def test_inputs_are_bound_by_name_and_defaults_fill_in() -> None:
    assert bind(two, {"a": 5}) == (5, 1)
    assert bind(two, {"b": 2, "a": 5}) == (5, 2)


def test_missing_and_unknown_names_are_both_listed_with_the_nearest() -> None:
    def needs(alpha, beta, gamma=0):  # type: ignore[no-untyped-def]
        return alpha, beta, gamma

    message = refusal(needs, {"alpah": 1, "zeta": 2})

    assert "misses alpha, beta" in message
    assert "does not take alpah, zeta (did you mean 'alpha'?)" in message
    assert binding_of(needs, "f").unfit(["alpha", "x"]) == (["beta"], ["x"])


def test_a_rest_takes_what_nobody_else_does() -> None:
    def function(a, **rest):  # type: ignore[no-untyped-def]
        return a, rest

    assert bind(function, {"a": 1, "b": 2, "c": 3}) == (1, {"b": 2, "c": 3})
    assert binding_of(function, "f").unfit(["a", "b"]) == ([], [])


def test_a_single_parameter_named_inputs_gets_everything() -> None:
    def function(inputs, ctx):  # type: ignore[no-untyped-def]
        return inputs, ctx

    for inputs in ({"inputs": 1, "other": 2}, [1, 2], None, "text"):
        assert bind(function, inputs) == (inputs, CONTEXT)
    assert binding_of(function, "f").unfit(["whatever"]) == ([], [])


def test_a_value_that_is_no_object_goes_to_the_only_parameter() -> None:
    def shout(text: str) -> str:
        return text.upper()

    assert bind(shout, "hi") == "HI"
    assert "its inputs are a string, not an object" in refusal(two, "hi")


def test_null_suits_a_handler_that_needs_nothing() -> None:
    assert bind(lambda: "ok", None) == "ok"
    assert bind(lambda a=1, b=2: (a, b), None) == (1, 2)
    assert "takes nothing" in refusal(lambda: None, "hi")
    assert "does not take a" in refusal(lambda: None, {"a": 1})


def test_the_only_parameter_is_told_how_to_get_everything() -> None:
    assert "(a parameter named `inputs` gets them all)" in refusal(lambda data: data, {"rows": []})


@pytest.mark.parametrize("annotation", [Context, "Context", "flowkit.Context", Context | None, "Context | None"])
def test_the_context_is_known_by_its_annotation(annotation: Any) -> None:
    def function(a, about):  # type: ignore[no-untyped-def]
        return a, about

    function.__annotations__["about"] = annotation
    assert bind(function, {"a": 1}) == (1, CONTEXT)


def test_the_context_is_known_by_its_name_and_is_no_input() -> None:
    def function(ctx, a):  # type: ignore[no-untyped-def]
        return ctx, a

    assert bind(function, {"a": 1}) == (CONTEXT, 1)
    assert "does not take ctx" in refusal(function, {"a": 1, "ctx": 2})


def test_two_parameters_for_the_context_are_refused() -> None:
    def function(ctx, other: Context):  # type: ignore[no-untyped-def]
        return ctx, other

    with pytest.raises(ConfigError, match="two parameters for the context"):
        binding_of(function, "f")


def test_positional_only_parameters_are_given_by_place() -> None:
    def function(a, ctx, b=7, /, c=8, *, d=9):  # type: ignore[no-untyped-def]
        return a, ctx, b, c, d

    assert bind(function, {"a": 1, "d": 4}) == (1, CONTEXT, 7, 8, 4)
    assert bind(function, {"a": 1, "b": 2, "c": 3}) == (1, CONTEXT, 2, 3, 9)


def test_star_args_are_refused_at_once() -> None:
    def function(*values):  # type: ignore[no-untyped-def]
        return values

    with pytest.raises(ConfigError, match=r"takes \*values, but inputs have names: use \*\*values"):
        binding_of(function, "f")


def test_annotations_are_honoured() -> None:
    def function(n: int, when: datetime, order: Order, point: Point, ids: set[int], free=None):  # type: ignore[no-untyped-def]
        return n, when, order, point, ids, free

    got = bind(function, {
        "n": "5", "when": "2026-01-02T03:04:05Z", "order": {"id": "7"}, "point": {"x": 1, "y": 2}, "ids": [1, 1, 2],
        "free": {"a": 1},
    })  # fmt: skip

    assert got == (5, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), Order(id=7), Point(1, 2), {1, 2}, {"a": 1})


def test_what_does_not_fit_an_annotation_is_named_without_its_value() -> None:
    def function(order: Order, n: int):  # type: ignore[no-untyped-def]
        return order, n

    message = refusal(function, {"order": {"id": "SECRET", "tags": [1]}, "n": 1})
    assert "order.id: Input should be a valid integer" in message
    assert "order.tags.0" in message
    assert "SECRET" not in message
    assert "n: Input should be a valid integer" in refusal(function, {"order": {"id": 1}, "n": "x"})


def test_the_annotation_of_inputs_is_for_all_of_them() -> None:
    def function(inputs: Order) -> Order:
        return inputs

    assert bind(function, {"id": 3}) == Order(id=3)


def test_an_annotation_that_json_cannot_become_is_refused_at_registration() -> None:
    class Strange: ...

    def function(a):  # type: ignore[no-untyped-def]
        return a

    function.__annotations__["a"] = Strange
    with pytest.raises(ConfigError, match=r"annotated with .*Strange"):
        binding_of(function, "f")


def test_an_annotation_that_cannot_be_resolved_is_refused_at_registration() -> None:
    def function(a: Nowhere):  # type: ignore[no-untyped-def, name-defined]  # noqa: F821
        return a

    with pytest.raises(ConfigError, match="'Nowhere' of f\\(a\\) cannot be resolved"):
        binding_of(function, "f")


def test_a_return_annotation_is_none_of_our_business() -> None:
    def function(a: int) -> Nowhere:  # type: ignore[name-defined]  # noqa: F821
        return a

    assert bind(function, {"a": 1}) == 1


def test_methods_partials_wrappers_and_callable_objects_are_functions_too() -> None:
    class Multiplier:
        factor = 3

        def times(self, n: int) -> int:
            return n * self.factor

        def __call__(self, n: int) -> int:
            return n * self.factor

    @functools.wraps(two)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return two(*args, **kwargs)

    assert bind(Multiplier().times, {"n": "2"}) == 6
    assert bind(Multiplier(), {"n": "2"}) == 6
    assert bind(functools.partial(two, b=9), {"a": 1}) == (1, 9)
    assert bind(wrapper, {"a": 1}) == (1, 1)


def test_a_function_without_a_signature_is_refused() -> None:
    with pytest.raises(ConfigError, match="no signature"):
        binding_of(max, "f")


def test_an_unannotated_binding_needs_no_conversion() -> None:
    binding = binding_of(two, "f")
    assert isinstance(binding, Binding)
    assert all(parameter.convert is None for parameter in binding.parameters)


def test_plain_annotations_do_not_import_pydantic() -> None:
    script = (
        "import sys\n"
        "from flowkit.worker.binding import binding_of\n"
        "def f(a: int, b: str, c: dict): return a\n"
        "binding_of(f, 'f').bind({'a': 1, 'b': 'x', 'c': {}}, object)\n"
        "import flowkit.worker.runtime\n"
        "print('pydantic' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
