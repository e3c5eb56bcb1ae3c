"""Tokens and passes: whose they are, and that nothing else is one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.errors import ConfigError
from flowkit.services import passes
from flowkit.services.keys import Keys, Principal, read_lines, token_for

ID = "12345678-1234-5678-1234-567812345678"
KEY = "k" * 43


def test_a_file_is_made_once_and_says_whose_each_token_is(tmp_path: Path) -> None:
    path = tmp_path / "below" / "tokens"
    first, made = Keys.open(path, ("npu",))
    again, made_again = Keys.open(path, ("other",))

    assert (made, made_again) == (True, False)
    assert first.who(again.token_of("npu")) == Principal("npu", "default")
    assert first.who("") is None
    assert token_for(path, "npu") == first.token_of("npu")
    assert token_for(tmp_path / "none", "npu") == ""
    with pytest.raises(ConfigError, match="no token for 'other'"):
        token_for(path, "other")
    assert [one.name for one in tmp_path.joinpath("below").iterdir()] == ["tokens"]


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    Keys.open(path, ())
    path.chmod(0o640)

    with pytest.raises(ConfigError, match="chmod 600"):
        Keys.open(path, ())
    with pytest.raises(ConfigError, match="Not a directory"):
        Keys.open(path / "below", ())


def test_a_copy_of_one_line_is_for_whoever_has_it(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.touch(mode=0o600)
    path.write_text("# from the other machine\nsomebody default 0123456789abcdef\n")

    assert token_for(path, "npu") == "0123456789abcdef"


@pytest.mark.parametrize("text", ["operator default short", "operator 0123456789abcdef", "a b c d", ""])
def test_what_is_no_line_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.touch(mode=0o600)
    path.write_text(text)

    with pytest.raises(ConfigError, match=r"write NAME TENANT TOKEN|has no token"):
        read_lines(path)


def test_a_pass_says_which_run_and_which_secrets_until_when() -> None:
    text = passes.issue(KEY, ID.upper(), ["B", "A@2", "B"], node="greeter", for_sec=60)

    found = passes.read(KEY, text, time.time())

    assert found is not None
    assert (found.runner_id, found.node, found.secrets) == (ID, "greeter", ("A@2", "B"))
    assert passes.read(KEY, text, time.time() + 61) is None
    assert passes.read("another key", text, time.time()) is None
    for wrong in ("no-uuid", ""):
        with pytest.raises(ConfigError, match="runner_id is a UUID"):
            passes.issue(KEY, wrong)
    with pytest.raises(ConfigError, match="is no secret's name"):
        passes.issue(KEY, ID, ["no name"])


GENUINE = passes.issue(KEY, ID)


@given(st.text(max_size=200), st.integers(0, 400), st.characters())
def test_nothing_but_a_pass_is_one(text: str, place: int, sign: str) -> None:
    at = place % len(GENUINE)
    changed = GENUINE[:at] + sign + GENUINE[at + 1 :]

    assert passes.read(KEY, text, 0.0) is None
    assert changed == GENUINE or passes.read(KEY, changed, 0.0) is None
