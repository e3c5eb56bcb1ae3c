"""Master keys: as they are written down, and what a ring of them opens."""

from __future__ import annotations

import base64

import pytest

from flowkit.errors import MasterKeyError, MasterKeyUnknown, SecretTampered
from flowkit.secrets.envelope import Place, new_key
from flowkit.secrets.master_keys import Ring, StaticKeys, fresh_line, key_line, read_ring
from tests.secrets.room import KEY_1, KEY_2, ring

PLACE = Place("acme", "KEY", 1)
B1, B2 = base64.b64encode(KEY_1).decode(), base64.b64encode(KEY_2).decode()


def test_keys_are_read_from_lines_or_from_one_line_with_commas() -> None:
    for text in (f"# a comment\n\nk2 {B2}\n  k1\t{B1}  # old\n", f"k2={B2},k1={B1}", f"k2={B2}, k1 = {B1},"):
        found = read_ring(text, "here")
        assert found.keys == {"k2": KEY_2, "k1": KEY_1}
        assert found.current == "k2"
    assert read_ring(key_line("k", KEY_1), "here").keys == {"k": KEY_1}
    assert read_ring(fresh_line(), "here").keys != read_ring(fresh_line(), "here").keys


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no master key"),
        ("# nothing", "holds no master key"),
        (f"k1={B1},k1={B2}", "two keys with the id 'k1'"),
        ("k1=####", "expected an id and 32 bytes"),
        ("k1=AAAA", "has 3 bytes; a master key has 32"),
        ("k1=*nothing*", "key 'k1' is not base64"),
        (f"k/1={B1}", "the id of a key is letters, digits"),
        (B1.rstrip("="), "entry 1: expected an id"),
    ],
)
def test_what_is_no_key_is_told_with_its_place_and_without_its_bytes(text: str, why: str) -> None:
    with pytest.raises(MasterKeyError, match=why) as caught:
        read_ring(text, "/etc/keys")
    assert "/etc/keys" in str(caught.value)
    assert not any(part in str(caught.value) for part in (B1[:16], B2[:16], "AAAA", "nothing*"))


async def test_each_key_of_the_ring_opens_and_the_first_wraps() -> None:
    key = new_key()
    old, both, new = ring("k1"), ring("k2", "k1"), ring("k2")
    wrapped = await old.wrap(key, PLACE, await old.current())
    assert await both.unwrap(wrapped, PLACE, "k1") == key
    assert await both.current() == "k2"
    with pytest.raises(
        MasterKeyUnknown, match=r"under the master key 'k1', which the ring does not have \(it has: k2\)"
    ):
        await new.unwrap(wrapped, PLACE, "k1")
    with pytest.raises(SecretTampered):
        await both.unwrap(wrapped, PLACE, "k2")


async def test_a_static_ring_says_how_a_key_is_added() -> None:
    with pytest.raises(MasterKeyError, match=r"put ID=BASE64 .* there as the first, keep the others"):
        await ring("k1").add_key()
    about = await StaticKeys(Ring({"a": KEY_1, "b": KEY_2}, "the variable X")).describe()
    assert about == {"kind": "static", "where": "the variable X", "current": "a", "ids": "a, b"}
