"""What the dialect will say and this release does not yet: refused at the door until it works."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from flowkit.core.graph import BUILT_INS

NOT_YET: Final[Mapping[str, frozenset[str]]] = {
    "graph": frozenset(),
    "node": frozenset(
        {"foreach", "max_parallel", "gather", "on_item_failure", "repeat", "when", "graph", "flow", "code"}
    ),
    "edge": frozenset({"when", "otherwise"}),
    "io": frozenset({"fn", "fn_args"}),
    "type": BUILT_INS,
    "template": frozenset({"$item", "$index", "$previous", "$var", "$expr", "$secret"}),
}


def not_yet(name: str) -> str:
    """The sentence that refuses one of them."""
    return f"`{name}` comes with the next release of FlowKit; this one cannot run it yet, so leave it out"
