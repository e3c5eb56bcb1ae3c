"""One process of the benchmark: `python -m bench.child ROLE SETTINGS`, told what to do by lines of JSON.

`coordinator` runs FlowKit's `Coordinator` and also drives the workloads through it, as a user's app does that embeds
it; `worker` runs `Worker`; `embedded` runs both on one SQLite file; `floor-coordinator` and
`floor-worker` are the floor's.
All settings but addresses and names are FlowKit's defaults.
"""

from __future__ import annotations

import asyncio
import cProfile
import ctypes
import dataclasses
import faulthandler
import gc
import logging
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Protocol

import msgspec

from bench import driver, workloads
from bench.handlers import Naps, handlers
from bench.workloads import Sizes
from flowkit import loop

Command = dict[str, Any]
TROUBLE = ("LoopFailed", "DeadLettered", "Quarantined", "LeaseExpired", "AttemptKilled", "Reloaded")


class Part(Protocol):
    """What runs in a process. `do` answers with what JSON can say."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def do(self, command: Command) -> Any: ...


class CoordinatorPart:
    """A `Coordinator`, and the app that uses it."""

    def __init__(self, coordinator: Any, life: Any) -> None:
        self._coordinator = coordinator
        self._life = life
        self._waiting: tuple[workloads.Workload, list[str]] | None = None
        self._trouble = dict.fromkeys(TROUBLE, 0)

    async def start(self) -> None:
        await self._life.start()

    async def stop(self) -> None:
        await self._life.stop()

    async def do(self, command: Command) -> Any:
        sizes, timeout = msgspec.convert(command.get("sizes", {}), Sizes), command.get("timeout", 60.0)
        match command["do"]:
            case "trim":
                gc.collect()
                ctypes.CDLL(None).malloc_trim(0)
                return None
            case "run":
                work = workloads.simple(command["workload"], sizes)
                return self._answer(await driver.run(self._coordinator, work, timeout))
            case "graph":
                work = workloads.blocks(command["size"])
                return self._answer(await driver.run(self._coordinator, work, timeout))
            case "graph-beside":
                work, chain = workloads.blocks(command["size"]), workloads.chain(sizes.chain)
                return self._answer(await driver.run_beside(self._coordinator, work, chain, timeout))
            case "nap":
                work = workloads.naps(sizes.naps, sizes.nap_sec)
                self._waiting = (work, await driver.create(self._coordinator, work))
                return None
            case "awake":
                assert self._waiting is not None
                results = await driver.wait_all(self._coordinator, *self._waiting, timeout)
                return [result.output for result in results]
        raise ValueError(f"a coordinator cannot {command['do']!r}")

    def _answer(self, sample: driver.Sample) -> dict[str, Any]:
        counts = self._coordinator.telemetry.counts
        new = {name: counts[name] - old for name, old in self._trouble.items() if counts[name] > old}
        self._trouble = {name: counts[name] for name in self._trouble}
        return {**dataclasses.asdict(sample), "trouble": new}


class WorkerPart:
    def __init__(self, worker: Any, naps: Naps) -> None:
        self._worker = worker
        self._naps = naps

    async def start(self) -> None:
        await self._worker.start()

    async def stop(self) -> None:
        await self._worker.stop()

    async def do(self, command: Command) -> Any:
        if command["do"] == "naps":
            due = self._naps.first_due
            return {
                "waiting": self._naps.waiting,
                "first_due_in": None if due is None else due - time.monotonic(),
            }
        raise ValueError(f"a worker cannot {command['do']!r}")


class EmbeddedPart:
    def __init__(self, engine: Any, naps: Naps) -> None:
        self._drive = CoordinatorPart(engine.coordinator, engine)
        self._work = WorkerPart(engine, naps)

    async def start(self) -> None:
        await self._drive.start()

    async def stop(self) -> None:
        await self._drive.stop()

    async def do(self, command: Command) -> Any:
        return await (self._work if command["do"] == "naps" else self._drive).do(command)


class FloorPart:
    def __init__(self, half: Any) -> None:
        self._half = half

    async def start(self) -> None:
        await self._half.start()

    async def stop(self) -> None:
        await self._half.stop()

    async def do(self, command: Command) -> Any:
        if command["do"] != "run":
            raise ValueError(f"the floor cannot {command['do']!r}")
        work = workloads.simple(command["workload"], msgspec.convert(command["sizes"], Sizes))
        return {**dataclasses.asdict(await self._half.run(work, command["timeout"])), "trouble": {}}


def make(role: str, settings: dict[str, str]) -> Part:
    naps = Naps()
    if role == "embedded":
        from flowkit import Embedded

        return EmbeddedPart(Embedded(settings["file"], handlers=handlers(naps)), naps)

    from pymongo import AsyncMongoClient

    database: Any = AsyncMongoClient(settings["mongo"])[settings["database"]]
    if role.startswith("floor"):
        from bench.floor import FloorCoordinator, FloorWorker

        if role == "floor-coordinator":
            return FloorPart(FloorCoordinator(settings["kafka"], database, settings["prefix"]))
        return FloorPart(FloorWorker(settings["kafka"], settings["prefix"]))

    from flowkit import Coordinator, CoordinatorConfig, Worker, WorkerConfig

    where = {"kafka_bootstrap": settings["kafka"], "topic_prefix": settings["prefix"]}
    if role == "coordinator":
        cfg = CoordinatorConfig.load(overrides={**where, "group": f"{settings['prefix']}coordinators"})
        coordinator = Coordinator(db=database, cfg=cfg)
        return CoordinatorPart(coordinator, coordinator)
    worker_cfg = WorkerConfig.load(overrides=where)
    return WorkerPart(Worker(db=database, cfg=worker_cfg, handlers=handlers(naps)), naps)


async def serve(part: Part, out: int) -> None:
    """Answer one line with one line until there are no more."""
    profile: cProfile.Profile | None = None
    try:
        await part.start()
        os.write(out, b'{"ok":"ready"}\n')
        while line := await asyncio.to_thread(sys.stdin.readline):
            command: Command = msgspec.json.decode(line)
            try:
                if command["do"] == "profile":
                    profile, answer = _profile(profile, command.get("to")), None
                else:
                    answer = await part.do(command)
                said = msgspec.json.encode({"ok": answer})
            except Exception:
                said = msgspec.json.encode({"error": traceback.format_exc()})
            _write(out, said + b"\n")
    except Exception:
        _write(out, msgspec.json.encode({"error": traceback.format_exc()}) + b"\n")
    finally:
        await part.stop()


def _profile(running: cProfile.Profile | None, path: str | None) -> cProfile.Profile | None:
    """Begin to profile; or, with a path, end and write it there."""
    if running is None:
        # CPU time of this thread: neither waiting nor whoever else has the cores counts.
        running = cProfile.Profile(time.thread_time)
        running.enable()
        return running
    running.disable()
    if path is not None:
        running.dump_stats(path)
    return None


def _write(out: int, data: bytes) -> None:
    while data:
        data = data[os.write(out, data) :]


def main() -> None:
    role, settings = sys.argv[1], msgspec.json.decode(sys.argv[2], type=dict[str, str])
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    logging.basicConfig(level=logging.WARNING, format=f"{role}: %(levelname)s %(name)s: %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    # Answers go out on a descriptor of their own, whatever somebody prints.
    out = os.dup(1)
    os.dup2(2, 1)

    async def live() -> None:
        await serve(make(role, settings), out)

    if folder := os.environ.get("BENCH_NOTES"):
        from bench import hop_notes

        hop_notes.watch(Path(folder))
    if folder := os.environ.get("BENCH_STRETCHES"):
        from bench import stretches

        stretches.watch(Path(folder))
        asyncio.run(live())
    else:
        loop.run(live())


if __name__ == "__main__":
    main()
