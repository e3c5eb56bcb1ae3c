"""Coordinator functions: what they change, what they give, what they refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from flowkit.core.functions import FUNCTIONS, FunctionResult, run_function
from flowkit.core.payload import Artifact
from flowkit.core.vars import apply
from flowkit.errors import FunctionError

SECRET = "tR7xq2LmV9sKd04ZbWcE"


def call(name: str, args: dict[str, Any], *, vars: dict[str, Any] | None = None,
         outputs: Mapping[str, Any] | None = None, **more: Any) -> FunctionResult:  # fmt: skip
    return run_function(name, args, vars=vars or {}, output_of=lambda node: (outputs or {})[node], **more)


def after(name: str, args: dict[str, Any], vars: dict[str, Any]) -> dict[str, Any]:
    apply(vars, call(name, args, vars=vars).operations)
    return vars


def code_of(name: str, args: dict[str, Any], **more: Any) -> str:
    with pytest.raises(FunctionError) as caught:
        call(name, args, **more)
    return str(caught.value.code)


# vars.set and vars.merge


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("vars.set", {"a.b": 1, "c": {"d": [2]}}),
        ("vars.set", {"kv": {"a.b": 1, "c": {"d": [2]}}}),
        ("vars.set", {"kv": {"a": {"b": 1}}, "c.d": [2]}),
        ("vars.merge", {"data": {"a.b": 1, "c": {"d": [2]}}}),
        ("vars.merge", {"kv": {"a.b": 1, "c": {"d": [2]}}, "block_sensitive": True}),
    ],
)
def test_set_and_merge_take_dotted_and_nested_names(name: str, args: dict[str, Any]) -> None:
    result = call(name, args)

    assert sorted(result.operations) == [["set", ["a", "b"], 1], ["set", ["c", "d"], [2]]]
    assert result.output == {"ok": True, "touched": 2}


def test_a_merge_leaves_what_it_does_not_name() -> None:
    assert after("vars.merge", {"data": {"a": {"x": 1}}}, {"a": {"y": 2}}) == {"a": {"x": 1, "y": 2}}


def test_nothing_is_changed_by_the_call_itself() -> None:
    vars: dict[str, Any] = {"n": 1}

    call("vars.set", {"n": 2}, vars=vars)

    assert vars == {"n": 1}


@pytest.mark.parametrize(
    ("name", "args", "code"),
    [
        ("vars.set", {}, "bad_args"),
        ("vars.set", {"kv": 3}, "bad_args"),
        ("vars.set", {"kv": {"a": 1}, "a": 2}, "bad_args"),
        ("vars.set", {"a": 1, "block_sensitive": "yes"}, "bad_args"),
        ("vars.set", {"$a": 1}, "bad_path"),
        ("vars.set", {"n.x": 1}, "not_an_object"),
        ("vars.set", {"a": 1, "a.b": 2}, "conflicting_paths"),
        ("vars.set", {"a": "x" * 70_000}, "value_too_large"),
        ("vars.merge", {}, "bad_args"),
        ("vars.merge", {"data": {"a": 1}, "kv": {"b": 1}}, "bad_args"),
        ("vars.merge", {"data": [1]}, "bad_args"),
        ("vars.merge", {"date": {"a": 1}}, "bad_args"),
    ],
)
def test_what_cannot_be_set_is_refused(name: str, args: dict[str, Any], code: str) -> None:
    assert code_of(name, args, vars={"n": 3}) == code


def test_a_misspelt_argument_is_named_with_the_right_one() -> None:
    with pytest.raises(FunctionError, match=r"'date' is not one of the arguments.*did you mean 'data'"):
        call("vars.merge", {"date": {}})


# Secrets.


def test_secrets_are_counted_and_blocked_only_where_that_is_asked_for() -> None:
    args = {"token": SECRET, "list": ["fine", SECRET], "plain": "text"}

    assert call("vars.set", args).sensitive_hits == 2
    assert code_of("vars.set", args | {"block_sensitive": True}) == "sensitive_value"


def test_a_refused_secret_is_not_told() -> None:
    with pytest.raises(FunctionError) as caught:
        call("vars.set", {"a.token": SECRET, "block_sensitive": True})

    assert "'a.token'" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_detector_of_ones_own_decides_by_path_and_value() -> None:
    asked = []

    def detector(key_path: str, value: Any) -> bool:
        asked.append((key_path, value))
        return key_path == "db.password"

    args = {"db": {"password": "hunter2", "port": [1]}, "block_sensitive": True}

    assert code_of("vars.set", args, detector=detector) == "sensitive_value"
    assert asked == [("db.password", "hunter2"), ("db.port", [1]), ("db.port.0", 1)]


def test_a_detector_that_fails_blocks() -> None:
    assert code_of("vars.set", {"a": 1}, detector=lambda key, value: value["x"]) == "sensitive_detector"


# vars.incr


@pytest.mark.parametrize(
    ("vars", "by", "now"),
    [({}, 3, 3), ({"n": 1}, 3, 4), ({"n": 1.5}, -1, 0.5), ({"n": 1}, 0.5, 1.5), ({"n": 10**300}, 1, 10**300 + 1)],
)
def test_incr_adds_to_what_is_there(vars: dict[str, Any], by: Any, now: Any) -> None:
    assert call("vars.incr", {"key": "n", "by": by}, vars=vars).output == {"ok": True, "key": "n", "by": by}
    assert after("vars.incr", {"key": "n", "by": by}, vars) == {"n": now}


def test_incr_adds_one_if_nothing_is_said_and_makes_what_leads_to_it() -> None:
    assert after("vars.incr", {"key": "a.b"}, {}) == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({"key": "n", "by": "1"}, "bad_amount"),
        ({"key": "n", "by": True}, "bad_amount"),
        ({"key": "n", "by": float("inf")}, "bad_amount"),
        ({"key": "n", "by": float("nan")}, "bad_amount"),
        ({"key": "n", "by": 10**400}, "bad_amount"),
        ({"key": "big", "by": 1e308}, "bad_amount"),
        ({"key": "huge", "by": 2**1023 - 1}, "bad_amount"),
        ({"key": "text"}, "not_a_number"),
        ({"key": "yes"}, "not_a_number"),
        ({"key": "none"}, "not_a_number"),
        ({"key": "n.x"}, "not_an_object"),
        ({"by": 1}, "bad_path"),
        ({"key": "n", "amount": 1}, "bad_args"),
    ],
)
def test_incr_refuses_what_is_no_number(args: dict[str, Any], code: str) -> None:
    vars = {"n": 1, "big": 1.7e308, "huge": 2**1023 - 1, "text": "1", "yes": True, "none": None}

    assert code_of("vars.incr", args, vars=vars) == code


# vars.unset


def test_unset_removes_what_is_there_and_counts_what_was_named() -> None:
    vars: dict[str, Any] = {"a": {"b": 1, "c": 2}, "n": 3}

    result = call("vars.unset", {"keys": ["a.b", "a.c", "n.x", "z"]}, vars=vars)

    assert result.output == {"ok": True, "touched": 4}
    assert result.operations == [["unset", ["a", "b"]], ["unset", ["a", "c"]]]
    assert after("vars.unset", {"keys": ["a.b", "a.c"]}, vars) == {"n": 3}


def test_unset_takes_one_name_too() -> None:
    assert after("vars.unset", {"keys": "n"}, {"n": 3, "m": 4}) == {"m": 4}
    assert after("vars.unset", {"paths": ["n"], "keys": ["m"]}, {"n": 3, "m": 4}) == {}


@pytest.mark.parametrize(
    ("args", "code"),
    [({}, "bad_args"), ({"keys": []}, "bad_args"), ({"keys": [3]}, "bad_path"), ({"keys": ["a."]}, "bad_path"),
     ({"keys": [f"v{i}" for i in range(257)]}, "too_many_paths")],
)  # fmt: skip
def test_unset_refuses_what_names_nothing(args: dict[str, Any], code: str) -> None:
    assert code_of("vars.unset", args) == code


# merge.generic


def test_a_merge_of_outputs_joins_objects_and_keeps_the_rest_under_its_node() -> None:
    outputs = {"a": {"x": {"one": 1}, "y": 1}, "b": {"x": {"two": 2}, "y": {"z": 2}}, "c": [3]}

    result = call("merge.generic", {"from_nodes": ["a", "b", "c"], "target": {"node_id": "all"}}, outputs=outputs)

    assert result.operations == []
    assert result.output == {"ok": True, "meta": {"x": {"one": 1, "two": 2}, "y": {"z": 2}, "c": [3]}}
    assert outputs["a"] == {"x": {"one": 1}, "y": 1}


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({}, "bad_args"),
        ({"from_nodes": "a"}, "bad_args"),
        ({"from_nodes": [3]}, "bad_args"),
        ({"from_nodes": ["b"]}, "no_output"),
        ({"from_nodes": ["big"]}, "output_too_large"),
        ({"from_nodes": ["long"]}, "value_too_large"),
        ({"from_nodes": ["a"], "target": "m"}, "bad_args"),
        ({"from_nodes": ["a"], "target": {"node_id": "other"}}, "bad_target"),
    ],
)
def test_a_merge_refuses_what_it_cannot_read_or_give(args: dict[str, Any], code: str) -> None:
    outputs = {"a": 1, "big": {"rows": Artifact("ref", 1, "json")}, "long": ["x" * 600_000]}

    assert code_of("merge.generic", args, outputs=outputs, node="m") == code


# metrics.aggregate


@pytest.mark.parametrize(
    ("output", "mode", "stats"),
    [
        ({"metrics": {"rows": 3, "bytes": 1.5, "label": "x", "ok": True}}, "sum", {"rows": 3, "bytes": 1.5}),
        ([{"rows": 3}, {"rows": 4, "more": 1}], "sum", {"rows": 7, "more": 1}),
        ([{"metrics": {"rows": 3}}, {"rows": 5}], "mean", {"rows": 4}),
        ([], "mean", {}),
    ],
)
def test_metrics_are_added_up_or_averaged(output: Any, mode: str, stats: dict[str, Any]) -> None:
    result = call("metrics.aggregate", {"node_id": "a", "mode": mode}, outputs={"a": output})

    assert result.output == {"ok": True, "mode": mode, "stats": stats}
    assert result.operations == []


def test_metrics_are_added_up_if_nothing_is_said() -> None:
    assert call("metrics.aggregate", {"node_id": "a"}, outputs={"a": {"n": 1}}).output["mode"] == "sum"


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({"node_id": "a", "mode": "median"}, "bad_args"),
        ({"mode": "sum"}, "bad_args"),
        ({"node_id": "z"}, "no_output"),
        ({"node_id": "text"}, "not_metrics"),
        ({"node_id": "big"}, "bad_amount"),
    ],
)
def test_metrics_that_are_none_are_refused(args: dict[str, Any], code: str) -> None:
    outputs = {"a": {"n": 1}, "text": "rows: 3", "big": [{"n": 1.7e308}, {"n": 1.7e308}]}

    assert code_of("metrics.aggregate", args, outputs=outputs) == code


# All.


def test_noop_does_nothing_whatever_it_is_given() -> None:
    assert call("noop", {"anything": 1}) == FunctionResult([], {"ok": True})


def test_an_unknown_function_is_named_with_the_nearest() -> None:
    with pytest.raises(FunctionError, match=r"no coordinator function 'vars.sett' \(did you mean 'vars.set'\?\)"):
        call("vars.sett", {})
    assert code_of("vars.sett", {}) == "unknown_function"


def test_the_functions_are_those_of_the_older_documents() -> None:
    assert set(FUNCTIONS) == {
        "vars.set", "vars.merge", "vars.incr", "vars.unset", "merge.generic", "metrics.aggregate", "noop",
    }  # fmt: skip
