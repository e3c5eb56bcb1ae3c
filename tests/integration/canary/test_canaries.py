"""Secrets planted in tasks of a real cluster are found nowhere, whatever the programs that hold them do."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiokafka")
pytest.importorskip("pymongo")
pytest.importorskip("cryptography")

from deploy.local import KafkaServer, MongoServer
from deploy.local.server import ServiceUnavailable
from flowkit.client import Client
from flowkit.coordinator.views import TaskResult
from flowkit.errors import TicketRefused
from flowkit.ports import SecretUse
from flowkit.secrets.client import SecretClient
from tests.conftest import _cannot_have
from tests.integration.canary import control, places
from tests.integration.canary.canaries import Canaries
from tests.integration.canary.forms import Needles
from tests.integration.canary.house import House, house
from tests.integration.canary.leaks import ENCODED, EVERYDAY, MARK, SPAWNS, SPAWNS_SHAPE, STARTED, Leak, trials, user
from tests.integration.site import Site, database_url, until

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.mongo,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]

APP = """
import flowkit

async def count(rows):
    return [row async for row in rows]

def pass_on(value, ctx: flowkit.Context):
    print(value)
    ctx.log.warning("got %s", value)
    return {"again": value}

def refuse(value):
    raise ValueError(f"cannot use {value}")
"""
FORMS = "".join(f"    yield {name!r}, {expression}\n" for name, expression in ENCODED.items())
HOLDERS = f"""
import base64, html, json, urllib.parse

def forms(s):
    yield "as it is", s
{FORMS}
async def hold(key, ctx: flowkit.Context):
    for name, form in forms(key):
        ctx.log.warning("%s: %s", name, form, form=form, within={{"a": [form]}})
        ctx.progress(1, 2, str(form))
        await ctx.artifacts.put_json({{name: form if isinstance(form, str) else repr(form)}})
        await ctx.artifacts.put_bytes(form if isinstance(form, bytes) else form.encode())
    try:
        raise LookupError(key)
    except LookupError:
        ctx.log.exception("it failed: " + key)
    return {{name: form if isinstance(form, str) else repr(form) for name, form in forms(key)}} | {{key: 1}}

async def stream(key):
    for name, form in forms(key):
        yield [name, form if isinstance(form, str) else repr(form)]

def drop(key):
    raise ValueError("x" * 8180 + " ".join(str(form) for _, form in forms(key)))
"""
ROLES = ("code", "count", "pass_on", "refuse", "hold", "stream", "drop")
AT_ONCE = 12
COVERED_SEC = 90.0
Trial = tuple[Leak | None, str]


def graph_of(leak: Leak | None, shape: str) -> dict[str, Any]:
    """What leaves the program goes on to handlers, which hand it on, and raise it."""
    key = f"CANARY_{shape.upper()}"
    first = user(key) if leak is None else leak.node(key)
    if leak is not None and leak.where in ("error", "nowhere"):
        return {"nodes": [first]}
    name, value = first["node_id"], {"value": {"$from": first["node_id"]}}
    after: list[dict[str, Any]] = [{"node_id": "on", "type": "pass_on", "inputs": value}]
    if leak is not None and leak.where == "batches":
        after.append({"node_id": "count", "type": "count", "inputs": {"rows": {"$stream": name}}})
    refuse = {"node_id": "refuse", "type": "refuse", "inputs": value, "retry_policy": {"max": 1}}
    return {"nodes": [first, *after, refuse], "output": {"value": {"$from": name}}}


async def tried(client: Client, leak: Leak | None, shape: str, canaries: Canaries) -> None:
    """Run a trial to its end, and see that the program held its secret, and that a mark stands where it tried."""
    task_id = await client.create_task(graph=graph_of(leak, shape), params={}, labels={"shape": shape})
    result = await client.wait_task(task_id, timeout=120)
    if leak is None:
        value = canaries.values[shape]
        assert result.outputs["leak"] == hashlib.sha256((value + value).encode()).hexdigest()[:32], result
        return
    if leak.where == "nowhere":
        assert result.status == "failed"
        return
    until = time.monotonic() + COVERED_SEC
    while not await covered(client, leak, result):
        assert time.monotonic() < until, f"{leak.name} ({shape}): no mark in its log"
        await asyncio.sleep(0.2)


async def covered(client: Client, leak: Leak, result: TaskResult) -> bool:
    """Whether there is a mark where the canary was to stand. Log lines come a little later."""
    if leak.where == "log":
        return any([MARK in f"{line.message}{line.fields}" async for line in client.logs(result.task_id, node="leak")])
    view = await client.get_task(result.task_id)
    node = view.nodes["count" if leak.where == "batches" else "leak"]
    said = json.dumps(node.error) if leak.where == "error" else repr(node.output)
    marked = MARK in said  # apart: pytest would compare texts of a megabyte letter by letter
    assert marked, f"{leak.name}: no mark in {said[:2000]} ({node.state}, {str(node.error)[:2000]})"
    return True


async def all_tried(cluster: House, trial: list[Trial], canaries: Canaries) -> None:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(leak: Leak | None, shape: str) -> None:
        async with room:
            await tried(client, leak, shape, canaries)

    async with cluster.client() as client:
        for shape, value in canaries.values.items():
            await client.secrets.set(f"CANARY_{shape.upper()}", value)
        ended = await asyncio.gather(*(one(leak, shape) for leak, shape in trial), return_exceptions=True)
        wrong = [str(error)[:3000] for error in ended if isinstance(error, Exception)]
        assert not wrong, f"{len(wrong)} of {len(trial)} trials:\n" + "\n".join(wrong)
        uses = [row async for row in audited(client)]
    asked = [row for row in uses if row.action == "use"]
    assert len(asked) == len(trial)
    assert {row.outcome for row in asked} == {"ok"}


async def handlers_tried(cluster: House, canaries: Canaries) -> None:
    """The same of handlers, which get their secrets in their inputs."""
    async with cluster.client() as client:
        for shape in canaries.values:
            key = f"CANARY_{shape.upper()}"
            said = {"inputs": {"key": {"$secret": key}}, "secrets": [key], "retry_policy": {"max": 1}}
            nodes = [{"node_id": role, "type": role, **said} for role in ("hold", "stream", "drop")]
            count = {"node_id": "count", "type": "count", "inputs": {"rows": {"$stream": "stream"}}}
            graph = {"nodes": [*nodes, count], "output": {}}
            task_id = await client.create_task(graph=graph, labels={"shape": shape})
            await client.wait_task(task_id, timeout=120)
            view = await client.get_task(task_id)
            states = {name: node.state for name, node in view.nodes.items()}
            assert states == {"hold": "finished", "stream": "finished", "drop": "failed", "count": "finished"}, view
            for name in ("hold", "count"):
                assert MARK in repr(view.nodes[name].output), name
            assert MARK in json.dumps(view.nodes["drop"].error)


async def audited(client: Client) -> Any:
    cursor: str | None = None
    while True:
        page = await client.secrets.audit(limit=1000, cursor=cursor)
        for row in page.rows:
            yield row
        cursor = page.cursor
        if cursor is None:
            return


async def everywhere(site: Site, folder: Path, needles: Needles, *, whole: bool = False) -> places.Hits:
    return {
        **await places.in_topics(site.kafka, "" if whole else site.prefix, needles),
        **await places.in_collections(site.db, needles, whole=whole),
        **await asyncio.to_thread(places.in_files, folder, needles),
    }


def check_processes(table: places.ProcessTable, *, spawned: bool) -> None:
    """Nothing of ours tells anything in the table of processes. What a program starts with the secret among the
    arguments is behind its walls; that it is seen here, from outside, shows that one would be."""
    assert table.looks > 10
    strange = {(one.argument0, one.apart, one.what) for one in table.seen if one.argument0 not in STARTED}
    assert strange == set()
    assert all(one.apart for one in table.seen)
    assert not spawned or {one.what for one in table.seen} >= {"cmdline"}


async def seen(table: places.ProcessTable, again: Callable[[], Awaitable[object]]) -> None:
    """What a program starts with the secret among its arguments lives for half a second. Where the machine has halted
    just then, it is started `again`."""
    for _ in range(5):
        if any(one.what == "cmdline" for one in table.seen):
            return
        await again()


# ------------------------------------------------------------------------------------------ the example, and thieves

SCRIPT = (Path(__file__).parents[3] / "examples" / "node_script.py").read_text()


async def run_example(cluster: House, value: str) -> str:
    """The documented node, as it stands, with an API key that it says in its log; gives the ticket of its attempt, as
    it stands in Kafka."""
    greet = {"node_id": "greet", "type": "code", "code": {"source": SCRIPT}, "secrets": ["API_KEY"]}
    shout = {"node_id": "shout", "type": "pass_on", "inputs": {"value": {"$from": "greet.greeting"}}}
    async with cluster.client() as client:
        await client.secrets.set("API_KEY", value)
        task_id = await client.create_task(graph={"nodes": [greet, shout]}, params={"name": "Ada"})
        result = await client.wait_task(task_id, timeout=60)
        assert result.output == {"again": "hello Ada"}, result
        lines = await until("its log is there", lambda: two_lines(client, task_id), timeout=30)
        assert lines == [f"greeting Ada with {MARK}", "done | Context: letters=9"]
    return task_id


async def two_lines(client: Client, task_id: str) -> list[str]:
    lines = [line.message for line in (await client.list_logs(task_id, node="greet")).lines]
    return lines if len(lines) == 2 else []


async def check_thieves(cluster: House, site: Site, task_id: str) -> None:
    """Whoever reads Kafka has the tickets: they are good for nothing any more, and each try is on record."""
    jobs = [job async for job in places.jobs(site.kafka, site.prefix) if job.task_id == task_id and job.ticket]
    assert [job.node for job in jobs] == ["greet"]
    job = jobs[0]
    worker = re.findall(r"worker (\S+) serves", cluster.log("worker0"))[0]
    use = SecretUse(job.tenant, job.task_id, job.node, job.attempt, job.token, worker)
    tries = {
        "shown by another before": use,
        "is for another attempt: node differ": replace(use, node="other"),
        "is for another attempt: worker differ": replace(use, worker="w-thief"),
        "is for another attempt: tenant differ": replace(use, tenant="acme"),
    }
    for words, asked in tries.items():
        with pytest.raises(TicketRefused, match=words):
            await SecretClient(cluster.manager).values_for(asked, job.ticket)
    with pytest.raises(TicketRefused, match="forged"):
        await SecretClient(cluster.manager).values_for(use, job.ticket[:-2] + "AA")
    async with cluster.client() as client:
        rows = [row async for row in audited(client) if row.outcome == "E_TICKET"]
    assert len(rows) == len(tries)  # that of the other tenant stands in its own record


# ------------------------------------------------------------------------------------------ every day


async def test_canaries_of_programs_that_leak_are_found_nowhere(site: Site, tmp_path: Path) -> None:
    canaries = Canaries()
    needles = Needles(canaries.sought)
    trial: list[Trial] = [*trials(EVERYDAY), (None, "token"), (None, "lines")]

    with house(site, tmp_path, APP + HOLDERS) as cluster, places.ProcessTable(needles) as table:
        await cluster.open(roles=ROLES)
        await all_tried(cluster, trial, canaries)
        await handlers_tried(cluster, canaries)
        await check_thieves(cluster, site, await run_example(cluster, canaries.values["token"]))
        async with cluster.client() as client:
            await seen(table, lambda: tried(client, SPAWNS, SPAWNS_SHAPE, canaries))
        await cluster.close()
    check_processes(table, spawned=True)
    found = await everywhere(site, tmp_path, needles)

    assert {place: hits for place, hits in found.items() if hits} == {}
    said = "".join(cluster.log(part) for part in cluster.parts)
    assert MARK in said

    # And what was planted openly is found in every one of these places, in every form.
    planted = Needles({"control": control.VALUE})
    await control.plant(site, tmp_path)
    found = await everywhere(site, tmp_path, planted)
    found |= await asyncio.to_thread(control.in_processes, planted)
    lacking = {place: control.EVERY_FORM - hits for place, hits in found.items() if control.EVERY_FORM - hits}
    assert lacking == {}
    assert {place.partition(" ")[0] for place in found} == {"topic", "collection", "file", "process"}
    assert {"topic work.v1", "topic facts.v1", "topic events.v1", "topic logs.v1", "collection commits",
            "collection artifacts", "collection audit", "file worker0.log"} <= found.keys()  # fmt: skip


# ------------------------------------------------------------------------------------------ the whole


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[tuple[Site, Path]]:
    """Servers of this test's own, whose files can be read as they are on the disk."""
    data = tmp_path / "servers"
    kafka = KafkaServer(data_dir=data / "kafka")
    mongo = MongoServer(data_dir=data / "mongod")
    try:
        kafka.start()
        mongo.start()
    except ServiceUnavailable as error:
        kafka.close()
        mongo.close()
        _cannot_have("kafka", error)
    yield Site(kafka.address, "canary.", database_url(mongo.url, "flowkit")), data
    kafka.close()
    mongo.close()


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_canaries_in_hundreds_of_tasks_are_found_nowhere_nor_in_the_servers_files(
    own_site: tuple[Site, Path], tmp_path: Path
) -> None:
    site, data = own_site
    folder = tmp_path / "house"
    folder.mkdir()
    canaries = Canaries()
    needles = Needles(canaries.sought)
    leaks: list[Trial] = [*trials()]
    uses: list[Trial] = [(None, ("token", "phrase", "lines", "long", "digits")[n % 5]) for n in range(len(leaks))]
    assert len(leaks) >= 100

    with house(site, folder, APP + HOLDERS) as cluster, places.ProcessTable(needles) as table:
        await cluster.open(roles=ROLES, workers=2)
        await all_tried(cluster, [one for pair in zip(leaks, uses, strict=True) for one in pair], canaries)
        await handlers_tried(cluster, canaries)
        await cluster.close()
    check_processes(table, spawned=True)
    found = await everywhere(site, folder, needles, whole=True)
    found |= await asyncio.to_thread(places.in_files, data, needles, what="server")

    assert {place: hits for place, hits in found.items() if hits} == {}
    print(f"\n{len(leaks)} leaks and {len(uses)} uses; {len(found)} places; {len(table.processes)} processes, "
          f"{table.looks} looks at them; {len(needles)} forms")  # fmt: skip

    planted = Needles({"control": control.VALUE})
    await control.plant(site, folder)
    found = await asyncio.to_thread(places.in_files, data, planted, what="server")
    raw = {place.split("/")[0] for place, hits in found.items() if ("control", "raw") in hits}
    assert raw == {"server kafka", "server mongod"}


async def test_on_one_file_canaries_are_not_in_it_either(tmp_path: Path) -> None:
    """`flowkit run`: a coordinator, a worker and the secret manager in one process."""
    canaries = Canaries()
    needles = Needles(canaries.sought)
    nodes = []
    for number, (leak, shape) in enumerate(trials(EVERYDAY)):
        nodes.append(leak.node(f"CANARY_{shape.upper()}") | {"node_id": f"leak{number}", "continue_on_failure": True})
    (tmp_path / "graph.json").write_text(json.dumps({"nodes": nodes}))
    (tmp_path / "spawns.json").write_text(json.dumps({"nodes": [SPAWNS.node(f"CANARY_{SPAWNS_SHAPE.upper()}")]}))
    home = tmp_path / "tmp"
    home.mkdir()
    words = ["--db", str(tmp_path / "flow.db")]
    said = await flowkit(tmp_path, "secrets", "set", "CANARY_TOKEN", *words, stdin=canaries.values["token"])
    assert said.returncode == 0, said.stderr
    async with Client(db=tmp_path / "flow.db") as client:
        for shape, value in canaries.values.items():
            await client.secrets.set(f"CANARY_{shape.upper()}", value)

    with places.ProcessTable(needles) as table:
        ran = await flowkit(tmp_path, "run", "graph.json", *words, "--json")
        await seen(table, lambda: flowkit(tmp_path, "run", "spawns.json", *words))
    (tmp_path / "said").write_text(ran.stdout + ran.stderr)

    assert MARK in ran.stdout + ran.stderr
    check_processes(table, spawned=True)
    found = await asyncio.to_thread(places.in_files, tmp_path, needles)
    assert {place: hits for place, hits in found.items() if hits} == {}
    assert {"file flow.db", "file said"} <= found.keys()


async def flowkit(folder: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    import sys

    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWKIT_", "KAFKA_"))}
    own = {"TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    return await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "flowkit", *words], input=stdin, capture_output=True, text=True,
        cwd=folder, env=kept | own, timeout=120,
    )  # fmt: skip
