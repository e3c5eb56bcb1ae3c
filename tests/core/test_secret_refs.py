"""What a secret may be called, and who may use it."""

from __future__ import annotations

import pytest

from flowkit.core.secret_refs import (
    Allowed,
    SecretRef,
    checked_allowed,
    checked_secret_name,
    read_allowed,
    read_secret_ref,
)
from flowkit.errors import SecretNameError


@pytest.mark.parametrize("name", ["KEY", "db.password", "_x", "9lives", "a-b", "A" * 128])
def test_a_name_is_letters_digits_and_a_few_signs(name: str) -> None:
    assert checked_secret_name(name) == name
    assert read_secret_ref(name) == SecretRef(name)
    assert read_secret_ref(f"{name}@12") == SecretRef(name, 12)
    assert str(SecretRef(name, 12)) == f"{name}@12"


@pytest.mark.parametrize("name", ["", " ", "a b", "a/b", "-a", ".a", "a\n", "\u00fc", "A" * 129, "a$b", 5, None])
def test_another_name_is_refused_with_the_rule(name: object) -> None:
    with pytest.raises(SecretNameError, match=r"letters, digits and `_ - .`, at most 128|named by text"):
        checked_secret_name(name) if not isinstance(name, str) else read_secret_ref(name)


@pytest.mark.parametrize("text", ["KEY@", "KEY@0", "KEY@x", "KEY@-1", "KEY@1@2", "KEY@01"])
def test_another_version_is_refused(text: str) -> None:
    with pytest.raises(SecretNameError, match="versions count from 1"):
        read_secret_ref(text)


def test_a_name_with_a_version_is_no_name_for_a_new_secret() -> None:
    with pytest.raises(SecretNameError, match="name the secret: 'KEY'"):
        checked_secret_name("KEY@3")


def test_flows_and_nodes_are_allowed_by_name_or_pattern() -> None:
    anybody = Allowed()
    assert anybody.why_not("", "n") is None
    some = checked_allowed(["etl", "ops-*"], ["load", "l?st"])
    assert some.why_not("etl", "load") is None
    assert some.why_not("ops-nightly", "last") is None
    assert some.why_not("etl2", "load") == "flow 'etl2' may not use it, only: etl, ops-*"
    assert some.why_not("", "load") == "a task of no flow may not use it, only: etl, ops-*"
    assert some.why_not("etl", "loads") == "node 'loads' may not use it, only: load, l?st"
    assert checked_allowed(["*"], []).why_not("", "n") is None


def test_who_may_use_it_is_kept_as_text_and_read_again() -> None:
    some = checked_allowed("etl", ["b", "a", "b"])
    assert some == Allowed(("etl",), ("b", "a"))
    assert read_allowed(some.text()) == some
    assert read_allowed(Allowed().text()) == Allowed()


@pytest.mark.parametrize("pattern", ["", "a b", "[a-z]", "a/b", "x" * 129])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(SecretNameError, match="no pattern for the name of a flow"):
        checked_allowed([pattern], [])


def test_there_is_a_bound_to_patterns() -> None:
    with pytest.raises(SecretNameError, match="101 patterns of nodes, at most 100"):
        checked_allowed([], [f"n{n}" for n in range(101)])
