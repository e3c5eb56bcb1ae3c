"""Runs nodes until Ctrl-C. Start as many as you like; each takes what it has room for."""

from __future__ import annotations

import asyncio

from settings import MONGO_URL

from flowkit import Context, Worker


def split(text: str) -> dict[str, list[str]]:
    return {"words": text.split()}


async def count(words: list[str], ctx: Context) -> dict[str, int]:
    ctx.log.info("attempt %s of %s", ctx.attempt, ctx.node_id)
    await asyncio.sleep(0.1)
    return {"count": len(words)}


def tell(text: str, count: int) -> str:
    return f"{text!r} has {count} words"


if __name__ == "__main__":
    print("working", flush=True)
    asyncio.run(Worker(db=MONGO_URL, handlers=[split, count, tell]).run_forever())
