"""Creates a task and waits for it, in a process that neither coordinates nor works.

python submit.py "some words"          create it and wait
python submit.py --id TASK             wait for one that was created before
"""

from __future__ import annotations

import asyncio
import sys

from settings import MONGO_URL

from flowkit import Client

GRAPH = {
    "name": "words",
    "nodes": [
        {"node_id": "split", "type": "split"},
        {"node_id": "count", "type": "count", "depends_on": ["split"]},
        {"node_id": "tell", "type": "tell", "inputs": {"text": {"$param": "text"}, "count": {"$from": "count.count"}}},
    ],
}


async def main(arguments: list[str]) -> None:
    async with Client(db=MONGO_URL) as client:
        if arguments[:1] == ["--id"]:
            task = client.task(arguments[1])
        else:
            text = arguments[0] if arguments else "to be or not to be"
            task = client.task(await client.create_task(graph=GRAPH, params={"text": text}))
            print(f"task {task.id}", flush=True)
        result = await task.result(timeout=60)
        print(result.output)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
