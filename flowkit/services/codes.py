"""Code as it travels between the services: base64, or the text itself."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from flowkit.services.door import Refusal

BASE64_RULE: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def decode(code: str) -> str:
    """The text of some code. Base64 has no spaces, brackets or line breaks, and no program is without. Raises `Refusal`
    for base64 of what is no text."""
    packed = "".join(code.split()) if "(" not in code and ":" not in code else ""
    if not packed or not BASE64_RULE.fullmatch(packed):
        return code
    try:
        return base64.b64decode(packed, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise Refusal(422, "E_CODE", "the code is base64, but of what is no UTF-8 text") from None


def encode(source: str) -> str:
    return base64.b64encode(source.encode()).decode()
