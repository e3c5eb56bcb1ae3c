"""Messages that nobody can read or apply go to `dead.v1` with the reason, and stop nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiokafka")
pytest.importorskip("pymongo")

import flowkit
from flowkit import Coordinator, Worker
from flowkit.adapters.mongo import MongoStore
from flowkit.errors import Corrupt
from flowkit.ports import Commit
from flowkit.wire.codec import dumps
from flowkit.wire.messages import Heartbeat, Held, Job, encode_message
from flowkit.wire.topics import EVENT_PARTITIONS, FLEET_PARTITIONS, WORK_PARTITIONS, partition_of
from tests.integration.harness.puppet import Puppet, Stranger
from tests.integration.site import Site, until

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.mongo,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]

UNREADABLE = {
    "null": None,
    "empty": b"",
    "no JSON": b"not JSON",
    "bad UTF-8": b'["\xff\xfe"]',
    "NaN": b"[NaN]",
    "70 KB": b'["' + b"x" * 70_000 + b'"]',
    "depth 1,000": b"[" * 1_000 + b"]" * 1_000,
    "depth 20,000": b"[" * 20_000 + b"]" * 20_000,
    "objects of depth 1,000": b'{"a":' * 1_000 + b"1" + b"}" * 1_000,
    "a number": b"17",
    "an object": b"{}",
    "too short": b"[1]",
    "wrong types": b'[1,2,3,"four",5]',
    "newer version": b"[99,[],[],[],[]]",
    "huge version": b"[" + b"9" * 400 + b",1,1,1,[]]",
}


# As large as a broker takes: with a letter's headers they would be larger.
MONSTER = 1_040_000


async def step(i: int = 0) -> int:
    return i


async def odd(i: int) -> Any:
    """One of a hundred gives what no JSON can say."""
    return object() if i == 50 else i


@dataclass
class Stage:
    one: Coordinator
    two: Coordinator
    worker: Worker
    puppet: Puppet
    stranger: Stranger

    async def still_works(self) -> None:
        """Every part does its work, and no loop of any has failed."""
        ids = [await c.create_task(graph=steps(5)) for c in (self.one, self.two) for _ in range(8)]
        results = await asyncio.gather(*(self.two.wait_task(task_id, timeout=60) for task_id in ids))
        assert {result.status for result in results} == {"finished"}
        for part in (self.one, self.two, self.worker):
            assert part.telemetry.counts["LoopFailed"] == 0
            assert part.telemetry.counts["LeaseExpired"] == 0


@pytest.fixture
async def stage(site: Site) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(site.coordinator())
        two = await stack.enter_async_context(site.coordinator())
        worker = await stack.enter_async_context(site.worker([step, odd]))
        puppet = await stack.enter_async_context(Puppet(site, "pulled"))
        stranger = await stack.enter_async_context(Stranger(site))
        owned = (lambda: one.runtime.engine.owned, lambda: two.runtime.engine.owned)
        await until("they share the partitions", lambda: all(o() for o in owned) and not owned[0]() & owned[1]())
        yield Stage(one, two, worker, puppet, stranger)


def steps(width: int, role: str = "step") -> dict[str, Any]:
    return {"nodes": [{"node_id": f"n{i}", "type": role, "inputs": {"i": i}} for i in range(width)]}


# ------------------------------------------------------------------------------------------ whole records


async def test_unreadable_records_of_facts_are_buried_and_reading_goes_on(stage: Stage) -> None:
    await bury_all(stage, stage.one.runtime.topics.facts, range(8), {}, copies=1)
    await stage.still_works()
    dead = len(stage.stranger.dead)
    await stage.stranger.look()
    assert len(stage.stranger.dead) == dead == 8 * len(UNREADABLE), "each once"


async def test_unreadable_records_of_fleet_are_buried_by_each_coordinator(stage: Stage) -> None:
    strange = {
        "unknown type": b'{"type":"sing"}',
        "no type": b'{"worker":"w"}',
        "wrong types": b'{"type":"heartbeat","worker":7,"incarnation":[],"roles":"x","slots":"many","mono":"now"}',
    }
    await bury_all(stage, stage.one.runtime.topics.fleet, range(FLEET_PARTITIONS), strange, copies=2)
    await stage.still_works()


async def test_unreadable_records_of_control_are_buried_by_the_workers(stage: Stage) -> None:
    await bury_all(stage, stage.one.runtime.topics.control, range(1), {"unknown type": b'{"type":"sing"}'}, copies=1)
    await stage.still_works()


async def test_unreadable_records_of_work_are_buried_by_the_worker_that_they_are_for(stage: Stage) -> None:
    me = stage.worker.worker_id
    strange = {
        "another's, under this key": json.dumps([1, "somebody", "i", "c", []]).encode(),
        "newer version": json.dumps([99, me, "i", "c", []]).encode(),
    }
    partition = partition_of(me, WORK_PARTITIONS)
    topic = stage.one.runtime.topics.work
    await bury_all(stage, topic, range(partition, partition + 1), strange, copies=1, key=me.encode())
    # Those for nobody are nobody's business.
    for value in UNREADABLE.values():
        await stage.stranger.write(topic, partition, value, b"somebody")
        await stage.stranger.write(topic, partition, value)
    await stage.still_works()
    dead = len(stage.stranger.dead)
    await stage.stranger.look()
    assert len(stage.stranger.dead) == dead


async def test_unreadable_records_of_events_and_dead_stop_nobody_who_listens(stage: Stage) -> None:
    graph = {"nodes": [{"node_id": "n", "type": "pulled", "inputs": {}}]}
    task_id = await stage.one.create_task(graph=graph)
    job = await stage.puppet.job(task_id)
    waiting = [asyncio.ensure_future(c.wait_task(task_id, timeout=60)) for c in (stage.one, stage.two)]
    await asyncio.sleep(0.5)  # both listen by now, one of them through the topic

    topics = stage.one.runtime.topics
    for value in [*UNREADABLE.values(), b'{"task_id":7}']:
        for partition in range(EVENT_PARTITIONS):
            await stage.stranger.write(topics.events, partition, value)
            await stage.stranger.write(topics.events, partition, value, task_id.encode())
            await stage.stranger.write(topics.events, partition, value, b"\xff\xfe")
        await stage.stranger.write(topics.dead, 0, value)

    await stage.stranger.write(topics.facts, job.partition, batch(stage.puppet, stage.puppet.success(job, 1)))
    assert [result.output for result in await asyncio.gather(*waiting)] == [1, 1]
    await stage.still_works()


async def bury_all(
    stage: Stage, topic: str, partitions: range, more: dict[str, bytes], *, copies: int, key: bytes | None = None
) -> None:
    written = []
    for name, value in {**UNREADABLE, **more}.items():
        for partition in partitions:
            written.append((name, value, partition, await stage.stranger.write(topic, partition, value, key)))
    for name, value, partition, offset in written:
        letters = await stage.stranger.buried(topic, partition, offset, copies=copies)
        assert len(letters) == copies, name
        assert all(letter["reason"] for letter in letters), name
        kept = [message for message in stage.stranger.dead if ("offset", str(offset).encode()) in message.headers]
        assert any(message.value == value for message in kept), f"{name}: as it was found"


def batch(puppet: Puppet, *items: Any, version: int = 1) -> bytes:
    return json.dumps(puppet.envelope(items, version)).encode()


async def test_monsters_hold_up_neither_each_other_nor_the_letters_behind_them(stage: Stage) -> None:
    topics, me = stage.one.runtime.topics, stage.worker.worker_id.encode()
    work = partition_of(stage.worker.worker_id, WORK_PARTITIONS)
    places = [(topics.facts, 0, None), (topics.fleet, 0, None), (topics.control, 0, None), (topics.work, work, me)]
    for topic, partition, key in places:
        copies = 2 if topic == topics.fleet else 1
        written = [await stage.stranger.write(topic, partition, b"\xff" * MONSTER, key)]
        if key is None:
            written.append(await stage.stranger.write(topic, partition, b"no JSON", b"\xff" * MONSTER))
        written.append(await stage.stranger.write(topic, partition, b"no JSON", key))
        for offset in written:
            assert len(await stage.stranger.buried(topic, partition, offset, copies=copies)) == copies, topic
    await stage.still_works()


# ------------------------------------------------------------------------------------------ one among many


async def pulled(stage: Stage, width: int) -> tuple[str, list[Any]]:
    """A task of so many nodes, all with the puppet; what it has to say of each."""
    task_id = await stage.one.create_task(graph=steps(width, "pulled"))
    await until(
        "all are with the puppet", lambda: len({j.node for j in stage.puppet.jobs if j.task_id == task_id}) == width
    )
    jobs = sorted((job for job in stage.puppet.jobs if job.task_id == task_id), key=lambda job: int(job.node[1:]))
    return task_id, [stage.puppet.success(job, int(job.node[1:])) for job in jobs]


async def finished(stage: Stage, task_id: str, width: int) -> None:
    for coordinator in (stage.one, stage.two):
        result = await coordinator.wait_task(task_id, timeout=60)
        assert result.status == "finished", result.error
        assert result.outputs == {f"n{i}": i for i in range(width)}


async def test_a_record_that_is_no_json_costs_its_99_neighbours_nothing(stage: Stage) -> None:
    task_id, items = await pulled(stage, 99)
    partition, facts = partition_of(task_id, 8), stage.one.runtime.topics.facts
    records = [batch(stage.puppet, item) for item in items]
    records.insert(50, b"} no JSON {")
    offsets = [await stage.stranger.write(facts, partition, value) for value in records]
    await finished(stage, task_id, 99)
    (letter,) = await stage.stranger.buried(facts, partition, offsets[50])
    assert "JSON" in letter["reason"]
    assert len(stage.stranger.dead) == 1
    await stage.still_works()


async def test_an_item_that_nobody_understands_costs_the_99_others_of_its_record_nothing(stage: Stage) -> None:
    task_id, items = await pulled(stage, 99)
    partition, facts = partition_of(task_id, 8), stage.one.runtime.topics.facts
    for place, item in enumerate([17, None, [task_id], [task_id, "default", ["succeeded"]], [1, 2, 3], {"a": 1}]):
        items.insert(15 * place, item)
    offset = await stage.stranger.write(facts, partition, batch(stage.puppet, *items))
    await finished(stage, task_id, 99)
    letters = await stage.stranger.buried(facts, partition, -1, copies=6)
    assert len(letters) == 6
    assert offset >= 0
    await stage.still_works()


async def test_a_result_of_70_kb_that_should_have_been_a_reference_costs_its_99_neighbours_nothing(
    stage: Stage,
) -> None:
    task_id, items = await pulled(stage, 100)
    partition, facts = partition_of(task_id, 8), stage.one.runtime.topics.facts
    large = json.dumps(items[50]).replace("[50]", json.dumps(["x" * 70_000]))
    assert len(large) > 70_000
    records = [batch(stage.puppet, item) for item in items]
    records[50] = batch(stage.puppet, json.loads(large))
    offsets = [await stage.stranger.write(facts, partition, value) for value in records]
    (letter,) = await stage.stranger.buried(facts, partition, offsets[50])
    assert "bytes" in letter["reason"]
    await until("the 99 are applied", lambda: applied(stage, task_id, 99))

    await stage.stranger.write(facts, partition, batch(stage.puppet, items[50]))
    await finished(stage, task_id, 100)
    assert len(stage.stranger.dead) == 1
    await stage.still_works()


async def applied(stage: Stage, task_id: str, count: int) -> bool:
    view = await stage.one.get_task(task_id)
    return sum(node.state == "finished" for node in view.nodes.values()) == count


async def test_what_a_handler_gives_that_is_no_json_fails_its_node_alone(stage: Stage) -> None:
    await one_of_a_hundred(stage.one)
    await stage.stranger.look()
    assert stage.stranger.dead == [], "the worker says so itself: nobody had to be told what nobody can read"
    await stage.still_works()


async def test_embedded_too_what_a_handler_gives_that_is_no_json_fails_its_node_alone(tmp_path: Path) -> None:
    async with flowkit.Embedded(tmp_path / "flow.db", handlers=[step, odd]) as engine:
        await one_of_a_hundred(engine.coordinator)


async def one_of_a_hundred(coordinator: Coordinator) -> None:
    graph = steps(100, "odd")
    for node in graph["nodes"]:
        node["retry_policy"] = {"max": 1}
    result = await coordinator.wait_task(await coordinator.create_task(graph=graph), timeout=60)
    view = await coordinator.get_task(result.task_id)
    states = {name: node.state for name, node in view.nodes.items()}
    assert states == {f"n{i}": "failed" if i == 50 else "finished" for i in range(100)}
    assert {name: node.output for name, node in view.nodes.items() if name != "n50"} == {
        f"n{i}": i for i in range(100) if i != 50
    }
    assert "JSON" in str(view.nodes["n50"].error), view.nodes["n50"].error


# ------------------------------------------------------------------------------------------ what may not be applied


async def test_a_report_in_another_tenants_name_changes_nothing(stage: Stage) -> None:
    task_id, (item,) = await pulled(stage, 1)
    partition, facts = partition_of(task_id, 8), stage.one.runtime.topics.facts
    await stage.stranger.write(facts, partition, batch(stage.puppet, [item[0], "intruder", item[2]]))
    (letter,) = await stage.stranger.about(task_id)
    assert "tenant" in letter["reason"]
    assert (await stage.one.get_task(task_id)).status == "running"

    await stage.stranger.write(facts, partition, batch(stage.puppet, item))
    await finished(stage, task_id, 1)


async def test_a_report_about_a_task_that_does_not_exist_is_buried(stage: Stage) -> None:
    task_id, (item,) = await pulled(stage, 1)
    facts = stage.one.runtime.topics.facts
    for partition in range(8):
        await stage.stranger.write(facts, partition, batch(stage.puppet, [f"nobody-{partition}", "default", item[2]]))
    for partition in range(8):
        (letter,) = await stage.stranger.about(f"nobody-{partition}")
        assert "no such task" in letter["reason"]
    await stage.stranger.write(facts, partition_of(task_id, 8), batch(stage.puppet, item))
    await finished(stage, task_id, 1)
    await stage.still_works()


async def test_a_report_in_a_partition_of_another_owner_is_buried_and_makes_nobody_an_owner(stage: Stage) -> None:
    task_id, (item,) = await pulled(stage, 1)
    mine, facts = partition_of(task_id, 8), stage.one.runtime.topics.facts
    owner, other = stage.one.runtime.engine, stage.two.runtime.engine
    if mine in other.owned:
        owner, other = other, owner
    astray = min(other.owned)
    for row in (item, [task_id, "default", ["knock", "new"]]):
        await stage.stranger.write(facts, astray, batch(stage.puppet, row))
        (letter, *_) = await stage.stranger.about(task_id)
        assert f"belongs to partition {mine}" in letter["reason"]
        assert task_id not in other.cells
    assert (await stage.one.get_task(task_id)).status == "running"

    await stage.stranger.write(facts, mine, batch(stage.puppet, item))
    await finished(stage, task_id, 1)
    await stage.still_works()


async def test_work_that_a_newer_version_sends_is_kept_and_what_stands_beside_it_is_done(stage: Stage) -> None:
    """A worker believes what it is sent: of a task that is not, or in another tenant's name, it is the result that
    nobody takes."""
    task_id, (item,) = await pulled(stage, 1)
    me = stage.worker.worker_id
    known = [job_of(stage, task_id, "intruder"), job_of(stage, "nobody", "default")]
    rows = [["teleport", "n0"], *json.loads(dumps(known)), 17]
    incarnation = stage.one.runtime.fleet.workers[me].incarnation
    value = json.dumps([1, me, incarnation, "c", rows]).encode()
    offset = await stage.stranger.write(
        stage.one.runtime.topics.work, partition_of(me, WORK_PARTITIONS), value, me.encode()
    )
    letters = await stage.stranger.buried(
        stage.one.runtime.topics.work, partition_of(me, WORK_PARTITIONS), offset, copies=2
    )
    assert all("not work" in letter["reason"] for letter in letters)
    (letter,) = await stage.stranger.about("nobody")
    assert "no such task" in letter["reason"]
    (letter,) = await stage.stranger.about(task_id)
    assert "tenant" in letter["reason"]

    await stage.stranger.write(stage.one.runtime.topics.facts, partition_of(task_id, 8), batch(stage.puppet, item))
    await finished(stage, task_id, 1)
    await stage.still_works()


def job_of(stage: Stage, task_id: str, tenant: str) -> Job:
    token = f"k-{task_id}-{tenant}"
    return Job(task_id, tenant, "me", partition_of(task_id, 8), "n0", "step", 1, token, 0, 1e12, {"i": 1})


async def test_heartbeats_that_name_what_is_not_theirs_change_nothing(stage: Stage) -> None:
    task_id, (item,) = await pulled(stage, 1)
    topics, job = stage.one.runtime.topics, stage.puppet.jobs[0]
    mine = job.partition
    strange = [
        Held("forged", task_id, "default", mine, "n0", 1),
        Held("forged", task_id, "intruder", mine, "n0", 1),
        Held("forged", task_id, "default", mine, "n0", 10**9),
        Held("forged", task_id, "default", mine, "no such node", 1),
        Held(job.token, task_id, "intruder", mine, "n0", 1),
        *(Held("forged", task_id, "default", partition, "n0", 1) for partition in (*range(-1, 9), 10**6)),
        *(Held("forged", "nobody", "default", partition, "n0", 1) for partition in range(8)),
    ]
    for partition in range(FLEET_PARTITIONS):
        for mono in (1.0, 5.0, 1e9):
            for held in strange:
                beat = Heartbeat("ghost", "i", [], 0, mono, [held], whole=True)
                await stage.stranger.write(topics.fleet, partition, encode_message(beat), b"ghost")
    await stage.still_works()
    assert (await stage.one.get_task(task_id)).status == "running"
    await stage.stranger.write(topics.facts, mine, batch(stage.puppet, item))
    await finished(stage, task_id, 1)
    await stage.still_works()


async def test_a_task_that_a_newer_version_wrote_on_is_left_to_it_and_costs_nobody_else(
    stage: Stage, site: Site
) -> None:
    task_id, (item,) = await pulled(stage, 1)
    store = MongoStore(site.db)
    await store.start()
    last = (await store.read_commits([task_id]))[-1]
    newer = Commit(task_id, last.seq + 1, "newer-1", last.id, last.at + 1, "newer", '[["teleported","n0",1]]')
    await store.insert_commits([newer])

    await stage.stranger.write(stage.one.runtime.topics.facts, partition_of(task_id, 8), batch(stage.puppet, item))

    for coordinator in (stage.one, stage.two):
        await until("it says why it shows nothing", lambda c=coordinator: refused(c, task_id, "teleported"))
    await stage.still_works()
    assert [commit.id for commit in await store.read_commits([task_id])][-1] == "newer-1", "nobody wrote on after it"
    await store.stop()


async def refused(coordinator: Coordinator, task_id: str, why: str) -> bool:
    try:
        await coordinator.get_task(task_id)
    except Corrupt as error:
        return "quarantined" in str(error) and why in str(error)
    return False


async def test_names_that_no_store_can_look_for_stop_nobody(stage: Stage) -> None:
    """JSON can say a lone surrogate, UTF-8 cannot: asked for such a task, a database gives no answer at all."""
    task_id, (item,) = await pulled(stage, 1)
    partition, facts = partition_of(task_id, 8), stage.one.runtime.topics.facts
    strange = [["no\ud800body", "default", item[2]], [task_id, "no\ud800body", item[2]], ["\x00", "default", item[2]]]
    strange += [["\udfff", "default", ["knock", what]] for what in ("new", "request", "\ud800")]
    for row in strange:
        await stage.stranger.write(facts, partition, batch(stage.puppet, row))
    await stage.still_works()
    await stage.stranger.buried(facts, partition, -1, copies=5)
    await stage.stranger.write(facts, partition, batch(stage.puppet, item))
    await finished(stage, task_id, 1)


async def test_what_a_newer_version_says_is_kept_for_one_that_understands_it(stage: Stage) -> None:
    task_id, (item,) = await pulled(stage, 1)
    partition, facts = partition_of(task_id, 8), stage.one.runtime.topics.facts
    await stage.stranger.write(facts, partition, batch(stage.puppet, [task_id, "default", ["teleported", "n0", 1]]))
    (letter,) = await stage.stranger.about(task_id)
    assert "teleported" in letter["reason"]

    offset = await stage.stranger.write(facts, partition, batch(stage.puppet, item, version=2))
    (letter,) = await stage.stranger.buried(facts, partition, offset)
    assert "version 2" in letter["reason"]
    assert (await stage.one.get_task(task_id)).status == "running"

    await stage.stranger.write(facts, partition, batch(stage.puppet, item))
    await finished(stage, task_id, 1)


@pytest.mark.parametrize("depth", [100, 500, 900, 980, 1_000, 3_000])
async def test_an_output_of_any_depth_is_applied_or_refused_but_never_spoils_its_task(stage: Stage, depth: int) -> None:
    task_id, (item,) = await pulled(stage, 1)
    partition, facts = partition_of(task_id, 8), stage.one.runtime.topics.facts
    row = json.dumps(item)
    assert row.count("[0]") == 1
    deep = row.replace("[0]", "[" + "[" * depth + "0" + "]" * depth + "]")
    value = json.dumps(stage.puppet.envelope([])).replace("[]]", f"[{deep}]]").encode()
    await stage.stranger.write(facts, partition, value)

    async def settled() -> bool:
        await stage.stranger.look()
        return bool(stage.stranger.dead) or (await stage.one.get_task(task_id)).status == "finished"

    await until("it is applied or buried", settled)
    if stage.stranger.dead:
        await stage.stranger.write(facts, partition, batch(stage.puppet, item))
    for coordinator in (stage.one, stage.two):
        assert (await coordinator.wait_task(task_id, timeout=60)).status == "finished"
        assert (await coordinator.get_task(task_id)).status == "finished"
        assert [event.type async for event in coordinator.watch(task_id)][-1] == "ended"
    await stage.still_works()


async def test_reports_that_lie_change_nothing(stage: Stage) -> None:
    """Of a node that is not there, of attempts that were not, with tokens that are not, of types that are wrong."""
    task_id, (item,) = await pulled(stage, 1)
    partition, facts = partition_of(task_id, 8), stage.one.runtime.topics.facts
    tag, node, attempt, token, *rest = item[2]
    lies = [
        [tag, "n9", attempt, token, *rest],
        [tag, "", attempt, token, *rest],
        [tag, node, attempt + 7, token, *rest],
        [tag, node, 0, token, *rest],
        [tag, node, -1, token, *rest],
        [tag, node, 10**30, token, *rest],
        [tag, node, "1", token, *rest],
        [tag, node, attempt, "forged", *rest],
        [tag, node, attempt, None, *rest],
        [tag, None, attempt, token, *rest],
        [tag, ["n0"], attempt, token, *rest],
        [tag, {"n0": 1}, attempt, token, *rest],
        [tag, node, attempt, token, *rest, "more", "and more"],
    ]
    for lie in lies[:-1]:
        await stage.stranger.write(facts, partition, batch(stage.puppet, [task_id, "default", lie]))
    await stage.still_works()
    await asyncio.sleep(2)  # a report of a later attempt makes the owner look again, a few times
    assert (await stage.one.get_task(task_id)).status == "running"
    await stage.stranger.write(facts, partition, batch(stage.puppet, item))
    await finished(stage, task_id, 1)
    await stage.still_works()
