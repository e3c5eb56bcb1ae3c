"""Outputs as the engine carries them."""

from __future__ import annotations

from flowkit.core.payload import Artifact, Payload, holds_artifacts, lift_artifacts

BIG = Artifact("ref", 9, "json")


def test_a_payload_gives_its_value_or_its_artifact() -> None:
    assert Payload([1]).get() == [1]
    assert Payload(None, BIG).get() is BIG
    assert Payload().get() is None


def test_a_path_into_an_artifact_grows() -> None:
    assert BIG.at(("rows",)).at((0, "id")) == Artifact("ref", 9, "json", ("rows", 0, "id"))


def test_artifacts_are_lifted_out_with_their_places() -> None:
    value = {"a": [1, BIG, {"b": BIG.at(("x",))}], "c": 2}

    lifted, found = lift_artifacts(value)

    assert lifted == {"a": [1, None, {"b": None}], "c": 2}
    assert found == [(("a", 1), BIG), (("a", 2, "b"), BIG.at(("x",)))]
    assert value["a"][1] is BIG  # type: ignore[index]


def test_an_artifact_alone_is_lifted_from_the_root() -> None:
    assert lift_artifacts(BIG) == (None, [((), BIG)])


def test_values_without_artifacts_are_shared_not_copied() -> None:
    value = {"a": [1, {"b": 2}], "c": {"d": BIG}}

    lifted, _ = lift_artifacts(value)

    assert lifted["a"] is value["a"]
    assert lift_artifacts(value["a"]) == (value["a"], [])


def test_deep_values_are_searched_without_recursion() -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]

    assert not holds_artifacts(deep)
    assert lift_artifacts(deep)[0] is deep


def test_holding_is_seen_anywhere() -> None:
    assert holds_artifacts(BIG)
    assert holds_artifacts([{"a": [BIG]}])
    assert not holds_artifacts({"a": [None, "ref"]})
