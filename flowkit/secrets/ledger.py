"""Records who did what with which secret, and what it tells of versions that must not vanish."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from flowkit.errors import SecretTampered, StoreUnavailable
from flowkit.ports import AuditFilter, AuditRow, Clock, Outcome, SealedSecret, SecretStore

TRIES: Final = 5
PAUSE_SEC: Final = 0.05
REMEMBERED: Final = 10_000
CHANGES: Final = ("set", "allow", "delete")
LONGEST_NOTE: Final = 500
CHANGES_LOOKED_AT: Final = 20


class Ledger:
    """What is recorded is never changed. A secret is given out only once its use is recorded."""

    def __init__(self, store: SecretStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._numbers = itertools.count(1)
        self._highest: OrderedDict[tuple[str, str], int] = OrderedDict()

    async def write(self, rows: Sequence[AuditRow]) -> None:
        """Record these; their ids and times are given here. Raises `StoreUnavailable`."""
        now = self._clock.wall()
        waiting = [replace(row, id=self._new_id(), at=now, note=row.note[:LONGEST_NOTE]) for row in rows]
        for attempt in range(TRIES):
            outcomes = await self._store.insert_audit(waiting)
            # One that is there already is our own, from a try whose outcome was unknown.
            waiting = [
                row for row, outcome in zip(waiting, outcomes, strict=True)
                if outcome not in (Outcome.OK, Outcome.DUPLICATE)
            ]  # fmt: skip
            if not waiting:
                return
            await asyncio.sleep(PAUSE_SEC * 2**attempt)
        raise StoreUnavailable("the record of what is done with secrets cannot be written, so nothing was given out")

    def _new_id(self) -> str:
        """Those of one process are in order, also of the same moment."""
        return f"{next(self._numbers):010x}{secrets.token_hex(10)}"

    async def highest(self, tenant: str, name: str) -> int:
        """The highest version that this process has seen, or that is recorded to have been set."""
        known = self._highest.get((tenant, name))
        if known is None:
            where = AuditFilter(tenant, name, CHANGES, "ok")
            # Several, for the clocks of those who set it may differ.
            rows = await self._store.list_audit(where, limit=CHANGES_LOOKED_AT)
            known = max((row.version for row in rows), default=0)
            self.saw(tenant, name, known)
        return max(known, self._highest.get((tenant, name), 0))

    def saw(self, tenant: str, name: str, version: int) -> None:
        self._highest[tenant, name] = max(version, self._highest.get((tenant, name), 0))
        self._highest.move_to_end((tenant, name))
        if len(self._highest) > REMEMBERED:
            self._highest.popitem(last=False)

    async def check_newest(self, newest: SealedSecret) -> None:
        """Raise `SecretTampered` where the newest version in the store is older than one that there has been."""
        highest = await self.highest(newest.tenant, newest.name)
        if newest.version < highest:
            raise SecretTampered(
                f"secret {newest.name!r} was set as version {highest}, and the newest in the store is "
                f"{newest.version}: newer ones have vanished; restore the store, or set the secret anew"
            )
        self.saw(newest.tenant, newest.name, newest.version)
