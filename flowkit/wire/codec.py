"""JSON in and out. Fast where msgspec can say it, stdlib where a value is legal JSON that msgspec cannot (integers
beyond 64 bits, lone surrogates)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from flowkit.errors import Corrupt

T = TypeVar("T")

MAX_DEPTH: Final = 256
PART_ITEMS: Final = 1000

UNFIT: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
"""What msgspec raises for a text that is not JSON, or not of the type wanted, or that it cannot say."""

_ALL_BUT_BRACKETS: Final = bytes(sign for sign in range(256) if sign not in b"[]{}")
_AS_SQUARE: Final = bytes.maketrans(b"{}", b"[]")
_STEPS: Final = {ord("["): 1, ord("]"): -1}

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON. Raises `ValueError` or `TypeError` for what JSON cannot say.

    NaN and the infinities become null and sets become lists: those who take values from users check them first.
    """
    try:
        return _encode(value)
    except (OverflowError, UnicodeEncodeError, RecursionError, msgspec.EncodeError):
        pass
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False, default=_plain).encode()
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def dumps_in_parts(value: Mapping[str, Any]) -> bytes:
    """The text of an object with long lists. Written a thousand items at a time: one call would keep every other
    thread waiting for as long as it takes."""
    parts = [dumps(key) + b":" + _list_in_parts(item) for key, item in value.items()]
    return b"{" + b",".join(parts) + b"}"


def _list_in_parts(item: Any) -> bytes:
    if not isinstance(item, list) or len(item) <= PART_ITEMS:
        return dumps(item)
    parts = (dumps(item[at : at + PART_ITEMS])[1:-1] for at in range(0, len(item), PART_ITEMS))
    return b"[" + b",".join(parts) + b"]"


def loads(data: bytes | str) -> Any:
    """The value of a JSON text. Raises `Corrupt` for anything else: bad UTF-8, NaN, a number beyond all floats, absurd
    depth, trailing text."""
    try:
        return _decode(data)
    except UNFIT:
        pass
    try:
        text = data if isinstance(data, str) else data.decode()  # json would guess other encodings
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"not JSON: {error}") from error


def loads_as(decoder: msgspec.json.Decoder[T], data: bytes | str, what: str) -> T:
    """What the decoder makes of a JSON text, and of one as well that msgspec cannot say. Raises `Corrupt`, which says
    that it is not `what`."""
    try:
        return decoder.decode(data)
    except UNFIT:
        pass
    try:
        made: T = msgspec.convert(loads(data), decoder.type)
    except msgspec.ValidationError as error:
        raise Corrupt(f"not {what}: {error}") from error
    return made


def check_depth(data: bytes) -> None:
    """Raise `Corrupt` for a JSON text that is nested so deeply that it might not be written again where the stack is
    deeper than here."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    outside = b"".join(data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    brackets = outside.translate(_AS_SQUARE, _ALL_BUT_BRACKETS)
    for _ in range(16):  # the innermost first: soon there are few left
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return
    if 16 + max(accumulate(map(_STEPS.__getitem__, brackets))) > MAX_DEPTH:
        raise Corrupt(f"nested more than {MAX_DEPTH} deep")


def _plain(value: object) -> Any:
    """A struct as msgspec would write it."""
    if not isinstance(value, msgspec.Struct):
        raise TypeError(f"JSON cannot say {type(value).__name__}")
    config = value.__struct_config__
    if config.array_like:
        return [*([] if config.tag is None else [config.tag]), *msgspec.structs.astuple(value)]
    tag = {} if config.tag_field is None else {config.tag_field: config.tag}
    return tag | msgspec.structs.asdict(value)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:20]} is beyond all floats")
    return number
