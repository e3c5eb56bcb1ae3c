"""Passes for scripts that are run by hand: what one attempt shows to its node processing unit, and no other can."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from flowkit.core.code import SECRET_RULE
from flowkit.errors import ConfigError
from flowkit.services.names import NAME_RULE

USUAL_SEC: Final = 24 * 3600.0
LONGEST: Final = 16 * 1024
MOST_NAMES: Final = 64


@dataclass(frozen=True, slots=True)
class Pass:
    """The attempt `runner_id` of a node may say lines and its result, and look up `secrets`, until `until` (epoch
    seconds)."""

    runner_id: str
    node: str = ""
    secrets: tuple[str, ...] = ()
    until: float = 0.0


def issue(key: str, runner_id: str, secrets: Sequence[str] = (), *, node: str = "by-hand",
          for_sec: float = USUAL_SEC) -> str:  # fmt: skip
    """A pass as text, under the token of the unit's operator. Raises `ConfigError`."""
    if not NAME_RULE.fullmatch(node):
        raise ConfigError(f"{node[:100]!r} is no name of a node: at most 128 characters, without `/` and control signs")
    for name in secrets:
        if not SECRET_RULE.fullmatch(name):
            raise ConfigError(f"{name[:100]!r} is no secret's name")
    if len(secrets) > MOST_NAMES:
        raise ConfigError(f"an attempt may look up {MOST_NAMES} secrets, not {len(secrets)}")
    said = json.dumps(
        [_checked_id(runner_id), node, sorted(set(secrets)), time.time() + for_sec], separators=(",", ":")
    )
    body = base64.urlsafe_b64encode(said.encode()).decode().rstrip("=")
    return f"{body}.{_seal(key, body)}"


def read(key: str, text: str, now: float) -> Pass | None:
    """What a genuine pass says; None for anything else, and for one that has run out."""
    body, found, seal = text.partition(".")
    if not found or len(text) > LONGEST or not hmac.compare_digest(_seal(key, body).encode(), seal.encode()):
        return None
    runner_id, node, secrets, until = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return Pass(runner_id, node, tuple(secrets), until) if now < until else None


def _checked_id(runner_id: str) -> str:
    try:
        return str(UUID(runner_id))
    except ValueError:
        raise ConfigError(f"runner_id is a UUID (uuidgen makes one), not {runner_id[:60]!r}") from None


def _seal(key: str, body: str) -> str:
    own = hmac.digest(key.encode(), b"flowkit: passes for scripts by hand", hashlib.sha256)
    return hmac.new(own, body.encode("utf-8", "replace"), hashlib.sha256).hexdigest()
