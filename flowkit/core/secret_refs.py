"""What a secret may be called, how a version of it is named (`DB_PASSWORD`, `DB_PASSWORD@2`), and who may use it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from flowkit.core.problems import shown
from flowkit.errors import SecretNameError

LONGEST_NAME: Final = 128
NAME_RULE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
VERSION_RULE: Final = re.compile(r"[1-9][0-9]{0,8}")
SAYS: Final = f"letters, digits and `_ - .`, at most {LONGEST_NAME} characters, the first no `-` or `.`"
PATTERN_RULE: Final = re.compile(r"[A-Za-z0-9_.:*?-]{1,128}")
MOST_PATTERNS: Final = 100


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A secret as it was named; `version` 0 is the newest."""

    name: str
    version: int = 0

    def __str__(self) -> str:
        return f"{self.name}@{self.version}" if self.version else self.name


def read_secret_ref(text: object) -> SecretRef:
    """What `NAME` or `NAME@2` means. Raises `SecretNameError`."""
    if not isinstance(text, str):
        raise SecretNameError(f"a secret is named by text, such as 'DB_PASSWORD'; found {shown(text)}")
    name, at, version = text.partition("@")
    checked_secret_name(name)
    if at and not VERSION_RULE.fullmatch(version):
        raise SecretNameError(f"{shown(text)} names no version: versions count from 1, as in '{name}@1'")
    return SecretRef(name, int(version) if at else 0)


def checked_secret_name(name: object) -> str:
    """The name, if a secret may be called so. Raises `SecretNameError`."""
    if isinstance(name, str) and NAME_RULE.fullmatch(name):
        return name
    if isinstance(name, str) and "@" in name:
        raise SecretNameError(f"{shown(name)} names a version; name the secret: {shown(name.partition('@')[0])}")
    raise SecretNameError(f"{shown(name)} is no name of a secret: write {SAYS}")


@dataclass(frozen=True, slots=True)
class Allowed:
    """Which flows and which nodes may use a secret, beside that the node has to list it: names, or patterns with `*`
    and `?`. Empty: any. A task that is of no flow has the flow `` (nothing), which only `*` and none at all allow."""

    flows: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    def why_not(self, flow: str, node: str) -> str | None:
        """Why this flow's node may not use it; None if it may."""
        if self.flows and not any(fnmatchcase(flow, pattern) for pattern in self.flows):
            who = f"flow {flow!r}" if flow else "a task of no flow"
            return f"{who} may not use it, only: {', '.join(self.flows)}"
        if self.nodes and not any(fnmatchcase(node, pattern) for pattern in self.nodes):
            return f"node {node!r} may not use it, only: {', '.join(self.nodes)}"
        return None

    def text(self) -> str:
        """As it is stored; the same for the same."""
        return json.dumps({"flows": list(self.flows), "nodes": list(self.nodes)}, separators=(",", ":"))


def read_allowed(text: str) -> Allowed:
    """What `Allowed.text` wrote. Raises `ValueError`, `KeyError` or `TypeError` for anything else."""
    found = json.loads(text)
    return Allowed(tuple(map(str, found["flows"])), tuple(map(str, found["nodes"])))


def checked_allowed(flows: Iterable[str], nodes: Iterable[str]) -> Allowed:
    """Raises `SecretNameError` for what is no pattern of names."""
    found = []
    for what, given in (("flow", flows), ("node", nodes)):
        patterns = tuple(dict.fromkeys([given] if isinstance(given, str) else given))
        for pattern in patterns:
            if not PATTERN_RULE.fullmatch(pattern):
                raise SecretNameError(
                    f"{shown(pattern)} is no pattern for the name of a {what}: write letters, digits, "
                    "`_ - . :`, and `*` or `?`"
                )
        if len(patterns) > MOST_PATTERNS:
            raise SecretNameError(f"{len(patterns)} patterns of {what}s, at most {MOST_PATTERNS}: use `*`")
        found.append(patterns)
    return Allowed(*found)
