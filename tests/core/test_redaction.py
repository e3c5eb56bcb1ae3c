"""Secrets are covered in whatever they are written, however it is cut, and nothing else is."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.core.redaction import MARK, Redactor
from flowkit.core.variants import SHORTEST, variants_of

SECRET = "s3cr3t/Value+\u00fc-42"
MULTI = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----\n"

WRITE: dict[str, Callable[[str], str]] = {
    "raw": str,
    "base64": lambda value: base64.b64encode(value.encode()).decode(),
    "base64 after one byte": lambda value: base64.b64encode(b"x" + value.encode() + b"y").decode(),
    "base64 after two bytes": lambda value: base64.b64encode(b"xx" + value.encode() + b"yy").decode(),
    "urlsafe": lambda value: base64.urlsafe_b64encode(value.encode()).decode(),
    "hex": lambda value: value.encode().hex(),
    "HEX": lambda value: value.encode().hex().upper(),
    "url": lambda value: quote(value, safe=""),
    "json": json.dumps,
    "repr": repr,
}
values = st.text(min_size=SHORTEST, max_size=150)
# Of few characters, so that beginnings of secrets are met all the time.
tight_values = st.text(alphabet="ab", min_size=SHORTEST, max_size=14)


def chunked(redactor: Redactor, data: bytes, cuts: list[int]) -> bytes:
    stream, given_, at = redactor.stream(), [], 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        given_.append(stream.feed(data[at:cut]))
        at = cut
    return b"".join([*given_, stream.flush()])


@pytest.mark.parametrize("how", WRITE)
def test_each_form_is_covered(how: str) -> None:
    text = f"token={WRITE[how](SECRET)}; next"
    said = Redactor([SECRET]).text(text)
    assert MARK in said
    assert not any(form.decode("utf-8", "replace") in said for form in variants_of(SECRET))
    assert said.startswith("token=")
    assert said.endswith("; next")


def test_a_value_by_itself_in_base64_leaves_nothing() -> None:
    for length in range(SHORTEST, 130):
        value = "".join(chr(40 + i % 80) for i in range(length))
        encoded = base64.b64encode(value.encode()).decode()
        assert Redactor([value]).text(f"<{encoded}>") == f"<{MARK}>"


@pytest.mark.parametrize("alignment", [0, 1, 2])
def test_of_a_value_within_base64_only_what_it_shares_with_its_neighbours_is_left(alignment: int) -> None:
    for length in (*range(SHORTEST, 100, 9), *range(100, 400, 37)):
        value = "".join(chr(33 + (i * 31 + i // 90) % 90) for i in range(length))
        encoded = base64.b64encode(b"x" * alignment + value.encode() + b"zzz").decode()
        said = Redactor([value]).text(encoded)
        assert said.count(MARK) == 1
        # At each side as many characters as the neighbours' bytes take, and one that has bits of both.
        assert len(said) - len(MARK) <= -(-8 * alignment // 6) + 4 + 1 + 2, (length, said)


def test_each_line_of_a_secret_is_covered() -> None:
    redactor = Redactor([MULTI])
    assert redactor.text("got MIIEvQIBADANBgkq!") == f"got {MARK}!"
    assert redactor.text("got " + b"hkiG9w0BAQEFAASC".hex()) == f"got {MARK}"
    assert redactor.text(f"<{MULTI}>") == f"<{MARK}>"


def test_a_long_secret_leaves_one_mark_and_a_part_of_it_is_covered_too() -> None:
    value = "".join(chr(33 + (i * 31 + i // 90) % 90) for i in range(5000))
    redactor = Redactor([value])
    assert redactor.text(f"<{value}>") == f"<{MARK}>"
    assert value[1000:1100] not in (said := redactor.text(f"<{value[1000:1200]}>"))
    assert MARK in said


def test_the_longer_of_two_that_begin_alike_is_covered_whole() -> None:
    redactor = Redactor(["password", "password-and-more"])
    assert redactor.text("a password-and-more b") == f"a {MARK} b"
    assert redactor.text("a password-and-mor b") == f"a {MARK}-and-mor b"


def test_nothing_short_is_covered() -> None:
    redactor = Redactor(["1", "1234567", ""])
    assert redactor.text("1 12 1234567") == "1 12 1234567"
    assert redactor.value({"a": [1234567, "1234567"]}) == {"a": [1234567, "1234567"]}


def test_lines_go_on_at_once_unless_they_end_as_a_secret_begins() -> None:
    stream = Redactor([SECRET]).text_stream()
    assert stream.feed("a line\n") == "a line\n"
    assert stream.feed("another s3cr3t") == "another "
    assert stream.feed("ive\n") == "s3cr3tive\n"
    assert stream.feed(f"and {SECRET}") == f"and {MARK}"
    assert stream.feed("\n") == "\n"
    assert stream.feed("s3c") == ""
    assert stream.flush() == "s3c"


@given(values, st.text(), st.text(), st.sampled_from(sorted(WRITE)), st.lists(st.integers(0, 2000), max_size=8))
def test_however_it_is_cut_no_form_survives(value: str, before: str, after: str, how: str, cuts: list[int]) -> None:
    text = f"{before}{WRITE[how](value)}{after}" if how not in ("base64", "url", "hex") else WRITE[how](value)
    redactor = Redactor([value])
    data = text.encode("utf-8", "surrogatepass")
    said = chunked(redactor, data, cuts)
    assert MARK.encode() in said
    assert not any(form in said for form in variants_of(value) if form not in MARK.encode())
    assert said == redactor.data(data)


@given(
    st.lists(tight_values, min_size=1, max_size=3),
    st.text(alphabet="ab\n", max_size=200),
    st.lists(st.integers(0, 300)),
)
def test_cuts_change_nothing_where_secrets_overlap(secrets: list[str], text: str, cuts: list[int]) -> None:
    redactor = Redactor(secrets)
    said = chunked(redactor, text.encode(), cuts)
    assert said == redactor.data(text.encode())
    assert not any(form in said for secret in secrets for form in variants_of(secret))
    covered = any(form in text.encode() for secret in secrets for form in variants_of(secret))
    assert (MARK.encode() in said) == covered


@given(st.lists(values, max_size=3), st.text(max_size=400), st.lists(st.integers(0, 500), max_size=6))
def test_a_text_without_a_secret_is_not_changed(secrets: list[str], text: str, cuts: list[int]) -> None:
    data = text.encode("utf-8", "surrogatepass")
    redactor = Redactor(secrets)
    if any(form in data for secret in secrets for form in variants_of(secret)):
        return
    assert redactor.text(text) is text
    assert redactor.data(data) is data
    assert chunked(redactor, data, cuts) == data


def test_a_text_is_plain_text_again_wherever_it_is_cut() -> None:
    text = "\u00fc\U0001f600 s3cr3t \ud800 \u00fc" * 5 + SECRET
    stream = Redactor([SECRET]).text_stream()
    said = "".join([*(stream.feed(char) for char in text), stream.flush()])
    assert said == "\u00fc\U0001f600 s3cr3t \ud800 \u00fc" * 5 + MARK


class TestValues:
    def test_texts_keys_and_numbers_are_covered_whole_and_in_part(self) -> None:
        redactor = Redactor([SECRET, "12345678"])
        value = {
            "whole": SECRET, "part": [f"Bearer {SECRET}", 1], SECRET: {"deep": (SECRET, None, True)},
            "number": 12345678, "longer": 9123456780, "ratio": 0.12345678, "bytes": SECRET.encode(), "fine": "text",
        }  # fmt: skip
        assert redactor.value(value) == {
            "whole": MARK, "part": [f"Bearer {MARK}", 1], MARK: {"deep": (MARK, None, True)},
            "number": MARK, "longer": MARK, "ratio": MARK, "bytes": MARK.encode(), "fine": "text",
        }  # fmt: skip

    def test_what_holds_no_secret_is_the_same_object(self) -> None:
        value: Any = {"a": [1, 2.5, None, True, {"b": "text"}], "c": b"bytes"}
        assert Redactor([SECRET]).value(value) is value
        assert Redactor([]).value(value) is value

    def test_no_entry_is_lost_where_keys_become_the_same(self) -> None:
        redactor = Redactor(["secret-one", "secret-two"])
        assert redactor.value({"secret-one": 1, "secret-two": 2, f"{MARK}#2": 3}) == {
            MARK: 1, f"{MARK}#3": 2, f"{MARK}#2": 3,
        }  # fmt: skip


def test_the_time_is_linear_in_the_text_even_where_it_is_made_to_hurt() -> None:
    """Nearly-matches everywhere: a quadratic search would take minutes for the larger."""
    redactor = Redactor(["a" * 4000 + "b", "ab" * 40 + "c"])

    def seconds(text: bytes) -> float:
        started = time.process_time()
        chunked(redactor, text, list(range(0, len(text), 4096)))
        return time.process_time() - started

    small, large = (
        min(seconds(unit * count) for _ in range(3)) for unit, count in ((b"ab" * 20, 500), (b"ab" * 20, 4000))
    )
    assert large < small * 8 * 4 + 0.5
