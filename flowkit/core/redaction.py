"""Finds the secrets of one attempt in what it says, in the forms in which programs say things, and covers them.

It finds every form in `flowkit.core.variants`, wherever a stream is cut into chunks, in time linear in the text. It
cannot find what a program makes of a secret on purpose: whoever holds a value can always write it in another way.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final

from flowkit.core.variants import SHORTEST, variants_of

MARK: Final = "[REDACTED]"
"""What stands where a secret stood. Secrets that follow one another leave one mark."""

GRAM: Final = 4
LONGEST_STRIDE: Final = 13
MANY_GRAMS: Final = 50_000

Span = tuple[int, int]


class Redactor:
    """Covers these values. Those of fewer than `SHORTEST` characters are not looked for. To make one takes a
    millisecond for usual values, and half a second for one of 64 KiB.

    A form of at least m bytes has a gram (four bytes) at each of its first m - 3 places; so wherever it stands, a look
    at every (m - 3)-rd place of a text meets one. Only there is looked closer.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._forms = {form for value in values for form in variants_of(value)}
        self._sorted = sorted(self._forms)
        self._first_bytes = frozenset(form[0] for form in self._forms)
        self._inner_bytes = bytes({byte for form in self._forms for byte in form[:-1]})
        self._longest = max(map(len, self._forms), default=0)
        self._lengths = _lengths(self._forms)
        room = MANY_GRAMS // max(1, len(self._forms))
        shortest = min(map(len, self._forms), default=SHORTEST)
        self._stride = min(shortest - GRAM + 1, LONGEST_STRIDE, max(SHORTEST - GRAM + 1, room))
        self._offsets = _offsets(self._forms, self._stride)

    def stream(self) -> RedactingStream:
        """For bytes that come in chunks."""
        return RedactingStream(self)

    def text_stream(self) -> RedactingTextStream:
        """For text that comes in chunks."""
        return RedactingTextStream(self)

    def data(self, data: bytes) -> bytes:
        """The bytes, covered; the very same object where there is nothing to cover."""
        spans = self.spans(data)
        return _covered(data, spans) if spans else data

    def text(self, text: str) -> str:
        """The text, covered; the very same object where there is nothing to cover."""
        data = text.encode("utf-8", "surrogatepass")
        spans = self.spans(data)
        return _covered(data, spans).decode("utf-8", "surrogatepass") if spans else text

    def value(self, value: Any) -> Any:
        """A value of JSON (bytes too), with what its texts, keys and numbers hold covered; the very same object where
        there is nothing to cover. Of keys that become the same, the later ones get a number."""
        if not self._forms:
            return value
        match value:
            case str():
                return self.text(value)
            case bytes():
                return self.data(value)
            case dict():
                return self._mapping(value)
            case list() | tuple():
                items = [self.value(item) for item in value]
                same = all(new is old for new, old in zip(items, value, strict=True))
                return value if same else type(value)(items) if type(value) in (list, tuple) else items
            case bool() | None:
                return value
            case int() | float():
                return MARK if self.spans(repr(value).encode()) else value
        return value

    def _mapping(self, value: dict[Any, Any]) -> dict[Any, Any]:
        new: dict[Any, Any] = {}
        same = True
        for key, item in value.items():
            name, covered = self.value(key), self.value(item)
            same = same and name is key and covered is item
            if name is not key:
                name = _unused(name, new, value)
            new[name] = covered
        return value if same else new

    def spans(self, data: bytes) -> list[Span]:
        """Where there is something to cover: from, to; in order, and apart from one another."""
        grams, lengths, forms = self._offsets, self._lengths, self._forms
        if not forms:
            return []
        found: list[Span] = []
        for place in [at for at in range(0, len(data) - GRAM + 1, self._stride) if data[at : at + GRAM] in grams]:
            for offset in grams[data[place : place + GRAM]]:
                start = place - offset
                if start < 0:
                    continue
                for length in lengths.get(data[start : start + SHORTEST], ()):
                    if data[start : start + length] in forms:
                        found.append((start, min(start + length, len(data))))
                        break
        return _merged(found) if found else found

    def held_back(self, data: bytes) -> int:
        """Where the longest end of the data begins that may be the beginning of a form; its length if none may be."""
        first, forms = self._first_bytes, self._sorted
        last = data[max(0, len(data) - self._longest + 1) :]
        begun = len(last) - len(last.rstrip(self._inner_bytes))  # a line's end is the beginning of few secrets
        for start in range(len(data) - begun, len(data)):
            if data[start] in first:
                end = data[start:]
                at = bisect_left(forms, end)
                if at < len(forms) and forms[at] == end:
                    at += 1  # it is there whole; only a longer one may still come
                if at < len(forms) and forms[at].startswith(end):
                    return start
        return len(data)


class RedactingStream:
    """Covers a stream of bytes. `feed` gives what may go on by now: all but an end that may be the beginning of a
    secret; `flush`, at the stream's end, gives that."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._kept = b""
        # What was given ends with a mark, which stands for so many of the first bytes of what is kept, too.
        self._marked: int | None = None

    def feed(self, chunk: bytes) -> bytes:
        data = self._kept + chunk if self._kept else chunk
        return self._give(data, self._redactor.held_back(data))

    def flush(self) -> bytes:
        data = self._kept
        return self._give(data, len(data))

    def _give(self, data: bytes, upto: int) -> bytes:
        self._kept = data[upto:]
        if upto == 0:
            return b""
        spans, begun = self._redactor.spans(data), self._marked is not None
        if self._marked is not None:
            spans = _merged([(0, self._marked), *spans])
        if not spans:
            return data[:upto]
        here = [(start, end) for start, end in spans if start < upto]
        self._marked = here[-1][1] - upto if here and here[-1][1] >= upto else None
        return _covered(data[:upto], here, begun=begun)


class RedactingTextStream:
    """Covers a stream of text, as `RedactingStream` does."""

    def __init__(self, redactor: Redactor) -> None:
        self._stream = RedactingStream(redactor)

    def feed(self, chunk: str) -> str:
        return self._stream.feed(chunk.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")

    def flush(self) -> str:
        return self._stream.flush().decode("utf-8", "surrogatepass")


def _lengths(forms: Iterable[bytes]) -> dict[bytes, tuple[int, ...]]:
    """By the first bytes of forms, how long those are; the longest first."""
    found: defaultdict[bytes, set[int]] = defaultdict(set)
    for form in forms:
        found[form[:SHORTEST]].add(len(form))
    return {start: tuple(sorted(lengths, reverse=True)) for start, lengths in found.items()}


def _offsets(forms: Iterable[bytes], stride: int) -> dict[bytes, tuple[int, ...]]:
    """By gram, how far from the beginning of a form it may stand."""
    found: defaultdict[bytes, set[int]] = defaultdict(set)
    for form in forms:
        for offset in range(stride):
            found[form[offset : offset + GRAM]].add(offset)
    return {gram: tuple(offsets) for gram, offsets in found.items()}


def _merged(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _covered(data: bytes, spans: list[Span], *, begun: bool = False) -> bytes:
    """`begun`: the mark of the first span, which begins at 0, has been given."""
    return b"".join(_parts(data, spans, begun))


def _parts(data: bytes, spans: list[Span], begun: bool) -> Iterator[bytes]:
    at = 0
    for number, (start, end) in enumerate(spans):
        yield data[at:start]
        if number or not begun:
            yield MARK.encode()
        at = end
    yield data[at:]


def _unused(name: Any, new: dict[Any, Any], old: dict[Any, Any]) -> Any:
    if name not in new and name not in old:
        return name
    number = 2
    while f"{name}#{number}" in new or f"{name}#{number}" in old:
        number += 1
    return f"{name}#{number}"
