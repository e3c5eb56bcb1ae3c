"""What part of the room is due to each tenant, and to each of its tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil

from flowkit.errors import ConfigError


class Weights:
    """How much of the room each tenant is due, beside the others: 1 where nothing else is said."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = dict(weights or {})
        for tenant, weight in self._weights.items():
            if not 0 < weight < float("inf"):
                raise ConfigError(f"tenant_weights: a weight is a number above 0; {tenant!r} has {weight!r}")

    def of(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)


class Crowd:
    """How many wait, by tenant, and so what part of the room one of them may take at once: a wide task leaves room for
    its tenant's others, and they all leave room for other tenants, whichever roles of the workers they wait for."""

    def __init__(self, weight_of: Callable[[str], float]) -> None:
        self._weight_of = weight_of
        self._waiting: dict[str, int] = {}
        self._weight = 0.0

    def enter(self, tenant: str) -> None:
        mine = self._waiting.get(tenant, 0)
        if not mine:
            self._weight += self._weight_of(tenant)
        self._waiting[tenant] = mine + 1

    def leave(self, tenant: str) -> None:
        mine = self._waiting[tenant]
        if mine > 1:
            self._waiting[tenant] = mine - 1
        else:
            del self._waiting[tenant]
            self._weight = self._weight - self._weight_of(tenant) if self._waiting else 0.0

    def others(self, tenant: str) -> bool:
        """Whether anybody waits who is not of this tenant."""
        return len(self._waiting) > (tenant in self._waiting)

    def share(self, tenant: str, room: int, *, newcomer: bool = False) -> int:
        """The part of so much room that is due to one who waits, or to a newcomer beside those who wait: at least one
        place, if there is one."""
        if room <= 1 or not self._waiting:
            return max(0, room)
        mine = self._waiting.get(tenant, 0)
        if self.others(tenant):
            own, weight = self._weight_of(tenant), self._weight
            room = ceil(room * own / (weight if mine else weight + own))
        return max(1, room // (mine + newcomer))
