"""`python -m bench.snapshots [NODES]`: what loading a large task costs, with a snapshot and without, in memory.

Prints the milliseconds of each way, and how long the loop was held at a stretch meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from flowkit.adapters.memory import MemoryStore
from flowkit.coordinator.graphs import Graphs, read_raw
from flowkit.coordinator.history import History, fold, new_task
from flowkit.coordinator.snapshots import written
from flowkit.core import facts
from flowkit.core.payload import Payload
from flowkit.ports import Commit, Head
from flowkit.wire.facts import body_of, encode_facts

NODES = 100_000
PER_COMMIT = 100
CHAINS = 1000
TRIES = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds: the whole, and the longest stretch for which nobody else got the loop."""

    whole: float
    stall: float

    def __str__(self) -> str:
        return f"{self.whole:8.0f} ms   longest stall {self.stall:7.1f} ms"


async def cost_of(act: Callable[[], Awaitable[Any]]) -> Cost:
    """The best of a few, with the cycle collector out of the way, as a coordinator has it (`tune_gc`)."""
    return min([await _cost_of(act) for _ in range(TRIES)], key=lambda cost: cost.whole)


async def _cost_of(act: Callable[[], Awaitable[Any]]) -> Cost:
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest = max(longest, now - last)
            last = now

    gc.collect()
    gc.disable()
    watcher = asyncio.create_task(watch())
    await asyncio.sleep(0)
    began = time.perf_counter()
    try:
        await act()
        whole = time.perf_counter() - began
        await asyncio.sleep(0)
    finally:
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher
        gc.enable()
    return Cost(1000 * whole, 1000 * longest)


def commits_of(names: list[str]) -> list[Commit]:
    """A task of which every node has run, as a coordinator would have written it down."""
    recorded: list[list[facts.Fact]] = [[facts.TaskCreated()]]
    for start in range(0, len(names), PER_COMMIT):
        part = names[start : start + PER_COMMIT]
        recorded.append([facts.AttemptLeased(n, 1, f"c-1.{n}", "w-1", "9be14c07", 12345.123456789) for n in part])
        outputs = ((n, Payload({"n": 12345, "at": 12345.123456789})) for n in part)
        recorded.append([facts.AttemptSucceeded(n, 1, f"c-1.{n}", out, None, 0.00012345) for n, out in outputs])
    return [
        Commit("t", seq, f"c.{seq}", f"c.{seq - 1}" if seq > 1 else "", 1.7e9 + seq, "c", body_of(encode_facts(some)))
        for seq, some in enumerate(recorded, 1)
    ]


async def main(count: int) -> None:
    names = [f"n{i:06d}" for i in range(count)]
    nodes = [{"node_id": n, "type": "hop", "depends_on": names[i - CHAINS : i - CHAINS + 1] if i >= CHAINS else []}
             for i, n in enumerate(names)]  # fmt: skip
    read = await read_raw({"nodes": [*nodes, {"node_id": "last", "type": "hop", "depends_on": names[-1:]}]})
    store = MemoryStore()
    graphs = Graphs(store)
    await graphs.put(read)
    history = History(store, graphs)
    commits = commits_of(names)
    await store.insert_heads([Head("t", 0, read.ref, published_seq=len(commits), seq=len(commits))])
    await store.insert_commits(commits)
    size = sum(len(commit.body) for commit in commits)
    print(f"{count} finished nodes, {len(commits)} commits of {size / 1e6:.1f} MB together")

    async def at_once() -> None:
        fold(new_task(Head("t", 0, read.ref), read.graph), await store.read_commits(["t"]))

    async def load() -> None:
        past = (await history.load(["t"]))["t"]
        assert past.task is not None
        assert past.task.open == 1

    print("all commits, at once      ", await cost_of(at_once))
    print("all commits, in slices    ", await cost_of(load))

    past = (await history.load(["t"]))["t"]
    print("writing the snapshot down ", await cost_of(lambda: written(past)))
    data = await written(past)
    await store.put_blob("s", data, kind="snapshot")
    [head] = await store.read_heads(["t"])
    store.data.heads["t"] = replace(head, snapshot=f"{past.seq}:s")
    print("from the snapshot         ", await cost_of(load), f"  ({len(data) / 1e6:.1f} MB)")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else NODES))
