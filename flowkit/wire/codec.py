"""JSON in and out. Fast where msgspec can say it, stdlib where a value is legal JSON that msgspec cannot (integers
beyond 64 bits)."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import msgspec

from flowkit.errors import Corrupt

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def dumps(value: Any) -> bytes:
    """Compact UTF-8 JSON. Raises `ValueError` or `TypeError` for what JSON cannot say."""
    try:
        return _encode(value)
    except (OverflowError, UnicodeEncodeError, msgspec.EncodeError):
        return json.dumps(value, separators=(",", ":"), allow_nan=False, default=_refuse).encode()


def loads(data: bytes | str) -> Any:
    """The value of a JSON text. Raises `Corrupt` for anything else: bad UTF-8, NaN, absurd depth, trailing text."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    except RecursionError as error:
        raise Corrupt("nested too deeply") from error
    try:
        return json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"not JSON: {error}") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse(value: object) -> NoReturn:
    raise TypeError(f"JSON cannot say {type(value).__name__}")
