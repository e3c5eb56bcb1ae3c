"""What a handler may return instead of a plain output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MOST_NEXT = 1000
LONGEST_NEXT = 16 * 1024


@dataclass(frozen=True, slots=True)
class Next:
    """The node's `output`, and which of its successors run: `return flowkit.Next(["b"], output)`. An empty list ends
    the branch. Raises `TypeError` or `ValueError` for anything but a list of node ids."""

    nodes: Sequence[str]
    output: Any = None

    def __post_init__(self) -> None:
        nodes: Any = self.nodes
        if isinstance(nodes, str) or not isinstance(nodes, list | tuple | set | frozenset):
            raise TypeError(f'Next takes a list of node ids, such as Next(["b"], output), not {type(nodes).__name__}')
        if not all(isinstance(node, str) for node in nodes):
            raise TypeError("Next takes a list of node ids, and a node id is a string")
        chosen = tuple(sorted(nodes)) if isinstance(nodes, set | frozenset) else tuple(nodes)
        if len(chosen) > MOST_NEXT or sum(map(len, chosen)) > LONGEST_NEXT:
            raise ValueError(f"Next names at most {MOST_NEXT} successors, of {LONGEST_NEXT} characters in all")
        object.__setattr__(self, "nodes", chosen)
