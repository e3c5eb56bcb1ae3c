"""What every `Store` promises of the end of tasks: what is found, what is removed, and what stays."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from flowkit.ports import DELETED, FlowVersion, Head, HeadFilter, HeadUpdate, Outcome, Removal, Store
from tests.contracts.test_store import commit, head, request_of

OK, DUPLICATE, NO_MATCH = Outcome.OK, Outcome.DUPLICATE, Outcome.NO_MATCH


def ended(task_id: str, ended_at: float, **fields: Any) -> Head:
    return head(task_id, **{"status": "finished", "active": False, "ended_at": ended_at, **fields})


def ids(heads: list[Head]) -> list[str]:
    return [one.task_id for one in heads]


async def has(store: Store, ref: str, kind: str = "artifact") -> bool:
    try:
        await store.get_blob(ref, kind=kind)
    except KeyError:
        return False
    return True


class TestEndedHeads:
    async def test_they_come_in_the_order_of_their_ends(self, store: Store) -> None:
        heads = [ended(f"t{n}", at, partition=n % 2) for n, at in enumerate((30.0, 10.0, 20.0, 10.0, 40.0))]
        await store.insert_heads(heads)

        assert ids(await store.ended_heads([0, 1], "finished", 40.0, limit=9)) == ["t1", "t3", "t2", "t0"]
        assert ids(await store.ended_heads([1, 0, 1], "finished", 99.0, limit=2)) == ["t1", "t3"]
        assert ids(await store.ended_heads([1], "finished", 99.0, limit=9)) == ["t1", "t3"]
        assert await store.ended_heads([], "finished", 99.0, limit=9) == []

    async def test_pages_go_on_where_the_one_before_ended(self, store: Store) -> None:
        await store.insert_heads([ended(f"t{n}", float(n // 3), partition=n % 2) for n in range(10)])

        seen: list[str] = []
        after: tuple[float, str] | None = None
        while page := await store.ended_heads([0, 1], "finished", 99.0, limit=4, after=after):
            seen += ids(page)
            after = (page[-1].ended_at or 0.0, page[-1].task_id)

        assert seen == [f"t{n}" for n in range(10)]

    async def test_what_is_active_or_a_child_or_of_another_status_is_not_among_them(self, store: Store) -> None:
        await store.insert_heads([
            ended("old", 1.0),
            ended("active", 1.0, active=True),
            ended("child", 1.0, parent="old"),
            ended("failed", 1.0, status="failed"),
            head("running"),
        ])  # fmt: skip

        assert ids(await store.ended_heads([0], "finished", 99.0, limit=9)) == ["old"]
        assert ids(await store.ended_heads([0], "failed", 99.0, limit=9)) == ["failed"]

    async def test_an_update_moves_a_head_among_them_and_out(self, store: Store) -> None:
        await store.insert_heads([head("t")])
        done = HeadUpdate("t", "failed", 1, 1, False, None, 5.0, ended_at=5.0)

        await store.update_heads([done])
        assert ids(await store.ended_heads([0], "failed", 9.0, limit=9)) == ["t"]

        await store.update_heads([replace(done, status="running", seq=2, active=True, ended_at=None)])
        assert ids(await store.ended_heads([0], "failed", 9.0, limit=9)) == []

        await store.update_heads([replace(done, status=DELETED, seq=3, published_seq=3, remove_at=50.0)])
        assert ids(await store.ended_heads([0], "failed", 9.0, limit=9)) == []


async def test_who_has_children_is_told(store: Store) -> None:
    await store.insert_heads([head("p"), head("q"), head("a", parent="p"), head("b", parent="p", remove_at=3.0)])

    assert await store.parents_among(["q", "p", "a", "nobody"]) == {"p"}
    assert await store.parents_among([]) == set()
    assert await store.parents_among(["p"] * 1000) == {"p"}


class TestRemovals:
    async def test_a_head_comes_back_with_when_it_is_to_be_removed(self, store: Store) -> None:
        marked = head("t", remove_at=12.5, life=3, labels={"a": "b"})
        await store.insert_heads([marked])

        assert await store.read_heads(["t"]) == [marked]

    async def test_what_is_to_be_removed_is_in_no_list(self, store: Store) -> None:
        await store.insert_heads([head("a"), head("b", remove_at=1.0), head("c", labels={"k": "v"}, remove_at=1.0)])

        assert ids(await store.list_heads(HeadFilter(), limit=9)) == ["a"]
        assert await store.list_heads(HeadFilter(labels={"k": "v"}), limit=9) == []

    async def test_it_is_set_where_it_is_as_it_was(self, store: Store) -> None:
        old = head("t")
        await store.insert_heads([old])

        assert await store.schedule_removal(Removal(old, 5.0)) is OK
        assert await store.schedule_removal(Removal(old, 6.0)) is NO_MATCH
        [now] = await store.read_heads(["t"])
        assert now == replace(old, remove_at=5.0)
        assert await store.schedule_removal(Removal(replace(now, life=1), 6.0)) is NO_MATCH
        assert await store.schedule_removal(Removal(now, 5.0, life=1)) is OK
        assert await store.schedule_removal(Removal(now, None)) is NO_MATCH
        assert await store.schedule_removal(Removal(replace(now, life=1), None)) is OK
        assert await store.read_heads(["t"]) == [old]
        assert await store.schedule_removal(Removal(head("nobody"), 5.0)) is NO_MATCH

    async def test_one_of_many_at_once_sets_it(self, store: Store) -> None:
        old = head("t")
        await store.insert_heads([old])

        outcomes = await asyncio.gather(*(store.schedule_removal(Removal(old, float(n + 1))) for n in range(20)))

        assert sorted(outcome.value for outcome in outcomes) == ["no_match"] * 19 + ["ok"]

    async def test_an_update_takes_it_away_and_a_deletion_sets_it(self, store: Store) -> None:
        await store.insert_heads([head("t", remove_at=5.0)])
        update = HeadUpdate("t", "running", 1, 0, True, 3.0, 2.0)

        await store.update_heads([update])
        assert [one.remove_at for one in await store.read_heads(["t"])] == [None]

        await store.update_heads([replace(update, status=DELETED, seq=2, remove_at=7.0)])
        assert [(one.status, one.remove_at) for one in await store.read_heads(["t"])] == [(DELETED, 7.0)]

    async def test_those_that_are_due_come_first_the_longest(self, store: Store) -> None:
        heads = [head(f"t{n}", partition=n % 2, remove_at=at) for n, at in enumerate((9.0, 3.0, 5.0, None, 4.0))]
        await store.insert_heads(heads)

        assert ids(await store.removable_heads([0, 1], 5.0, limit=9)) == ["t1", "t4", "t2"]
        assert ids(await store.removable_heads([0, 1], 99.0, limit=2)) == ["t1", "t4"]
        assert ids(await store.removable_heads([1], 99.0, limit=9)) == ["t1"]
        assert await store.removable_heads([], 99.0, limit=9) == []

    async def test_a_head_goes_where_it_is_as_it_was(self, store: Store) -> None:
        gone, kept, other = head("gone", remove_at=1.0, labels={"k": "v"}), head("kept", remove_at=1.0), head("other")
        await store.insert_heads([gone, kept, other])
        await store.schedule_removal(Removal(kept, 2.0, life=1))

        assert await store.delete_heads([gone, kept, head("nobody")]) is OK

        assert sorted(ids(await store.read_heads(["gone", "kept", "other"]))) == ["kept", "other"]
        assert ids(await store.removable_heads([0], 9.0, limit=9)) == ["kept"]
        assert await store.delete_heads([]) is OK
        assert await store.insert_heads([replace(gone, remove_at=None)]) == [OK]
        assert ids(await store.list_heads(HeadFilter(labels={"k": "v"}), limit=9)) == ["gone"]


class TestHistories:
    async def test_commits_requests_and_snapshots_of_these_tasks_go(self, store: Store) -> None:
        tasks = ("a", "a:1", "a/1", "a.1", "b")
        for task in tasks:
            await store.insert_commits([commit(task, seq) for seq in (1, 2, 3)])
            await store.insert_request(request_of(task, 1))
            await store.put_blob(f"{task}.c.1", b"state", kind="snapshot")
        await store.put_blob("a.c.1", b"graph", kind="graph")

        assert await store.delete_history(["a", "a.1", "nobody"]) is OK

        assert {one.task_id for one in await store.read_commits(tasks)} == {"a:1", "a/1", "b"}
        assert {one.task_id for one in await store.open_requests([0], limit=99)} == {"a:1", "a/1", "b"}
        assert [await has(store, f"{task}.c.1", "snapshot") for task in tasks] == [False, True, True, False, True]
        assert await has(store, "a.c.1", "graph")
        assert await store.insert_commits([commit("a", 1)]) == [OK]
        assert await store.delete_history([]) is OK

    async def test_long_histories_and_many_tasks_go_too(self, store: Store) -> None:
        await store.insert_commits([commit("long", seq) for seq in range(1, 2501)])
        many = [f"t{n:03}" for n in range(700)]
        await store.insert_commits([commit(task, 1) for task in [*many, "kept"]])

        assert await store.delete_history(["long", *many]) is OK

        assert {one.task_id for one in await store.read_commits(["long", *many, "kept"])} == {"kept"}

    async def test_other_snapshots_of_a_task_go(self, store: Store) -> None:
        for ref in ("t.c.1", "t.c.2", "t.d.1", "tt.c.1"):
            await store.put_blob(ref, bytes(600_000), kind="snapshot")

        assert await store.delete_snapshots("t", but="t.c.2") is OK

        assert [await has(store, ref, "snapshot") for ref in ("t.c.1", "t.c.2", "t.d.1", "tt.c.1")] == [
            *(False, True, False, True)
        ]


class TestArtifacts:
    async def test_one_goes_with_the_last_task_that_it_was_put_for(self, store: Store) -> None:
        for task in ("a", "b", "b"):
            await store.put_blob("shared", b"s", kind="artifact", for_task=task)
        await store.put_blob("own", bytes(600_000), kind="artifact", for_task="a")
        await store.put_blob("own", b"another kind", kind="snapshot")

        assert await store.collect_artifacts(["a", "nobody"]) is OK
        assert [await has(store, ref) for ref in ("shared", "own")] == [True, False]
        assert await has(store, "own", "snapshot")

        assert await store.collect_artifacts(["b"]) is OK
        assert not await has(store, "shared")
        assert await store.collect_artifacts(["b"]) is OK

    async def test_tasks_that_are_given_up_together_keep_nothing_for_one_another(self, store: Store) -> None:
        for task in ("a", "b"):
            await store.put_blob("shared", b"s", kind="artifact", for_task=task)

        assert await store.collect_artifacts(["a", "b"]) is OK

        assert not await has(store, "shared")

    async def test_nor_do_tasks_that_are_given_up_at_once(self, store: Store) -> None:
        refs = [f"r{n}" for n in range(30)]
        for ref in refs:
            for task in ("a", "b", "c"):
                await store.put_blob(ref, b"s", kind="artifact", for_task=task)

        outcomes = await asyncio.gather(*(store.collect_artifacts([task]) for task in ("a", "b", "c")))

        assert set(outcomes) == {OK}
        assert not [ref for ref in refs if await has(store, ref)]

    async def test_what_was_put_for_nobody_stays(self, store: Store) -> None:
        await store.put_blob("r", b"s", kind="artifact")
        await store.put_blob("r", b"s", kind="artifact", for_task="a")

        assert await store.collect_artifacts(["a"]) is OK

        assert await has(store, "r")

    async def test_of_many_artifacts_all_go(self, store: Store) -> None:
        refs = [f"r{n:03}" for n in range(230)]
        for ref in refs:
            await store.put_blob(ref, b"s", kind="artifact", for_task="a")

        assert await store.collect_artifacts(["a"]) is OK

        assert not [ref for ref in refs if await has(store, ref)]

    @pytest.mark.parametrize("size", [10, 1_200_000])
    async def test_one_that_is_put_again_while_it_is_collected_is_never_lost(self, store: Store, size: int) -> None:
        """Each task's artifact is collected while the next task puts the same."""
        data = bytes(size)
        await store.put_blob("r", data, kind="artifact", for_task="t0")
        for n in range(40):
            await asyncio.gather(
                store.collect_artifacts([f"t{n}"]),
                store.put_blob("r", data, kind="artifact", for_task=f"t{n + 1}"),
            )
            assert await store.get_blob("r", kind="artifact") == data


class TestGraphs:
    async def test_one_that_no_head_names_goes_after_a_while(self, store: Store) -> None:
        await store.insert_heads([head("t", graph_ref="used")])
        for ref, at in (("used", 10.0), ("idle", 20.0), ("fresh", 30.0)):
            await store.put_blob(ref, bytes(600_000), kind="graph", at=at)
        await store.put_blob("kept", b"g", kind="graph")

        assert await store.idle_graphs(30.0, limit=9) == ["used", "idle"]
        assert await store.idle_graphs(99.0, limit=2) == ["used", "idle"]
        assert await store.collect_graphs(["used", "idle", "fresh", "kept", "nothing"], 30.0, at=40.0) is OK

        assert [await has(store, ref, "graph") for ref in ("used", "idle", "fresh", "kept")] == [
            True,
            False,
            True,
            True,
        ]
        assert await store.idle_graphs(99.0, limit=9) == ["fresh", "used"]

    async def test_one_that_is_put_again_stays(self, store: Store) -> None:
        await store.put_blob("g", b"g", kind="graph", at=10.0)
        await store.put_blob("g", b"g", kind="graph", at=50.0)
        await store.put_blob("g", b"g", kind="graph", at=20.0)

        assert await store.idle_graphs(50.0, limit=9) == []
        await store.collect_graphs(["g"], 50.0, at=60.0)
        assert await has(store, "g", "graph")
        await store.collect_graphs(["g"], 51.0, at=60.0)
        assert not await has(store, "g", "graph")

    async def test_one_that_a_flow_names_stays(self, store: Store) -> None:
        await store.insert_flow_version(FlowVersion("t", "etl", 1, "g", 1.0, "me"))
        await store.put_blob("g", b"g", kind="graph", at=10.0)

        await store.collect_graphs(["g"], 50.0, at=60.0)

        assert await has(store, "g", "graph")
        assert await store.idle_graphs(60.0, limit=9) == []

    async def test_one_that_was_put_for_a_task_stays_until_that_is_given_up(self, store: Store) -> None:
        await store.put_blob("g", b"g", kind="graph", for_task="t", at=10.0)

        await store.collect_graphs(["g"], 50.0, at=60.0)
        assert await has(store, "g", "graph")

        await store.collect_artifacts(["t"])
        assert await has(store, "g", "graph")
        await store.collect_graphs(["g"], 70.0, at=80.0)
        assert not await has(store, "g", "graph")

    async def test_one_whose_last_head_goes_is_used_no_more(self, store: Store) -> None:
        one = head("t", graph_ref="g", remove_at=1.0)
        await store.insert_heads([one])
        await store.put_blob("g", b"g", kind="graph", at=10.0)
        await store.delete_heads([one])

        await store.collect_graphs(["g"], 50.0, at=60.0)

        assert not await has(store, "g", "graph")


async def test_the_operator_sees_how_many_are_deleted_and_not_yet_removed(store: Store) -> None:
    await store.insert_heads([head("a"), head("b", remove_at=1.0), head("c", remove_at=2.0)])

    assert (await store.describe())["deleted"] == 2
