"""Messages that nobody can read or apply go to `dead.v1` with the reason, and stop nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("aiokafka")
pytest.importorskip("pymongo")

from flowkit import Coordinator, Worker
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


async def step(i: int = 0) -> int:
    return i


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
        results = await asyncio.gather(*(self.two.wait_task(task_id, timeout=20) for task_id in ids))
        assert {result.status for result in results} == {"finished"}
        for part in (self.one, self.two, self.worker):
            assert part.telemetry.counts["LoopFailed"] == 0
            assert part.telemetry.counts["LeaseExpired"] == 0


@pytest.fixture
async def stage(site: Site) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(site.coordinator())
        two = await stack.enter_async_context(site.coordinator())
        worker = await stack.enter_async_context(site.worker([step]))
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
    waiting = [asyncio.ensure_future(c.wait_task(task_id, timeout=20)) for c in (stage.one, stage.two)]
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
        result = await coordinator.wait_task(task_id, timeout=20)
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
        assert (await coordinator.wait_task(task_id, timeout=20)).status == "finished"
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
