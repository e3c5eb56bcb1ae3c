"""An idempotency key whose task was deleted begins anew, under another id: nothing that was meant for the deleted task
can reach the new one."""

from __future__ import annotations

from flowkit.coordinator.deletion import GRACE_SEC
from flowkit.coordinator.ids import id_of_life
from flowkit.ports import DELETED, Clock, Outcome, Removal, Store


class Lives:
    """The head of the first task of a key counts the lives of that key, for as long as a later one has a head."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def id_now(self, first_id: str) -> str:
        """The id under which the key's task is to be found, or created next. Where somebody else was at it, the id of
        its first task, which is there: ask again then. Raises `StoreUnavailable`."""
        heads = await self._store.read_heads([first_id])
        if not heads or heads[0].status != DELETED:
            return first_id
        life = max(1, heads[0].life)
        later = await self._store.read_heads([id_of_life(first_id, life)])
        if later and later[0].status != DELETED:
            return later[0].task_id
        life += len(later)
        # The head has to stay until the new one stands beside it, and knows then that it must.
        counted = Removal(heads[0], self._clock.wall() + GRACE_SEC, life)
        noted = await self._store.schedule_removal(counted) is Outcome.OK
        return id_of_life(first_id, life) if noted else first_id
