"""Variables: names, values, limits, and the operations that change them."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core import vars as variables
from flowkit.errors import FunctionError


def changed(before: dict[str, Any], *operations: list[Any]) -> dict[str, Any]:
    variables.apply(before, operations)
    return before


def test_a_set_makes_the_objects_that_lead_to_it() -> None:
    assert changed({"a": {"x": 1}}, ["set", ["a", "b", "c"], [2]]) == {"a": {"x": 1, "b": {"c": [2]}}}


def test_a_set_replaces_what_was_there() -> None:
    assert changed({"a": {"x": 1}}, ["set", ["a"], 5]) == {"a": 5}


def test_what_was_recorded_does_not_change_with_the_variables() -> None:
    empty: list[Any] = ["set", ["a"], {}]

    assert changed({}, empty, ["set", ["a", "b"], 1]) == {"a": {"b": 1}}

    assert empty == ["set", ["a"], {}]


def test_an_unset_takes_along_the_objects_that_it_empties() -> None:
    assert changed({"a": {"b": {"c": 1}}, "d": {}}, ["unset", ["a", "b", "c"]]) == {"d": {}}
    assert changed({"a": {"b": {"c": 1}, "x": 0}}, ["unset", ["a", "b", "c"]]) == {"a": {"x": 0}}


@pytest.mark.parametrize("path", [["b"], ["a", "b"], ["a", "b", "c"], ["e", "f"]])
def test_an_unset_of_what_is_not_there_changes_nothing(path: list[str]) -> None:
    assert changed({"a": 1, "e": {}}, ["unset", path]) == {"a": 1, "e": {}}


def test_dotted_and_nested_names_mean_the_same() -> None:
    assert variables.flatten({"a.b": {"c": 1, "d": {}}}) == [(("a", "b", "c"), 1), (("a", "b", "d"), {})]


@pytest.mark.parametrize(
    "path", ["", "a..b", ".a", "a.", "$set", "a.$b", "a\0", "a." * 17 + "a", "a" * 129, "ab." * 171 + "a", 3, None]
)
def test_a_name_that_cannot_be_one_is_refused(path: object) -> None:
    with pytest.raises(FunctionError, match="cannot name a variable") as caught:
        variables.parse_path(path)
    assert caught.value.code == "bad_path"


def test_names_may_reach_the_limits() -> None:
    assert len(variables.parse_path(".".join(["a"] * 17))) == 17
    assert variables.parse_path("a" * 128) == ("a" * 128,)
    assert len(".".join(variables.parse_path(".".join(["a" * 127] * 3 + ["a" * 128])))) == 512


def test_a_key_inside_an_object_has_no_dots() -> None:
    with pytest.raises(FunctionError, match="nest objects instead"):
        variables.flatten({"a": {"b.c": 1}})


def test_objects_are_not_nested_deeper_than_names_may_be() -> None:
    deep: Any = 1
    for _ in range(18):
        deep = {"a": deep}

    with pytest.raises(FunctionError, match="at most 16 dots"):
        variables.flatten(deep)


def test_a_function_names_at_most_256_variables() -> None:
    assert len(variables.flatten({f"v{i}": i for i in range(256)})) == 256

    with pytest.raises(FunctionError, match="at most 256 variables") as caught:
        variables.flatten({"v": {f"v{i}": i for i in range(257)}})
    assert caught.value.code == "too_many_paths"


def test_a_value_has_at_most_64_KiB_as_JSON() -> None:
    assert variables.flatten({"v": "é" * (32 * 1024 - 1)})

    with pytest.raises(FunctionError, match="'v' would have 65,537 bytes") as caught:
        variables.flatten({"v": "x" * (64 * 1024 - 1)})
    assert caught.value.code == "value_too_large"


def test_all_values_of_one_function_fit_into_a_commit() -> None:
    with pytest.raises(FunctionError, match="at most 524,288 bytes"):
        variables.flatten({f"v{i}": "x" * 60_000 for i in range(9)})


@pytest.mark.parametrize("values", [{"a": 1, "a.b": 2}, {"a.b": {"c": 1}, "a": {"b": 2}}, {"a.b": 1, "a": {"b": 1}}])
def test_a_variable_and_one_inside_it_are_not_set_at_once(values: dict[str, Any]) -> None:
    with pytest.raises(FunctionError, match="cannot both be set") as caught:
        variables.flatten(values)
    assert caught.value.code == "conflicting_paths"


def test_reading_tells_what_is_not_there_from_null() -> None:
    assert variables.read({"a": {"b": None}}, ("a", "b")) == (True, None)
    assert variables.read({"a": {}}, ("a", "b")) == (False, None)


def test_a_path_through_a_number_cannot_be_reached() -> None:
    with pytest.raises(FunctionError, match=r"'a\.b\.c' cannot be reached: 'a\.b' is 3") as caught:
        variables.read({"a": {"b": 3}}, ("a", "b", "c"))
    assert caught.value.code == "not_an_object"
