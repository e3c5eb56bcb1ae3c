"""The forms in which a secret may stand in a text."""

from __future__ import annotations

import ast
import base64
import html
import json
import re
import subprocess
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.core.variants import SHORTEST, variants_of

AWKWARD = "pa/ss \"w'ord\\+\u00fc\n\U0001f600=&<%"
LONG = "".join(chr(33 + (i * 7) % 90) for i in range(300))
VALUES = ["hunter2-hunter2", AWKWARD, LONG, AWKWARD * 20]


def found_in(value: str, text: str | bytes) -> bool:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return any(form in data for form in variants_of(value))


def in_small_hex(quoted: str) -> str:
    return re.sub("%..", lambda found: found[0].lower(), quoted)


@pytest.mark.parametrize("value", VALUES)
def test_each_way_of_writing_a_value_is_known(value: str) -> None:
    data = value.encode()
    written = [
        value, json.dumps(value), json.dumps(value, ensure_ascii=False), json.dumps(value).replace("/", "\\/"),
        json.dumps({"log": json.dumps({"key": value})}), repr(value), ascii(value), repr(data), repr([value, 'it"s']),
        quote(value), quote(value, safe=""), quote_plus(value), in_small_hex(quote(value, safe="!'()*")),
        data.hex(), data.hex().upper(), html.escape(value), html.escape(value, quote=False),
        "".join(f"%{byte:02x}" for byte in data),
    ]  # fmt: skip
    assert [text for text in written if not found_in(value, f"before {text} after")] == []


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("before", [b"", b"u", b"us", b"user:", b"user::"])
def test_base64_is_known_at_each_alignment_in_both_alphabets(value: str, before: bytes) -> None:
    whole = before + value.encode() + b"#tail"
    assert found_in(value, base64.b64encode(whole))
    assert found_in(value, base64.urlsafe_b64encode(whole))
    assert found_in(value, base64.b64encode(value.encode()))
    assert found_in(value, base64.encodebytes(value.encode()))  # lines of 76 characters


def test_the_systems_own_base64_is_known() -> None:
    done = subprocess.run(["base64"], input=LONG.encode(), capture_output=True, check=True)
    assert found_in(LONG, done.stdout)


def test_lines_are_looked_for_one_by_one_and_short_ones_are_not() -> None:
    value = "-----BEGIN-----\r\nMIIEvQIBADANBg\r\nab\r\n"
    assert found_in(value, "x MIIEvQIBADANBg y")
    assert found_in(value, b"MIIEvQIBADANBg".hex())
    assert not any(form in (b"ab", b"ab\r\n") for form in variants_of(value))
    assert min(map(len, variants_of(value))) >= SHORTEST


def test_a_value_is_known_without_the_space_around_it() -> None:
    assert found_in("  hunter2-hunter2\n", "hunter2-hunter2")


@pytest.mark.parametrize("value", ["", "a", "1234567"])
def test_a_short_value_is_not_looked_for(value: str) -> None:
    assert variants_of(value) == set()


@given(st.text(min_size=SHORTEST, max_size=120))
def test_no_form_is_too_short_or_too_long(value: str) -> None:
    lengths = {len(form) for form in variants_of(value)}
    assert all(SHORTEST <= length <= 2000 for length in lengths)


@given(st.text(min_size=SHORTEST, max_size=60))
def test_what_python_writes_is_known(value: str) -> None:
    for text in (repr(value), ascii(value), repr(value.encode("utf-8", "surrogatepass"))):
        assert ast.literal_eval(text) in (value, value.encode("utf-8", "surrogatepass"))
        assert found_in(value, text)
