"""What operators allow at a time, whatever graphs say: how many attempts of a role, and of all together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from flowkit.core.graph import Limit
from flowkit.core.immutable import immutable

EVERYTHING: Final = "*"


@immutable
class Need:
    """A limit of a node in its task. `limit_id` says whose permit it is: two nodes share a limit if it is the same."""

    limit_id: str
    key: str
    limit: Limit


class Bounds:
    """`most` has the number by role; that of `*` holds for all roles together.

    They are no part of a task's state: which permits a lease has is recorded with it, and what else a node needs says
    the coordinator that is about to lease it.
    """

    __slots__ = ("_all", "_roles")

    def __init__(self, most: Mapping[str, int]) -> None:
        self._all = (_need(EVERYTHING, most[EVERYTHING]),) if EVERYTHING in most else ()
        self._roles = {role: (_need(role, count), *self._all) for role, count in most.items() if role != EVERYTHING}

    def of(self, role: str) -> tuple[Need, ...]:
        """What an attempt of this role needs."""
        return self._roles.get(role, self._all)


def _need(role: str, most: int) -> Need:
    # No key of a graph has such an id, so the two are never one limit.
    digest = hashlib.sha256(role.encode("utf-8", "surrogatepass")).hexdigest()
    key = "all roles" if role == EVERYTHING else f"role {role}"
    return Need(f"limit:role-{digest[:32]}", key, Limit(key, most))


UNBOUNDED: Final = Bounds({})


def bounds_of(most: Mapping[str, int]) -> Bounds:
    """`UNBOUNDED` itself, where nothing is bounded: what happens for every node asks for no more than that."""
    return Bounds(most) if most else UNBOUNDED
