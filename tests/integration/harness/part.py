"""One process of a cluster: `python -m tests.integration.harness.part coordinator|worker NAME`, as a user would write
it.

Where it runs comes from the environment, as for any FlowKit process; LEDGER is the ledger's file. What happens in it
goes to standard output, a JSON line each. It ends when its standard input does: so it never outlives its harness.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import AsyncIterator

from flowkit import Context, Coordinator, CoordinatorConfig, Next, Permanent, Worker, WorkerConfig
from flowkit.telemetry import Happening, Telemetry
from tests.integration.harness.ledger import Pen


def say(what: str, about: object = "") -> None:
    # One write per line: what is said just before a kill is whole, or not there.
    os.write(1, json.dumps([time.time(), what, str(about)]).encode() + b"\n")


def tell(happening: Happening) -> None:
    say(type(happening).__name__, happening)


async def opened(gate: str) -> None:
    """Wait for the file of this name, where there is a name: the test lets go, however long that takes."""
    while gate and not os.path.exists(gate):
        await asyncio.sleep(0.02)


def handlers(pen: Pen) -> dict[str, object]:
    async def step(ctx: Context, sec: float, n: int = 0, gate: str = "") -> dict[str, int]:
        with pen.run(ctx):
            await opened(gate)
            await asyncio.sleep(sec)
        return {"n": n + 1}

    async def join(ctx: Context, parts: dict[str, dict[str, int]], sec: float = 0.05) -> dict[str, int]:
        with pen.run(ctx):
            await asyncio.sleep(sec)
        return {"n": sum(part["n"] for part in parts.values())}

    async def guide(ctx: Context, to: list[str], sec: float) -> Next:
        with pen.run(ctx):
            await asyncio.sleep(sec)
        return Next(to)

    async def numbers(ctx: Context, n: int, sec: float = 0.0, ahead: int = 0, gate: str = "") -> AsyncIterator[int]:
        """After so many it goes `ahead` only once the gate is open."""
        with pen.run(ctx):
            for i in range(n):
                if i == ahead:
                    await opened(gate)
                if sec:
                    await asyncio.sleep(sec / n)
                yield i

    async def shift(ctx: Context, rows: AsyncIterator[int]) -> AsyncIterator[int]:
        with pen.run(ctx):
            async for row in rows:
                yield row + 1

    async def tally(ctx: Context, rows: AsyncIterator[int]) -> dict[str, int]:
        """Counts the batches, and those that do not follow the one before; a later attempt goes on from there."""
        count, wrong = ctx.stream.state or (0, 0)
        with pen.run(ctx):
            async for row in rows:
                wrong += row != count + 1
                count += 1
                if count % 500 == 0:
                    await ctx.stream.save([count, wrong])
        return {"count": count, "wrong": wrong}

    async def items(ctx: Context, count: int, sec: float) -> list[int]:
        with pen.run(ctx):
            await asyncio.sleep(sec)
        return list(range(count))

    async def refuse(ctx: Context) -> None:
        with pen.run(ctx):
            await asyncio.sleep(0)
        raise Permanent("refused", "it never works")

    return {
        "step": step,
        "join": join,
        "items": items,
        "guide": guide,
        "refuse": refuse,
        "numbers": numbers,
        "shift": shift,
        "tally": tally,
    }


async def coordinate(name: str) -> None:
    telemetry = Telemetry()
    telemetry.subscribe(tell)
    cfg = CoordinatorConfig.load(overrides={"coordinator_id": name})
    coordinator = Coordinator(db=os.environ["FLOWKIT_DB"], cfg=cfg, telemetry=telemetry)
    await coordinator.run_forever()
    say("counts", json.dumps(telemetry.counts))


async def work(name: str) -> None:
    telemetry = Telemetry()
    telemetry.subscribe(tell)
    cfg = WorkerConfig.load(overrides={"worker_id": name})
    pen = Pen(os.environ["LEDGER"])
    worker = Worker(db=os.environ["FLOWKIT_DB"], cfg=cfg, handlers=handlers(pen), telemetry=telemetry)
    await worker.run_forever()
    say("counts", json.dumps(telemetry.counts))


def watch_standard_input() -> None:
    def wait() -> None:
        sys.stdin.read()
        os._exit(3)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    role, own_name = sys.argv[1:]
    watch_standard_input()
    asyncio.run(coordinate(own_name) if role == "coordinator" else work(own_name))
