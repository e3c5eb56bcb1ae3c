"""What the dialect will say and this release does not yet: refused at the door until it works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NOT_YET: Final[Mapping[str, frozenset[str]]] = {
    "graph": frozenset(),
    "node": frozenset({"code"}),
    "edge": frozenset(),
    "io": frozenset(),
    "type": frozenset({"code"}),
    "template": frozenset({"$secret"}),
}


def not_yet(name: str) -> str:
    """The sentence that refuses one of them."""
    return f"`{name}` comes with the next release of FlowKit; this one cannot run it yet, so leave it out"
