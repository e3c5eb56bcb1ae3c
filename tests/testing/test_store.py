"""The simulated store: majority or nothing, unknown outcomes that happen later or never, fail-overs that take back."""

from __future__ import annotations

import asyncio

import pytest

from flowkit.errors import StoreUnavailable
from flowkit.ports import FlowTag, FlowVersion, Head, HeadUpdate, Outcome, Renewal, Request
from flowkit.testing.machine import MONGO
from tests.testing.stages import Set, commit


def head(task_id: str = "t") -> Head:
    return Head(task_id, 0, "g")


def update(seq: int) -> HeadUpdate:
    return HeadUpdate("t", "running", seq, 0, True, None, 0.0)


def test_in_calm_it_is_a_store_like_any_other() -> None:
    scene = Set()
    store = scene.store(scene.machine("C0"))

    async def play() -> None:
        assert await store.insert_heads([head(), head()]) == [Outcome.OK, Outcome.DUPLICATE]
        assert await store.insert_commits([commit(1), commit(2)]) == [Outcome.OK, Outcome.OK]
        assert await store.update_heads([update(1), update(1)]) == [Outcome.OK, Outcome.NO_MATCH]
        assert [c.id for c in await store.read_commits(["t"], after=1)] == ["c2"]
        assert [h.seq for h in await store.active_heads(0, limit=5)] == [1]
        assert await store.insert_request(Request("t", 1, "r", "cancel", "{}", 0, "d", "l", 0.0)) is Outcome.OK
        assert len(await store.open_requests({0}, limit=5)) == 1
        assert await store.mark_applied([("t", 1)]) is Outcome.OK
        assert [r.applied for r in await store.read_requests("t")] == [True]
        await store.put_blob("g", b"data", kind="graph")
        assert await store.get_blob("g", kind="graph") == b"data"
        with pytest.raises(KeyError):
            await store.get_blob("x", kind="graph")
        version, tag = FlowVersion("d", "f", 1, "g", 0.0, "l"), FlowTag("d", "f", "default", 1, 1, 0.0, "l")
        assert await store.insert_flow_version(version) is Outcome.OK
        assert await store.insert_flow_version(version) is Outcome.DUPLICATE
        assert await store.flow_versions("d", "f", limit=9) == await store.newest_flows("d", limit=9) == [version]
        assert await store.put_flow_tag(tag) is Outcome.OK
        assert await store.put_flow_tag(tag) is Outcome.NO_MATCH
        assert await store.flow_tags("d", ["f"]) == [tag]
        assert await store.renew(Renewal("W0", "i", 1, ("a",))) is Outcome.OK
        assert (await store.read_renewal("W0")) == Renewal("W0", "i", 1, ("a",))

    scene.play(play)

    assert scene.replica.acknowledged == {("t", 1, "c1"), ("t", 2, "c2")}
    assert 0 < scene.stage.now < 1


def test_over_a_cut_link_reads_fail_and_writes_are_unknown() -> None:
    scene = Set()
    machine = scene.machine("C0")
    store = scene.store(machine)

    async def play() -> None:
        machine.cut(MONGO, 100.0, one_way=False)
        assert await store.insert_commits([commit(1)]) == [Outcome.UNKNOWN]
        assert scene.stage.now == pytest.approx(2.5)
        with pytest.raises(StoreUnavailable):
            await store.read_commits(["t"])
        with pytest.raises(StoreUnavailable):
            await store.put_blob("g", b"", kind="graph")

    scene.play(play)

    assert scene.replica.primary.data.commits == {}


def test_over_a_link_that_is_cut_one_way_the_write_happens() -> None:
    scene = Set()
    machine = scene.machine("C0")
    store = scene.store(machine)

    async def play() -> None:
        machine.cut(MONGO, 100.0, one_way=True)
        assert await store.insert_commits([commit(1)]) == [Outcome.UNKNOWN]

    scene.play(play)

    assert scene.replica.majority.data.commits["t"][1].id == "c1"
    assert scene.replica.acknowledged == set()


def test_a_write_that_no_majority_holds_is_not_read_and_may_be_rolled_back() -> None:
    scene = Set()
    store = scene.store(scene.machine("C0"))

    async def play() -> list[Outcome]:
        scene.replica.slow_until = 50.0
        writing = asyncio.ensure_future(store.insert_commits([commit(1)]))
        await asyncio.sleep(0.1)
        assert scene.replica.primary.data.commits["t"][1].id == "c1"
        assert await store.read_commits(["t"]) == []
        # A second writer is refused by a document that nobody can read.
        other = asyncio.ensure_future(store.insert_commits([commit(1, "other")]))
        assert await other == [Outcome.DUPLICATE]
        scene.stage.dice.randint = lambda low, high: low  # type: ignore[method-assign]
        scene.replica.fail_over()
        return await writing

    assert scene.play(play) == [Outcome.UNKNOWN]
    assert scene.replica.primary.data.commits == {}
    assert scene.stage.counts["rolled_back"] == 1


def test_a_write_that_takes_too_long_is_unknown_and_happens_all_the_same() -> None:
    scene = Set()
    store = scene.store(scene.machine("C0"))

    async def play() -> None:
        scene.replica.slow_until = 50.0
        assert await store.insert_commits([commit(1)]) == [Outcome.UNKNOWN]
        await asyncio.sleep(50)
        assert [c.id for c in await store.read_commits(["t"])] == ["c1"]

    scene.play(play)


def test_without_majority_the_answer_comes_at_once_and_may_be_wrong() -> None:
    scene = Set(without=frozenset({"majority"}))
    store = scene.store(scene.machine("C0"))

    async def play() -> None:
        scene.replica.slow_until = 50.0
        assert await store.insert_commits([commit(1)]) == [Outcome.OK]
        scene.stage.dice.randint = lambda low, high: low  # type: ignore[method-assign]
        scene.replica.fail_over()

    scene.play(play)

    assert ("t", 1, "c1") in scene.replica.acknowledged
    assert scene.replica.majority.data.commits == {}


def test_without_the_unique_key_the_last_wins() -> None:
    scene = Set(without=frozenset({"unique"}))
    store = scene.store(scene.machine("C0"))

    async def play() -> None:
        assert await store.insert_commits([commit(1)]) == [Outcome.OK]
        assert await store.insert_commits([commit(1, "other")]) == [Outcome.OK]

    scene.play(play)

    assert scene.replica.majority.data.commits["t"][1].id == "other"


def test_a_primary_that_is_down_answers_nobody() -> None:
    scene = Set()
    store = scene.store(scene.machine("C0"))

    async def play() -> None:
        scene.replica.down_until = 100.0
        assert await store.insert_heads([head()]) == [Outcome.UNKNOWN]
        with pytest.raises(StoreUnavailable):
            await store.read_heads(["t"])
        scene.replica.heal()
        assert await store.insert_heads([head()]) == [Outcome.OK]

    scene.play(play)


def test_in_a_storm_some_writes_are_lost_late_or_unacknowledged_and_some_reads_are_stale() -> None:
    scene = Set(mode="chaos")
    store = scene.store(scene.machine("W0"))
    unknown = []

    async def play() -> None:
        for seq in range(1, 600):
            [outcome] = await store.insert_commits([commit(seq)])
            if outcome is not Outcome.OK:
                unknown.append(seq)
            await asyncio.sleep(0.01)
        await asyncio.sleep(20)
        scene.stage.storm = False
        stored = {c.seq for c in await store.read_commits(["t"])}
        assert 0 < len([seq for seq in unknown if seq in stored]) < len(unknown)

    scene.play(play)

    counts = scene.stage.counts
    assert min(counts["mongo_lost"], counts["mongo_late"], counts["mongo_ack_lost"]) > 0
    assert len(unknown) == counts["mongo_timeout"]


def test_a_stale_read_shows_documents_as_they_were() -> None:
    scene = Set(mode="chaos")
    store = scene.store(scene.machine("W0"))
    seen: set[tuple[int, int]] = set()

    async def play() -> None:
        scene.stage.storm = False
        await store.insert_heads([head()])
        await asyncio.sleep(5)
        for seq in range(1, 100):
            scene.stage.storm = False
            await store.update_heads([update(seq)])
            await store.insert_commits([commit(seq)])
            await asyncio.sleep(0.1)
            scene.stage.storm = True
            try:
                [found] = await store.read_heads(["t"])
                seen.add((seq - found.seq, seq - len(await store.read_commits(["t"]))))
            except StoreUnavailable:
                pass

    scene.play(play)

    assert any(behind > 0 for behind, _ in seen)
    assert any(behind > 0 for _, behind in seen)
    assert (0, 0) in seen


def test_the_coordinator_is_sometimes_frozen_before_an_insert_and_killed_after_one() -> None:
    scene = Set(mode="chaos")
    for number in range(400):
        machine = scene.machine(f"C{number}", "coordinator", lambda machine: None)
        store = scene.store(machine)
        work = store.insert_commits([commit(1, f"c{number}", f"t{number}")])
        machine.process.context().run(scene.stage.loop.create_task, work)

    scene.play(lambda: asyncio.sleep(30))

    assert scene.stage.counts["bug_freeze_before_insert"] > 0
    assert scene.stage.counts["bug_crash_after_commit"] > 0


def test_the_dead_get_no_answer() -> None:
    scene = Set()
    answers: list[list[Outcome]] = []

    def boot(machine: object) -> None:
        async def write() -> None:
            answers.append(await scene.store(scene.machines["C0"]).insert_commits([commit(1)]))

        scene.stage.loop.create_task(write())

    scene.machine("C0")

    async def play() -> None:
        machine = scene.machines["C0"]
        machine.process.context().run(boot, machine)
        await asyncio.sleep(0.0001)
        machine.crash()
        await asyncio.sleep(5)

    scene.play(play)

    assert answers == []
    assert 1 in scene.replica.majority.data.commits["t"]
