"""How references are found and split, and what fills a template's holes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.core.filling import follow, resolve, unescape
from flowkit.core.graph import MISSING, Reference
from flowkit.core.payload import Artifact
from flowkit.core.problems import Problems
from flowkit.core.template import TemplateReader, parse_param, parse_path, split_reference
from flowkit.core.values import MAX_DEPTH
from flowkit.errors import InputError
from tests.core.graphs import anything, plain, templates

OUTPUTS = {
    "list": {"files": ["a.csv", {"size": 3, "at": None}], "0": "zero"},
    "list.files": "dotted",
    "a.b.c": [{"d": 1}],
    "nothing": None,
    "skipped": MISSING,
}


def fill(template: Any, params: Any = None) -> Any:
    return resolve(template, params=params, output_of=OUTPUTS.__getitem__, known=OUTPUTS)


def read(template: Any, *known: str) -> Any:
    problems = Problems()
    found = TemplateReader(dict.fromkeys(known), problems).read(template, "inputs")
    problems.raise_any()
    return found


# Splitting.


@pytest.mark.parametrize(
    ("text", "known", "split"),
    [
        ("a", {"a"}, ("a", "")),
        ("a.b", {"a"}, ("a", ".b")),
        ("a.b", {"a", "a.b"}, ("a.b", "")),
        ("a.b.c[0].d", {"a", "a.b", "a.b.c"}, ("a.b.c", "[0].d")),
        ("a.b.c[0].d", {"a", "a.b.c[0]"}, ("a.b.c[0]", ".d")),
        ("ab", {"a"}, None),
        ("a", set(), None),
        ("", {"a"}, None),
        (".a", {""}, None),
        ("x" * 5000 + ".y", {"x"}, None),
    ],
)
def test_the_longest_known_id_wins(text: str, known: set[str], split: tuple[str, str] | None) -> None:
    assert split_reference(text, known) == split


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", ()),
        (".a", ("a",)),
        ("[0]", (0,)),
        (".a[10].b c.é", ("a", 10, "b c", "é")),
        ("[0][1]", (0, 1)),
        (".0", ("0",)),
        ("a", None),
        (".", None),
        ("..a", None),
        (".a.", None),
        ("[]", None),
        ("[-1]", None),
        ("[01]", None),
        ("[1", None),
        ("]", None),
        ("[" + "9" * 5000 + "]", None),
    ],
)
def test_a_path_is_fields_and_positions(text: str, path: tuple[str | int, ...] | None) -> None:
    assert parse_path(text) == path


def test_a_params_path_begins_with_a_name_and_nothing_means_all() -> None:
    assert parse_param("a.b[0]") == ("a", "b", 0)
    assert parse_param("") == ()
    assert parse_param("[0]") is None


# Reading.


def test_references_are_found_once_each_in_order() -> None:
    template = [
        {"$from": "b.x"},
        {"deep": [{"$from": "a"}]},
        {"$from": "b.x"},
        {"$from": "b[0]", "default": 7},
    ]

    assert read(template, "a", "b").references == (
        Reference("b", ("x",)),
        Reference("a", ()),
        Reference("b", (0,), has_default=True, default=7),
    )


@pytest.mark.parametrize("order", [1, -1])
def test_a_value_that_is_wanted_once_without_a_default_is_wanted(order: int) -> None:
    template = [{"$from": "a", "default": 1}, {"$from": "a"}][::order]

    assert read(template, "a").references == (Reference("a", ()),)


@pytest.mark.parametrize(
    ("template", "constant"),
    [
        (1, True),
        ({"a": [1, {"b": None}]}, True),
        ({"$gt": 5}, True),
        ({"$literal": {"$from": "nobody"}}, True),
        ([{"$param": "x"}], False),
        ([{"$from": "a"}], False),
    ],
)
def test_a_template_without_references_and_params_is_constant(template: Any, constant: bool) -> None:
    found = read(template, "a")

    assert found.constant is constant
    assert found.value == template


# Resolving.


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ({"$from": "list"}, OUTPUTS["list"]),
        ({"$from": "list.files"}, "dotted"),
        ({"$from": "list.0"}, "zero"),
        ({"$from": "a.b.c[0].d"}, 1),
        ({"$from": "nothing"}, None),
        ({"$from": "nothing", "default": 1}, None),
        ({"$from": "nothing.x", "default": 1}, 1),
        ({"$from": "skipped", "default": None}, None),
        ({"$from": "skipped.x", "default": {"y": 1}}, {"y": 1}),
        ({"$from": "a.b.c[7]", "default": 1}, 1),
        ({"$param": "p"}, {"q": [10, 20]}),
        ({"$param": "p.q[1]"}, 20),
        ({"$param": ""}, {"p": {"q": [10, 20]}}),
        ({"$param": "x", "default": []}, []),
        ({"$literal": {"$from": "list"}}, {"$from": "list"}),
        ({"$literal": {"$literal": 1}}, {"$literal": 1}),
        ({"a": [1, {"b": {"$from": "nothing"}}]}, {"a": [1, {"b": None}]}),
    ],
)
def test_holes_are_filled(template: Any, value: Any) -> None:
    assert fill(template, {"p": {"q": [10, 20]}}) == value


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ({"rows": {"$from": "skipped"}}, r"inputs\.rows\.\$from: 'skipped' has no output"),
        ([{"$from": "list.file"}], r"inputs\[0\]\.\$from: the output of 'list' has no 'file'.*mean 'files'"),
        ({"$from": "a.b.c.d"}, r"a list of 1; write \[0\]"),
        ({"$from": "a.b.c[1]"}, r"no 1; found a list of 1"),
        ({"$from": "a.b.c[0].e"}, r"no 'e' in \[0\]; found an object with 'd'"),
        ({"$from": "list[0]"}, "names and no positions"),
        ({"$from": "nothing.x"}, "found null"),
        ({"$from": "nobody"}, "'nobody' names no node's output"),
        ({"$param": "foldr"}, "no 'foldr'; found an object with 'folder'.*mean 'folder'"),
        ({"$param": "folder.x"}, "no 'x' in folder; found a string"),
        ({"$from": 1}, "no template that this release knows"),
    ],
)
def test_what_is_not_there_is_told_with_its_place(template: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as told:
        fill(template, {"folder": "in"})

    assert told.value.code == "bad_input"


def test_missing_params_are_told_when_there_are_none_at_all() -> None:
    with pytest.raises(InputError, match="the task's params have no 'x'; found an object with nothing in it"):
        fill({"$param": "x"}, None)


def test_the_place_begins_where_the_caller_says() -> None:
    with pytest.raises(InputError, match=r"^output\.rows\.\$from"):
        resolve({"rows": {"$from": "a"}}, params={}, output_of=lambda _: MISSING, known={"a"}, place="output")


def test_a_path_into_an_artifact_is_left_to_its_reader() -> None:
    artifact = Artifact("hash", 70_000, "json")

    assert follow(artifact, ()) is artifact
    assert follow({"x": artifact}, ("x", "rows", 0)) == Artifact("hash", 70_000, "json", ("rows", 0))


def test_a_template_without_holes_is_returned_as_it_is() -> None:
    constant = {"a": [1, {"b": {}}]}
    template = [constant, {"$param": "x"}]

    assert fill(constant) is constant
    assert unescape(constant) is constant
    assert fill(template, {"x": 1})[0] is constant


def test_a_constant_template_loses_its_escapes() -> None:
    assert unescape({"a": [{"$literal": {"$from": 1}}]}) == {"a": [{"$from": 1}]}


def test_a_template_nested_too_deep_is_refused() -> None:
    template: Any = []
    for _ in range(100_000):
        template = [template]

    with pytest.raises(InputError, match=f"more than {MAX_DEPTH} deep"):
        fill(template)


@given(plain)
def test_a_literal_is_what_it_says(value: Any) -> None:
    assert fill({"$literal": value}) == value
    assert unescape({"$literal": value}) == value


@given(templates(["list", "a.b.c", "skipped"]))
def test_an_accepted_template_gives_a_value_or_an_input_error(template: Any) -> None:
    found = read(template, *OUTPUTS)

    try:
        filled = fill(found.value, {"p": {"q": [1, 2]}})
    except InputError as error:
        assert any(not reference.has_default for reference in found.references), error
    else:
        assert not found.constant or filled == unescape(found.value)


@given(anything, anything, st.dictionaries(st.sampled_from(["a", "b", "c"]), anything))
def test_any_template_gives_a_value_or_an_input_error(template: Any, params: Any, outputs: Any) -> None:
    try:
        resolve(template, params=params, output_of=outputs.__getitem__, known=outputs)
    except InputError as error:
        str(error).encode()
