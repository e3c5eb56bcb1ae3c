"""How a member of a group is told which partitions come and go."""

from __future__ import annotations

import asyncio

from flowkit.ports import Rebalanced

# Longer, and the broker takes the member for dead.
PATIENCE_SEC = 2.0


async def tell(callback: Rebalanced, partitions: frozenset[int]) -> None:
    """Call back, for at most PATIENCE_SEC. A callback's failure goes to the loop's exception handler: the group goes
    on."""
    try:
        async with asyncio.timeout(PATIENCE_SEC):
            await callback(partitions)
    except Exception as error:  # the library that calls back would lose the group over it
        message = f"a rebalance callback failed for the partitions {sorted(partitions)}"
        asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
