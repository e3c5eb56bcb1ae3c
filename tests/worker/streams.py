"""Attempts that have to do with streams, on a stand: jobs that say so, and what they leave in the store."""

from __future__ import annotations

from typing import Any

from flowkit.core.reports import Failed, Succeeded
from flowkit.ports import Block, Outcome, StreamId
from flowkit.wire.stream import Cursor, Mark, read_body, write_body
from tests.worker.stand import Stand

TASK = "t"


def plan(*, reads: dict[str, list[str]] | None = None, readers: dict[str, bool] | None = None, most: int = 10,
         **more: Any) -> dict[str, Any]:  # fmt: skip
    sources = dict.fromkeys(name for names in (reads or {}).values() for name in names)
    said = {
        "reads": [[name, names] for name, names in (reads or {}).items()],
        "sources": [[name, 0, most] for name in sources],
        "readers": [[name, early] for name, early in (readers or {}).items()],
        "limits": [most, 2**40, 2**40],
    }
    return said | more


def job(stand: Stand, node: str, role: str, stream: Any, inputs: Any = None, attempt: int = 1, **more: Any) -> Any:
    fields = {"task_id": TASK, "node": node, "attempt": attempt, "partition": 0, "stream": stream}
    return stand.job(role, inputs, **(fields | more))


async def run(stand: Stand, *args: Any, **more: Any) -> Any:
    mine = job(stand, *args, **more)
    await stand.send(mine)
    await stand.until(lambda: ended(stand, mine))
    return ended(stand, mine)[0]


def ended(stand: Stand, mine: Any) -> list[Any]:
    reports = [told.report for told in stand.told if getattr(told.report, "token", "") == mine.token]
    return [report for report in reports if isinstance(report, Succeeded | Failed)]


async def blocks(stand: Stand, node: str) -> list[Block]:
    return await stand.store.read_blocks(StreamId(TASK, 0, node), limit=10_000)


async def batches(stand: Stand, node: str) -> list[Any]:
    return [batch for block in await blocks(stand, node) for batch in read_body(block.body).batches]


async def values(stand: Stand, node: str) -> list[Any]:
    return [batch[1] for batch in await batches(stand, node)]


async def write(stand: Stand, node: str, *made: Any, end: bool = True, cursors: Any = None, attempt: int = 1) -> None:
    """A stream as another worker left it."""
    texts = [f'["{place}",{value}]'.encode() for place, value in enumerate(made)]
    mark = Mark("w-else", "i", size=len(made), bytes=len(made), end=[[None], None] if end else None,
                cursors=cursors or {"": Cursor(part=len(made))})  # fmt: skip
    block = Block(StreamId(TASK, 0, node), 1, attempt, len(made), write_body(mark, texts))
    assert await stand.store.insert_block(block) is Outcome.OK


def adapted(name: str, sources: list[str], **args: Any) -> dict[str, Any]:
    return {"adapter": name, "args": args, "sources": [[source, 0, 10] for source in sources]}
