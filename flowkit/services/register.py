"""The node processing units that have introduced themselves to a node runner."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

from flowkit.services.door import Refusal

SILENT_SEC: Final = 10.0
FORGET_SEC: Final = 3600.0
MOST: Final = 1000


@dataclass(slots=True)
class Npu:
    """One unit. `token` is what the runner shows to it; `sent` how many nodes it has of this runner now."""

    id: str
    address: str
    token: str = field(repr=False)
    heard: float = 0.0
    figures: dict[str, float | int] = field(default_factory=dict)
    sent: int = 0

    @property
    def load(self) -> float:
        return max(self.sent, self.figures.get("queued_tasks", 0))

    def view(self, now: float) -> dict[str, Any]:
        status = "silent" if now - self.heard > SILENT_SEC else "busy" if self.load else "idle"
        shown = {name: self.figures.get(name, 0) for name in FIGURES}
        return {"id": self.id, "address": self.address, "status": status, **shown}


FIGURES: Final = ("uptime", "successful_tasks", "failed_tasks", "queued_tasks")


class Register:
    """In memory: a unit that a new runner does not know introduces itself again within seconds. One that is silent gets
    no work, and is known for an hour more."""

    def __init__(self) -> None:
        self._npus: dict[str, Npu] = {}

    def add(self, id_: str, address: str, token: str) -> Npu:
        """Note a unit, or its new address. Raises `Refusal` where there is no room."""
        now = time.monotonic()
        for name in [name for name, npu in self._npus.items() if now - npu.heard > FORGET_SEC]:
            del self._npus[name]
        known = self._npus.get(id_)
        if known is None and len(self._npus) >= MOST:
            raise Refusal(503, "E_BUSY", f"{MOST} units are registered here already", retry_after=60)
        npu = known if known is not None else Npu(id_, address, token)
        npu.address, npu.token, npu.heard = address, token, now
        self._npus[id_] = npu
        return npu

    def note(self, id_: str, figures: dict[str, float | int]) -> None:
        """Note how a unit is. Raises `Refusal` for one that is not known: it introduces itself then."""
        npu = self._npus.get(id_)
        if npu is None:
            raise Refusal(404, "E_NPU_UNKNOWN", f"no unit {id_[:100]!r} is registered here: POST /npu/add first")
        npu.figures, npu.heard = figures, time.monotonic()

    def choose(self, but: Collection[str] = ()) -> Npu | None:
        """The unit with the least to do, of those that were heard of lately."""
        now = time.monotonic()
        awake = [npu for npu in self._npus.values() if now - npu.heard <= SILENT_SEC and npu.id not in but]
        return min(awake, key=lambda npu: (npu.load, npu.id), default=None)

    def views(self) -> list[dict[str, Any]]:
        now = time.monotonic()
        return [npu.view(now) for npu in self._npus.values()]

    @property
    def awake(self) -> int:
        now = time.monotonic()
        return sum(now - npu.heard <= SILENT_SEC for npu in self._npus.values())
