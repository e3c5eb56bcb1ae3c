"""The forms in which a canary is looked for, worked out apart from the product's own list of them."""

from __future__ import annotations

import base64
import html
import json
import os
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

SHORTEST = 8


def forms_of(value: str) -> dict[str, set[bytes]]:
    """By the name of an encoding, the bytes that tell of the value: of one with several lines, of any of them."""
    found: dict[str, set[bytes]] = {}
    for line in value.splitlines():
        for name, form in _forms(line):
            if len(form) >= SHORTEST:
                found.setdefault(name, set()).add(form)
    return found


def _forms(text: str) -> Iterator[tuple[str, bytes]]:
    data = text.encode()
    yield "raw", data
    yield "hex", data.hex().encode()
    yield "hex", data.hex().upper().encode()
    for alignment in range(3):
        inner = _base64_inner(data, alignment)
        yield f"base64+{alignment}", inner
        yield f"base64+{alignment}", inner.translate(bytes.maketrans(b"+/", b"-_"))
    for quoted in (quote(text), quote(text, safe=""), quote_plus(text), "".join(f"%{byte:02x}" for byte in data)):
        yield "url", quoted.encode()
        yield "url", _lower_escapes(quoted).encode()
    yield "url", "".join(f"%{byte:02X}" for byte in data).encode()
    for once in (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]):
        yield "json", once.encode()
        yield "json", json.dumps(once)[1:-1].encode()
    yield "python", repr(text)[1:-1].encode()
    yield "html", html.escape(text).encode()


def _base64_inner(data: bytes, alignment: int) -> bytes:
    """What stands in the base64 of any text that holds the data so far from a multiple of three."""
    texts = [base64.b64encode(os.urandom(alignment) + data + os.urandom(8)) for _ in range(8)]
    same = [position for position, signs in enumerate(zip(*texts, strict=True)) if len(set(signs)) == 1]
    # By chance a sign beside the value may be the same in all; the value's own are the ones that follow one another.
    first, last = -(-8 * alignment // 6), 8 * (alignment + len(data)) // 6
    assert set(range(first, last)) <= set(same)
    return texts[0][first:last]


def _lower_escapes(quoted: str) -> str:
    head, *rest = quoted.split("%")
    return "%".join([head, *(part[:2].lower() + part[2:] for part in rest)])


class Needles:
    """Looks for all forms of some canaries at once. What it finds is a name: which canary, in which encoding."""

    def __init__(self, canaries: dict[str, str]) -> None:
        self._needles = [
            (name, encoding, form)
            for name, value in canaries.items()
            for encoding, forms in forms_of(value).items()
            for form in forms
        ]
        self.longest = max(len(form) for _, _, form in self._needles)

    def __len__(self) -> int:
        return len(self._needles)

    def found_in(self, data: bytes) -> set[tuple[str, str]]:
        return {(name, encoding) for name, encoding, form in self._needles if form in data}
