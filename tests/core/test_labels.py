"""Labels: what fits, and how it is said that nothing does."""

from __future__ import annotations

import pytest

from flowkit.core.labels import Wanted, fits, in_words, lacking, score, wanted

ASKED = wanted({"zone": "eu", "gpu": ["h100", "a100"]})


def test_what_is_written_has_one_form() -> None:
    assert ASKED == (("gpu", ("a100", "h100")), ("zone", ("eu",)))
    assert wanted({"gpu": ["a100", "h100", "a100"], "zone": ["eu"]}) == ASKED
    assert wanted({}) == ()


@pytest.mark.parametrize(
    ("labels", "fit", "points"),
    [
        ({"zone": "eu", "gpu": "h100", "disk": "ssd"}, True, 2),
        ({"zone": "eu", "gpu": "t4"}, False, 1),
        ({"zone": "eu"}, False, 1),
        ({}, False, 0),
    ],
)
def test_every_label_must_be_there_with_one_of_its_values(labels: dict[str, str], fit: bool, points: int) -> None:
    assert fits(ASKED, labels) is fit
    assert score(ASKED, labels) == points


def test_nothing_asked_for_is_met_by_anybody() -> None:
    assert fits((), {})


def test_labels_are_put_into_words() -> None:
    assert in_words(ASKED) == "gpu=a100 or h100, zone=eu"


@pytest.mark.parametrize(
    ("asked", "workers", "says"),
    [
        (ASKED, {}, ""),
        (ASKED, {"w1": {"zone": "eu", "gpu": "a100"}, "w2": {}}, ""),
        ((), {"w1": {}}, ""),
        (ASKED, {"w1": {"zone": "us"}, "w2": {"zone": "eu"}}, "the nearest, 'w2', has no label 'gpu'"),
        (
            ASKED,
            {"w1": {"zone": "eu", "gpu": "a10"}},
            "the nearest, 'w1', has gpu=a10 (did you mean 'a10'?)",
        ),
        (
            wanted({"zonee": "eu"}),
            {"w1": {"zone": "eu"}},
            "the nearest, 'w1', has no label 'zonee' (did you mean 'zone'?)",
        ),
        (
            wanted({"gpu": "a100", "zone": "eu"}),
            {"w1": {}, "w2": {"disk": "ssd"}},
            "the nearest, 'w1', has no label 'gpu', and has no label 'zone'",
        ),
        (
            wanted({"zone": "eu-west"}),
            {"w1": {"zone": "us-west"}, "w2": {"zone": "eu-wst"}},
            "the nearest, 'w1', has zone=us-west (did you mean 'eu-wst'?)",
        ),
    ],
)
def test_it_is_said_what_the_nearest_worker_lacks(asked: Wanted, workers: dict[str, dict[str, str]], says: str) -> None:
    assert lacking(asked, workers) == says
