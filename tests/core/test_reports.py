"""Reports: what travels from workers keeps its tags."""

from __future__ import annotations

import dataclasses
from typing import get_args

from flowkit.core import reports as r

FOR_EVER = {
    "started": "node attempt token",
    "succeeded": "node attempt token output next run_sec",
    "failed": "node attempt token error permanent retry_after run_sec",
    "declined": "node attempt token why",
    "released": "node attempt token why",
}


def test_tags_and_fields_are_for_ever() -> None:
    for tag, before in FOR_EVER.items():
        fields = dataclasses.fields(r.TAGS[tag])
        names = before.split()
        assert [field.name for field in fields][: len(names)] == names
        assert all(field.default is not dataclasses.MISSING for field in fields[len(names) :])


def test_what_a_worker_may_say_is_about_an_attempt() -> None:
    # One is the coordinator's own; the other is what the owner of a child task says.
    assert set(r.TAGS.values()) == set(get_args(r.AttemptReport)) - {r.Expired} | {r.ChildEnded}


def test_a_request_has_no_arguments_unless_it_says_so() -> None:
    one, other = r.Requested(1, "x", "pause"), r.Requested(2, "y", "pause")

    one.args["reason"] = "lunch"

    assert other.args == {}
