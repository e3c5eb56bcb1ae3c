"""How a flow and its versions may be named, and what is said of other names."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core.flow_refs import FlowRef, checked_flow_name, checked_tag, read_flow_ref
from flowkit.errors import FlowNameError


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("etl", FlowRef("etl")),
        ("etl@3", FlowRef("etl", version=3)),
        ("etl@123456789", FlowRef("etl", version=123_456_789)),
        ("etl@default", FlowRef("etl", tag="default")),
        ("etl@latest", FlowRef("etl", tag="latest")),
        ("a.b:c_d-1@v1.2", FlowRef("a.b:c_d-1", tag="v1.2")),
        ("7@7", FlowRef("7", version=7)),
        (128 * "n", FlowRef(128 * "n")),
    ],
)
def test_a_name_may_say_which_version(text: str, read: FlowRef) -> None:
    assert read_flow_ref(text) == read
    assert str(read) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'' is no name of a flow: write letters, digits and `_ - . :`, at most 128 characters"),
        ("my flow", "'my flow' is no name of a flow"),
        ("a/b@1", "'a/b' is no name of a flow"),
        ("..", "'..' is no name of a flow"),
        ("\u00fcber", "is no name of a flow"),
        ("a\n", "is no name of a flow"),
        (129 * "n", "is no name of a flow"),
        ("@1", "'' is no name of a flow"),
        ("etl@", "'' is no tag of a flow"),
        ("etl@a@b", "'a@b' is no tag of a flow"),
        ("etl@0", "'etl@0' names no version: versions count from 1, as in 'etl@1'"),
        ("etl@007", "names no version"),
        ("etl@1234567890", "names no version"),
        (None, "a flow is named by text, such as 'etl' or 'etl@3'; found null"),
        (3, "a flow is named by text"),
    ],
)
def test_another_name_is_refused_with_what_may_be_written(text: Any, said: str) -> None:
    with pytest.raises(FlowNameError) as caught:
        read_flow_ref(text)
    assert said in str(caught.value)
    assert caught.value.code == "E_FLOW_NAME"


def test_a_flow_is_put_under_its_name_alone() -> None:
    assert checked_flow_name("etl") == "etl"
    with pytest.raises(FlowNameError, match="'etl@3' names a version of a flow; name the flow: 'etl'"):
        checked_flow_name("etl@3")


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("latest", "'latest' is the newest version, always: choose another tag"),
        ("12", "the tag '12' would read as a version"),
        ("a b", "'a b' is no tag of a flow"),
        (1, "1 is no tag of a flow"),
    ],
)
def test_a_tag_is_no_version_and_not_latest(tag: Any, said: str) -> None:
    assert checked_tag("default") == "default"
    with pytest.raises(FlowNameError) as caught:
        checked_tag(tag)
    assert said in str(caught.value)
