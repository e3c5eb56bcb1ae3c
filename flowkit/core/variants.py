"""How a secret may look in what a program says: as it is, and in the encodings in which programs usually say things."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

SHORTEST: Final = 8
"""A value of fewer characters is not looked for: every text is full of short words, and all would be hidden."""

WHOLE: Final = 96
"""Up to so many characters (or bytes) a value is looked for as one; a longer one in pieces, which overlap."""
PIECE: Final = 48
STEP: Final = 45  # of bytes, a multiple of three: so each piece of a base64 text is that of a piece of the value
WRAPPED: Final = (57, 48)
"""The bytes in a line of base64 text: 76 characters (MIME, the command `base64`), 64 characters (PEM)."""

QUOTES: Final = (("", ""), ("'", "\\'"), ('"', '\\"'))


def variants_of(value: str) -> set[bytes]:
    """The byte strings of which at least one is in every text that holds the value, or one of its lines, in one of
    these forms: UTF-8, base64 (standard and URL-safe, at each of the three alignments), hex, URL-quoted, JSON, Python's
    `repr`, HTML. Each is `SHORTEST` bytes or longer; none for a value that is shorter. Where the value is found, what
    is found of it covers it, but for the characters of base64 that it shares with its neighbours."""
    found: set[bytes] = set()
    for text in _texts_of(value):
        for piece in _pieces(text):
            found.update(form.encode("utf-8", "surrogatepass") for form in _texts_for(piece))
        data = text.encode("utf-8", "surrogatepass")
        for part in _pieces_of_bytes(data):
            found.update(_digits(part))
        found.update(_base64_ends(data))
    return {form for form in found if len(form) >= SHORTEST}


def _texts_of(value: str) -> Iterator[str]:
    """The value, and each of its lines, with and without the space around it."""
    seen = {value, value.strip(), *value.splitlines(), *map(str.strip, value.splitlines())}
    return (text for text in seen if len(text) >= SHORTEST)


def _pieces(text: str) -> Iterator[str]:
    if len(text) <= WHOLE:
        yield text
        return
    yield from (text[start : start + PIECE] for start in range(0, len(text) - PIECE, STEP))
    yield text[-PIECE:]


def _pieces_of_bytes(data: bytes) -> Iterator[bytes]:
    if len(data) <= WHOLE:
        yield data
        return
    yield from (data[start : start + PIECE] for start in range(0, len(data) - PIECE, STEP))
    yield data[-PIECE:]


# ---------------------------------------------------------------------------------------------- character by character


def _texts_for(piece: str) -> Iterator[str]:
    yield piece
    yield from _as_json(piece)
    yield from _as_python(piece)
    yield from _as_url(piece)
    yield html.escape(piece, quote=False)
    yield html.escape(piece)


def _as_json(piece: str) -> Iterator[str]:
    for ascii_only in (True, False):
        once = json.dumps(piece, ensure_ascii=ascii_only)[1:-1]
        yield once
        yield once.replace("/", "\\/")
        # JSON in a string of JSON: a log line of a log line.
        yield json.dumps(once, ensure_ascii=ascii_only)[1:-1]


def _as_python(piece: str) -> Iterator[str]:
    # Which quotes are escaped depends on the text around the piece, so all ways are tried.
    bytes_like = "".join(map(_byte_in_python, piece.encode("utf-8", "surrogatepass")))
    for form in (_in_python(piece, keep=str.isprintable), _in_python(piece, keep=_is_plain), bytes_like):
        yield from (form.replace(quote_, escaped) if quote_ else form for quote_, escaped in QUOTES)


def _in_python(piece: str, keep: Callable[[str], bool]) -> str:
    return "".join(char if keep(char) and char != "\\" else char.encode("unicode_escape").decode() for char in piece)


def _is_plain(char: str) -> bool:
    return " " <= char <= "~"


def _byte_in_python(byte: int) -> str:
    char = chr(byte)
    return char if _is_plain(char) and char != "\\" else repr(bytes([byte]))[2:-1]


def _as_url(piece: str) -> Iterator[str]:
    data = piece.encode("utf-8", "surrogatepass")
    # Nothing kept, as Python keeps it, as JavaScript's encodeURIComponent and encodeURI do.
    for safe in ("", "/", "!'()*", ";/?:@&=+$,#!'()*"):
        yield from _both_cases(quote(data, safe=safe), piece)
    yield from _both_cases(quote_plus(data), piece)
    yield from ("".join(f"%{byte:02X}" for byte in data), "".join(f"%{byte:02x}" for byte in data))


def _both_cases(quoted: str, piece: str) -> Iterator[str]:
    yield quoted
    if quoted != piece:
        head, *rest = quoted.split("%")
        yield "%".join([head, *(part[:2].lower() + part[2:] for part in rest)])


# ---------------------------------------------------------------------------------------------- byte by byte


def _digits(part: bytes) -> Iterator[bytes]:
    text = part.hex()
    yield text.encode()
    yield text.upper().encode()
    for alignment in range(3):
        # The characters that hold nothing but bits of the part, wherever it stands in what was encoded.
        padded = base64.b64encode(bytes(alignment) + part)
        first, last = -(-8 * alignment // 6), 8 * (alignment + len(part)) // 6
        yield from _both_alphabets(padded[first:last])


def _base64_ends(data: bytes) -> Iterator[bytes]:
    """What has to be seen whole where the value was encoded by itself: the last characters, and lines of fixed
    length."""
    last = data if len(data) <= WHOLE else data[-(len(data) % 3 or 3) - PIECE + 3 :]
    whole = base64.b64encode(last)
    yield from _both_alphabets(whole)
    yield from _both_alphabets(whole.rstrip(b"="))
    for width in WRAPPED:
        if len(data) > width:
            lines = (base64.b64encode(data[start : start + width]) for start in range(0, len(data), width))
            for line in lines:
                yield from _both_alphabets(line)


def _both_alphabets(digits: bytes) -> Iterable[bytes]:
    return (digits, digits.replace(b"+", b"-").replace(b"/", b"_"))
