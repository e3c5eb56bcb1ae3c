"""Who works: asks every worker to say hello, and listens for a moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

from flowkit.cli.roles import node_of
from flowkit.coordinator.explain import nobody
from flowkit.coordinator.views import Reason
from flowkit.core.code import CODE
from flowkit.core.code_policy import Rules, stricter_lane
from flowkit.core.graph import Graph
from flowkit.core.lane import plain
from flowkit.errors import Corrupt
from flowkit.ports import Bus, Record, Tail
from flowkit.wire.messages import Goodbye, Heartbeat, Hello, SayHello, decode_fleet, encode_message
from flowkit.wire.topics import Topics

ROLL_CALL_SEC = 1.5
NAME = "cli"


async def roll_call(bus: Bus, topics: Topics, seconds: float = ROLL_CALL_SEC, *,
                    unsigned: set[str] | None = None) -> dict[str, Hello | Heartbeat]:  # fmt: skip
    """The workers that answered, by id, whoever may believe them. The topics must have been ensured. `unsigned` is
    given those of them whose answer came without a signature that is known here."""
    tail = await bus.tail(topics.fleet)
    try:
        await bus.publish([Record(topics.control, 0, encode_message(SayHello(NAME)))])
        return await asyncio.wait_for(_listen(tail, seconds, unsigned), seconds + 5.0)
    finally:
        await tail.stop()


async def _listen(tail: Tail, seconds: float, unsigned: set[str] | None) -> dict[str, Hello | Heartbeat]:
    workers: dict[str, Hello | Heartbeat] = {}
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        for record in await tail.fetch(left):
            try:
                message = decode_fleet(record.value)
            except Corrupt:
                continue
            if isinstance(message, Hello | Heartbeat):
                if not _says_more(workers.get(message.worker), message):
                    workers[message.worker] = message
                if unsigned is not None and not record.signer:
                    unsigned.add(message.worker)
            elif isinstance(message, Goodbye):
                workers.pop(message.worker, None)
    return workers


def _says_more(known: Hello | Heartbeat | None, heard: Hello | Heartbeat) -> bool:
    """Whether a worker's hello is not to be forgotten for a heartbeat, which says less."""
    if not (isinstance(known, Hello) and isinstance(heard, Heartbeat)):
        return False
    return (known.incarnation, known.draining) == (heard.incarnation, heard.draining)


def roles_of(workers: Iterable[Hello | Heartbeat]) -> list[str]:
    return sorted({role for worker in workers if not worker.draining for role in worker.roles})


def with_fleet(reasons: Sequence[Reason], graph: Graph, workers: dict[str, Hello | Heartbeat],
               rules: Rules = ()) -> list[Reason]:  # fmt: skip
    """What is ready and has no worker says so: a client's own reasons know nothing of the fleet."""
    roles = roles_of(workers.values())
    told = []
    for reason in reasons:
        node = node_of(graph, reason.node_id)
        if reason.code in ("ready", "limit") and node is not None:
            lane = stricter_lane(node.lane or plain(node.type), rules)
            serve = {name: one.labels for name, one in workers.items() if lane.role in one.roles and not one.draining}
            reason = nobody(reason.node_id, lane, serve, roles, rules if lane.role == CODE else ()) or reason
        told.append(reason)
    return sorted(told, key=lambda reason: reason.code != "no_worker")
