"""Coordinates tasks on Kafka and MongoDB until Ctrl-C. Start as many as you like; they share the tasks."""

from __future__ import annotations

import asyncio

from settings import MONGO_URL

from flowkit import Coordinator

if __name__ == "__main__":
    print("coordinating", flush=True)
    asyncio.run(Coordinator(db=MONGO_URL).run_forever())
