"""Who may speak to a service: tokens in a file that nobody but its owner can read."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from flowkit.errors import ConfigError

OPERATOR: Final = "operator"
SHORTEST: Final = 16
LARGEST_FILE: Final = 256 * 1024
LINE: Final = re.compile(
    r"(?P<name>[A-Za-z0-9_.-]{1,64})\s+(?P<tenant>[A-Za-z0-9_.-]{1,64})\s+(?P<token>[!-~]{16,512})"
)
HEAD: Final = (
    "# Tokens of a FlowKit service, one a line: who it is for, the tenant, the token. Whoever has a token may do what\n"
    "# that one may. A line taken out is a token taken back; the service reads this file when it starts.\n"
)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks, and for which tenant."""

    name: str
    tenant: str = "default"


class Keys:
    """The tokens that a service knows."""

    def __init__(self, lines: Sequence[tuple[Principal, str]]) -> None:
        self._lines = tuple((principal, token, _digest(token)) for principal, token in lines)

    @classmethod
    def open(cls, path: Path, others: Sequence[str]) -> tuple[Self, bool]:
        """Those of a file, which is made where there is none, with a token for the operator and for each of `others`;
        and whether it was made. Raises `ConfigError`."""
        made = not path.exists() and _make(path, [OPERATOR, *others])
        return cls(read_lines(path)), made

    def who(self, token: str) -> Principal | None:
        """Whose token this is. How long it takes to find out says nothing of the tokens."""
        asked, found = _digest(token), None
        for principal, _, digest in self._lines:
            if hmac.compare_digest(asked, digest):
                found = principal
        return found

    def token_of(self, name: str) -> str:
        """The token of one by name. Raises `ConfigError` where it has none."""
        for principal, token, _ in self._lines:
            if principal.name == name:
                return token
        raise ConfigError(f"the token file has no line for {name!r}")


def token_for(path: Path, me: str) -> str:
    """What one service shows to another, from that one's token file or a copy of its line; empty where there is no such
    file. A file with one line is meant for whoever has it. Raises `ConfigError`."""
    if not path.exists():
        return ""
    lines = read_lines(path)
    mine = [token for principal, token in lines if principal.name == me]
    if mine:
        return mine[0]
    if len(lines) == 1:
        return lines[0][1]
    raise ConfigError(f"{path} has no token for {me!r}: add a line for it, and start that service anew")


def read_lines(path: Path) -> list[tuple[Principal, str]]:
    """Raises `ConfigError` for a file that others may read, or that has no token."""
    try:
        with path.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            data = opened.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"the token file {path} cannot be read: {error.strerror or error}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"others may read the token file {path}: chmod 600 {path}, and make new tokens")
    found = []
    for number, line in enumerate(data[:LARGEST_FILE].decode("utf-8", "replace").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        read = LINE.fullmatch(line)
        if read is None:
            raise ConfigError(
                f"{path}, line {number}: write NAME TENANT TOKEN; a token has at least {SHORTEST} characters, no spaces"
            )
        found.append((Principal(read["name"], read["tenant"]), read["token"]))
    if not found:
        raise ConfigError(f"{path} has no token: remove it, and the service makes one")
    return found


def _make(path: Path, names: Sequence[str]) -> bool:
    """Whole, or not at all; False where somebody else made it meanwhile."""
    text = HEAD + "".join(f"{name} default {secrets.token_urlsafe(32)}\n" for name in names)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd, draft = tempfile.mkstemp(dir=path.parent, prefix=".flowkit-token-")  # mode 0600
        try:
            with os.fdopen(fd, "w") as opened:
                opened.write(text)
                opened.flush()
                os.fsync(opened.fileno())
            os.link(draft, path)
        finally:
            os.unlink(draft)
    except FileExistsError:
        return False
    except OSError as error:
        raise ConfigError(f"the token file {path} cannot be made: {error.strerror or error}") from error
    return True


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
