"""Tasks whose nodes stream, in a simulated world: what their handlers do, and what must have come of it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from flowkit.errors import StoreUnavailable, TaskNotFound
from flowkit.ports import Block
from flowkit.testing.batches import judge_blocks
from flowkit.testing.faults import plan_faults
from flowkit.testing.world import ProcessDied, Report, World
from flowkit.wire.stream import read_body
from flowkit.worker import Batch, BatchResult, RoleHandler

LAG = 20
LOOK_SEC = 0.05


class Play:
    """One task per graph; `applied` counts how often each batch of a stream reached a handler that reads it."""

    def __init__(self, world: World, graphs: dict[str, tuple[dict[str, Any], Any]]) -> None:
        self.world = world
        self.graphs = graphs
        self.ids: dict[str, str] = {}
        self.wrong: list[str] = []
        self.most_lag = 0
        self.fails: Counter[str] = Counter()
        world.handlers |= {
            "numbers": self.numbers, "named": self.named, "pages": self.pages, "enrich": self.enrich,
            "split": self.split, "window": self.window, "total": self.total, "gather": self.gather,
            **{name: type(name, (kind,), {"play": self}) for name, kind in CLASSES.items()},
        }  # fmt: skip

    # ---- handlers

    async def moment(self, ctx: Any, share: float = 0.004) -> None:
        """Time passes, and sometimes a handler fails: at most twice per node."""
        dice = self.world.stage.dice
        await asyncio.sleep(dice.expovariate(100))
        key = ctx.idempotency_key
        if self.fails[key] < 2 and dice.random() < share:
            self.fails[key] += 1
            raise RuntimeError("as planned")

    async def numbers(self, ctx: Any, n: int) -> AsyncIterator[Any]:
        for i in range(n):
            await self.moment(ctx)
            yield {"n": i}

    async def named(self, ctx: Any, n: int) -> AsyncIterator[Any]:
        """The same files in another order each time, each with its name as its id."""
        files = list(range(n))
        self.world.stage.dice.shuffle(files)
        for i in files:
            await self.moment(ctx)
            yield Batch(batch_uid=f"file-{i}", payload={"n": i})

    async def pages(self, ctx: Any, n: int) -> AsyncIterator[Any]:
        """Goes on by itself where an earlier attempt was."""
        for i in range(ctx.stream.resume_from, n):
            await self.moment(ctx)
            yield {"n": i}

    async def enrich(self, ctx: Any, rows: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for row in rows:
            await self.moment(ctx)
            yield {"n": row["n"] + 1000}

    async def split(self, ctx: Any, rows: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """None, one or two batches of each."""
        async for row in rows:
            for part in range(row["n"] % 3):
                await self.moment(ctx)
                yield {"n": row["n"], "part": part}

    async def window(self, ctx: Any, rows: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Sums of ten, the batches of which it keeps in mind: so it says what it keeps."""
        held: list[int] = ctx.stream.state or []
        async for row in rows:
            await self.moment(ctx)
            held.append(row["n"])
            if len(held) == 10:
                yield {"n": sum(held)}
                held = []
            await ctx.stream.save(held)
        if held:
            yield {"n": sum(held)}

    async def total(self, ctx: Any, rows: AsyncIterator[Any]) -> Any:
        """What comes of all batches, read again from the first on by every attempt."""
        seen = []
        async for row in rows:
            await self.moment(ctx, 0.001)
            seen.append(row["n"])
        return {"count": len(seen), "sum": sum(seen), "in_order": seen == sorted(seen)}

    async def gather(self, ctx: Any, left: AsyncIterator[Any], right: AsyncIterator[Any]) -> Any:
        pairs = 0
        async for one in left:
            other = await anext(aiter(right))
            await self.moment(ctx, 0.001)
            pairs += one["n"] + 1000 == other["n"]
        return pairs

    # ---- what happens

    async def run(self, world: World) -> None:
        plan_faults(world)
        watching = asyncio.ensure_future(self.watch())
        await asyncio.gather(*(self.user(name) for name in self.graphs))
        watching.cancel()

    async def user(self, name: str) -> None:
        graph, expected = self.graphs[name]
        task_id = await self.patiently(lambda api: api.create([creation(graph, name)]))
        self.ids[name] = task_id[0]
        self.world.accepted[task_id[0]] = self.world.stage.now
        result = await self.patiently(lambda api: api.wait(task_id[0]))
        if (result.status, result.output) != ("finished", expected):
            self.wrong.append(f"{name}: {result.status} with {result.output!r}, not {expected!r}: {result.error}")

    async def patiently(self, call: Any) -> Any:
        while True:
            try:
                return await self.world.ask(call)
            except (ProcessDied, StoreUnavailable, TaskNotFound):  # a late read may not see it yet
                await asyncio.sleep(0.5)

    async def watch(self) -> None:
        """How far each node is ahead of those that read it while it runs."""
        while True:
            await asyncio.sleep(LOOK_SEC)
            for name, task_id in self.ids.items():
                self.most_lag = max([self.most_lag, *lags(self.blocks(task_id), self.graphs[name][0])])

    def blocks(self, task_id: str) -> dict[str, list[Block]]:
        of = self.world.replica.majority.data.blocks.get(task_id, {})
        return {stream.node: blocks for stream, blocks in of.items()}

    def judge(self) -> list[str]:
        found = list(self.wrong)
        for name, task_id in self.ids.items():
            for node, blocks in self.blocks(task_id).items():
                found += [f"{name}.{node}: {what}" for what in judge_blocks(blocks)]
        if self.most_lag > LAG:
            found.append(f"a node was {self.most_lag} batches ahead")
        return found


class Source(RoleHandler):
    play: Play

    async def load_input(self, input_ref: Any, input_inline: Any) -> Any:
        return input_inline["n"]

    async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
        for i in range(loaded):
            yield Batch(payload={"n": i})

    async def process_batch(self, batch: Batch, ctx: Any) -> BatchResult:
        await self.play.moment(ctx)
        return BatchResult(success=True, metrics={"n": batch.payload["n"], "items": [batch.payload["n"]] * 3})


class Scale(RoleHandler):
    play: Play

    async def process_batch(self, batch: Batch, ctx: Any) -> BatchResult:
        await self.play.moment(ctx)
        return BatchResult(success=True, metrics={"n": batch.payload["meta"]["n"] + 1000}, output={"one": 1})


class AddUp(Scale):
    async def process_batch(self, batch: Batch, ctx: Any) -> BatchResult:
        await self.play.moment(ctx)
        items = batch.payload.get("items", [batch.payload.get("meta", {}).get("n", 0)])
        return BatchResult(success=True, metrics={"sum": sum(items), "count": len(items)})


CLASSES = {"source": Source, "scale": Scale, "add_up": AddUp}


def creation(graph: dict[str, Any], key: str) -> Any:
    from flowkit.coordinator.creation import Creation

    return Creation(graph, idempotency_key=key)


def lags(blocks: dict[str, list[Block]], graph: dict[str, Any]) -> list[int]:
    found = []
    for reader, source in readings(graph):
        if blocks.get(source):
            mine = blocks.get(reader)
            cursor = read_body(mine[-1].body).mark.cursors.get(source) if mine else None
            found.append(blocks[source][-1].count - (cursor.index if cursor else 0))
    return found


def readings(graph: dict[str, Any]) -> list[tuple[str, str]]:
    """Who reads whom while both run."""
    found = []
    for node in graph["nodes"]:
        if node.get("start_when") == "first_batch":
            for value in node["inputs"].values():
                said = value["$stream"] if isinstance(value, dict) else []
                found += [(node["node_id"], source) for source in ([said] if isinstance(said, str) else said)]
    return found


# ---- graphs

RETRY = {"max": 9, "backoff_sec": 0.5, "lost_max": 99}


def node(name: str, kind: str, inputs: Any, **more: Any) -> dict[str, Any]:
    more = {"stream": {"max_batches": LAG}, "retry_policy": RETRY, **more}
    return {"node_id": name, "type": kind, "inputs": inputs, **more}


def rows(*sources: str) -> dict[str, Any]:
    return {"rows": {"$stream": list(sources)}}


def totals(values: list[int]) -> dict[str, Any]:
    return {"count": len(values), "sum": sum(values), "in_order": values == sorted(values)}


def random_graph(dice: random.Random) -> tuple[dict[str, Any], Any]:
    """A graph, and its task's output."""
    n = dice.randint(5, 120)
    early = {"start_when": "first_batch"} if dice.random() < 0.8 else {}
    source = dice.choice(["numbers", "pages"])
    first = node("first", source, {"n": n})
    match dice.choice(["chain", "split", "window", "fan_out", "fan_in", "pair", "named", "old", "rechunk"]):
        case "chain":
            nodes = [
                first,
                node("second", "enrich", rows("first"), **early),
                node("third", "total", rows("second"), **early),
            ]
            return {"nodes": nodes}, totals([i + 1000 for i in range(n)])
        case "split":
            nodes = [
                first,
                node("second", "split", rows("first"), **early),
                node("third", "total", rows("second"), **early),
            ]
            return {"nodes": nodes}, totals([i for i in range(n) for _ in range(i % 3)])
        case "window":
            nodes = [
                first,
                node("second", "window", rows("first"), **early),
                node("third", "total", rows("second"), **early),
            ]
            return {"nodes": nodes}, totals([sum(range(i, min(n, i + 10))) for i in range(0, n, 10)])
        case "fan_out":
            nodes = [first, node("a", "total", rows("first"), **early), node("b", "enrich", rows("first"), **early)]
            nodes.append(node("c", "total", rows("b"), **early))
            output = {"a": {"$from": "a"}, "c": {"$from": "c"}}
            return {"nodes": nodes, "output": output}, {
                "a": totals([*range(n)]),
                "c": totals([i + 1000 for i in range(n)]),
            }
        case "fan_in":
            nodes = [first, node("other", "numbers", {"n": n}), node("b", "enrich", rows("first", "other"), **early)]
            nodes.append(node("c", "total", rows("b"), **early))
            output = {"count": {"$from": "c.count"}, "sum": {"$from": "c.sum"}}
            return {"nodes": nodes, "output": output}, {"count": 2 * n, "sum": 2 * sum(i + 1000 for i in range(n))}
        case "pair":
            other = node("other", "enrich", rows("first"), **early)
            both = node("both", "gather", {"left": {"$stream": "first"}, "right": {"$stream": "other"}}, **early)
            return {"nodes": [first, other, both]}, n
        case "named":
            nodes = [node("first", "named", {"n": n}), node("second", "total", rows("first"), **early)]
            output = {"count": {"$from": "second.count"}, "sum": {"$from": "second.sum"}}
            return {"nodes": nodes, "output": output}, {"count": n, "sum": sum(range(n))}
        case "old":
            io = {"input_inline": {"input_adapter": "pull.from_artifacts", "input_args": {"from_nodes": ["first"]}}}
            later = {"input_inline": {"input_adapter": "pull.artifacts", "input_args": {"from_node": "second"}}}
            if early:
                io, later = io | early, later | early
            nodes = [node("first", "source", {"n": n}), old("second", "scale", io), old("third", "add_up", later)]
            return {"nodes": nodes}, {"metrics": {"sum": sum(i + 1000 for i in range(n)), "count": n}}
        case _:
            args = {"from_nodes": ["first"], "size": 2, "meta_list_key": "items"}
            io = {"input_inline": {"input_adapter": "pull.from_artifacts.rechunk:size", "input_args": args}}
            nodes = [node("first", "source", {"n": n}), old("second", "add_up", io | early)]
            return {"nodes": nodes}, {"metrics": {"sum": 3 * sum(range(n)), "count": 3 * n}}


def old(name: str, kind: str, io: Any) -> dict[str, Any]:
    return {"node_id": name, "type": kind, "io": io, "stream": {"max_batches": LAG}, "retry_policy": RETRY}


def simulate(seed: int, mode: str = "chaos", *, trace: bool = False) -> tuple[Report, list[str], Play]:
    """One seed's world with streaming tasks: what the checkers of histories and of streams say."""
    world = World(seed, mode=mode, trace=trace, patience_sec=600.0)
    dice = random.Random(f"streams/{seed}")
    play = Play(world, {f"t{number}": random_graph(dice) for number in range(2)})
    report = world.run(play.run)
    return report, play.judge(), play
