"""The control: a canary that is planted openly, in all forms, wherever the others are looked for."""

from __future__ import annotations

import base64
import html
import json
import os
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

from tests.integration.canary import places
from tests.integration.canary.canaries import phrase
from tests.integration.canary.forms import Needles, forms_of
from tests.integration.site import Site

VALUE = phrase()
WAIT_SEC = 10.0

WRITTEN = [
    VALUE,
    base64.b64encode(VALUE.encode()).decode(),
    base64.b64encode(b"x" + VALUE.encode() + b"z").decode(),
    base64.urlsafe_b64encode(b"xy" + VALUE.encode() + b"z").decode(),
    VALUE.encode().hex(),
    quote(VALUE),
    json.dumps(VALUE),
    repr(VALUE),
    html.escape(VALUE),
]
EVERY_FORM = {("control", encoding) for encoding in forms_of(VALUE)}


async def plant(site: Site, folder: Path) -> None:
    """Put it into every topic (keys, headers and values in turn), every collection, and a file of each kind."""
    await _in_topics(site)
    await _in_collections(site)
    for path in [*folder.rglob("*")]:
        if path.is_file():
            with path.open("a") as file:
                file.write("\n".join(["", *WRITTEN]))


async def _in_topics(site: Site) -> None:
    from aiokafka import AIOKafkaProducer

    topics = await places.partitions(site.kafka, site.prefix)
    async with AIOKafkaProducer(bootstrap_servers=site.kafka, acks="all") as producer:
        for topic in topics:
            for number, text in enumerate(WRITTEN):
                data = text.encode()
                parts = [(data, b"-", []), (b"-", data, []), (b"-", b"-", [("x", data)])][number % 3]
                await producer.send_and_wait(topic, key=parts[0], value=parts[1], headers=parts[2])


async def _in_collections(site: Site) -> None:
    from pymongo import AsyncMongoClient

    async with AsyncMongoClient(site.db, serverSelectionTimeoutMS=10_000) as client:
        database = client.get_default_database()
        for name in await database.list_collection_names():
            await database[name].insert_one({"_id": "control", "written": WRITTEN})
        await client.admin.command("fsync")


def in_processes(needles: Needles) -> places.Hits:
    """A process that has it among its arguments, and one that has it among its variables."""
    hits: places.Hits = {}
    for what, words, variables in (
        ("cmdline", ["sh", "-c", "sleep 30", *WRITTEN], {}),
        ("environ", ["sh", "-c", "sleep 30"], {f"V{n}": text for n, text in enumerate(WRITTEN)}),
    ):
        with places.ProcessTable(needles) as table, subprocess.Popen(words, env=os.environ | variables) as process:
            try:
                until = time.monotonic() + WAIT_SEC
                while table.looks < 3 and time.monotonic() < until:
                    os.sched_yield()
            finally:
                process.kill()
        hits[f"process {what}"] = {(one.canary, one.encoding) for one in table.seen if one.what == what}
    return hits
