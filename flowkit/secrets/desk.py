"""Takes tickets, and gives what they are for: the manager's counter, for workers of this process and of others."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flowkit.errors import FlowKitError, TicketRefused
from flowkit.ports import Clock, SecretUse
from flowkit.secrets.manager import SecretManager
from flowkit.wire.tickets import LEEWAY_SEC, Ticket, check_use, read_ticket

REMEMBERED: Final = 100_000
AGAIN_SEC: Final = 60.0
"""So long after it was first shown a ticket may be shown again, where the answer may have been lost."""
RECORDED_AT_ONCE: Final = 20
RECORDED_PER_SEC: Final = 2.0


@dataclass(slots=True)
class _Shown:
    """A ticket that was shown: by whom, when, how long that is remembered, and whether its values have arrived."""

    holder: str
    at: float
    until: float
    spent: bool = False


class Desk:
    """A ticket is good for its attempt only, once, and in the hands of whoever showed it first: that one may ask again
    until it says that the values have arrived, for an answer may be lost; whoever copied it may not. `keys` are the
    ticket keys that coordinators share."""

    def __init__(self, manager: SecretManager, keys: Mapping[str, bytes], clock: Clock, *,
                 leeway_sec: float = LEEWAY_SEC) -> None:  # fmt: skip
        self._manager = manager
        self._keys = dict(keys)
        self._clock = clock
        self._leeway_sec = leeway_sec
        self._shown: OrderedDict[str, _Shown] = OrderedDict()
        self._room = float(RECORDED_AT_ONCE)
        self._room_at = clock.mono()
        self._unrecorded = 0

    async def start(self) -> None:
        """Prepare the store, and see that there is a master key. Raises `StoreUnavailable`, `MasterKeyError`."""
        await self._manager.start()
        await self._manager.cabinet.keys.current()

    async def values_for(self, use: SecretUse, ticket: str, holder: str) -> Mapping[str, str]:
        """The values by name. `holder` is a random text of the asking worker's own. Raises `TicketRefused`, and as
        `SecretManager.resolve`."""
        try:
            genuine = read_ticket(ticket, self._keys, self._clock.wall(), leeway_sec=self._leeway_sec)
            check_use(genuine, use)
            self._check_holder(genuine, holder)
        except TicketRefused as error:
            await self._record(use, error)
            raise
        whose = genuine.use  # not as it was asked, but as it is sealed
        resolved = await self._manager.resolve(whose.tenant, genuine.names, whose, listed=genuine.names)
        return resolved.values

    def arrived(self, token: str, holder: str) -> None:
        """The values for the lease with this token have arrived at whoever showed its ticket, which is good for
        nothing from now on."""
        shown = self._shown.get(token)
        if shown is not None and _same(shown.holder, holder):
            shown.spent = True

    def _check_holder(self, ticket: Ticket, holder: str) -> None:
        now = self._clock.wall()
        while self._shown:
            token, oldest = next(iter(self._shown.items()))
            if oldest.until >= now and len(self._shown) < REMEMBERED:
                break
            del self._shown[token]
        shown = _Shown(holder, now, ticket.good_until + self._leeway_sec)
        first = self._shown.setdefault(ticket.use.token, shown)
        if not _same(first.holder, holder):
            raise TicketRefused("the ticket was shown by another before: it, or this one, was copied")
        if first.spent:
            raise TicketRefused("the ticket was used: its values have arrived, and an attempt asks once")
        if now > first.at + AGAIN_SEC:
            raise TicketRefused(f"the ticket was first shown {now - first.at:.0f} s ago: an attempt asks once")

    async def _record(self, use: SecretUse, error: FlowKitError) -> None:
        """Wrong tickets cost nothing to make; so of a flood only some are recorded one by one, and how many more."""
        now = self._clock.mono()
        self._room = min(RECORDED_AT_ONCE, self._room + (now - self._room_at) * RECORDED_PER_SEC)
        self._room_at = now
        if self._room < 1:
            self._unrecorded += 1
            return
        self._room -= 1
        note = f"as it said itself: {error}"
        if self._unrecorded:
            note = f"{note} ({self._unrecorded} more before this one were refused, and not recorded)"
            self._unrecorded = 0
        await self._manager.record_refusal(use, error, note=note)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


class OwnDesk:
    """A `SecretSource` for the workers of the manager's own process."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def values_for(self, use: SecretUse, ticket: str) -> Mapping[str, str]:
        values = await self._desk.values_for(use, ticket, "")
        self._desk.arrived(use.token, "")
        return values
