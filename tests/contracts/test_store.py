"""What every `Store` promises, asked of every backend."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowkit.ports import (
    Block,
    Commit,
    FlowTag,
    FlowVersion,
    Head,
    HeadFilter,
    HeadUpdate,
    Kept,
    LimitRecord,
    LimitSwap,
    Outcome,
    Renewal,
    Request,
    Store,
    StreamId,
)

OK, DUPLICATE, NO_MATCH, UNKNOWN = Outcome.OK, Outcome.DUPLICATE, Outcome.NO_MATCH, Outcome.UNKNOWN

SURROGATE = "\ud800"
HUGE = "x" * (20 * 1024 * 1024)


def head(task_id: str, **fields: Any) -> Head:
    return Head(task_id=task_id, **{"partition": 0, "graph_ref": "g1", "created_at": 1.0, **fields})


def update(task_id: str, seq: int, published_seq: int, **fields: Any) -> HeadUpdate:
    defaults = {"status": "running", "active": True, "next_wake": 50.0, "updated_at": 2.0}
    return HeadUpdate(task_id=task_id, seq=seq, published_seq=published_seq, **{**defaults, **fields})


def commit(task_id: str, seq: int, *, by: str = "c1", body: str = '{"facts":[]}') -> Commit:
    return Commit(task_id=task_id, seq=seq, id=f"{by}-{seq}", prev="", at=1.5, by=by, body=body)


def request_of(task_id: str, n: int, **fields: Any) -> Request:
    defaults = {"kind": "cancel", "args": "{}", "partition": 0, "tenant": "t", "principal": "p", "at": 3.0}
    return Request(task_id=task_id, n=n, id=f"r-{task_id}-{n}", **{**defaults, **fields})


def flow(name: str, version: int, **fields: Any) -> FlowVersion:
    defaults = {"tenant": "t", "graph_ref": f"g{version}", "created_at": 1.5, "principal": "ann"}
    return FlowVersion(name=name, version=version, **{**defaults, **fields})


def tag(name: str, word: str, version: int, revision: int, **fields: Any) -> FlowTag:
    defaults = {"tenant": "t", "at": 1.5, "principal": "ann"}
    return FlowTag(name=name, tag=word, version=version, revision=revision, **{**defaults, **fields})


FULL_HEAD = Head(
    task_id="full",
    partition=7,
    graph_ref="sha256:abc",
    params='{"n": 12345678901234567890123, "s": "\\ud800"}',
    tenant="acme",
    principal="ann@example.org",
    name="nightly \u00fc\U0001f600",
    labels={"team": "data", "a.b": "$x", "": ""},
    priority=-3,
    targets=("a", "b"),
    timeout_sec=12.5,
    fingerprint="f" * 64,
    created_at=1_700_000_000.123456,
    flow="etl.v2:day-1_x@12",
    parent="mother",
    parent_node="each \u00fc",
    parent_attempt=2,
    depth=3,
    status="queued",
    seq=0,
    published_seq=0,
    active=True,
    next_wake=1_700_000_001.5,
    updated_at=1_700_000_000.2,
    ended_at=None,
    error=None,
    snapshot="3:full.c-1.1",
    deadline=1_800_000_000.5,
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)


class TestHeads:
    async def test_a_head_comes_back_as_it_was(self, store: Store) -> None:
        assert await store.insert_heads([FULL_HEAD]) == [OK]
        assert await store.read_heads(["full", "nobody", "full"]) == [FULL_HEAD]

    async def test_the_defaults_of_a_head_come_back(self, store: Store) -> None:
        assert await store.insert_heads([Head("t", 0, "g")]) == [OK]
        assert await store.read_heads(["t"]) == [Head("t", 0, "g")]

    async def test_nothing_to_do_is_nothing(self, store: Store) -> None:
        assert await store.insert_heads([]) == []
        assert await store.update_heads([]) == []
        assert await store.read_heads([]) == []
        assert await store.insert_commits([]) == []
        assert await store.read_commits([]) == []
        assert await store.due_heads([], 1e12, limit=10) == []
        assert await store.open_requests([], limit=10) == []
        assert await store.mark_applied([]) is OK

    async def test_the_first_insert_wins(self, store: Store) -> None:
        assert await store.insert_heads([head("a", name="first")]) == [OK]
        heads = [head("b"), head("a", name="second"), head("c"), head("c", name="again")]
        assert await store.insert_heads(heads) == [OK, DUPLICATE, OK, DUPLICATE]
        assert {one.task_id: one.name for one in await store.read_heads(["a", "b", "c"])} == {
            "a": "first",
            "b": "",
            "c": "",
        }

    async def test_a_bad_head_leaves_the_others_alone(self, store: Store) -> None:
        bad = [
            head("b1", name=SURROGATE),
            head("b2", params=HUGE),
            head("b3", priority=2**70),
            head("b4", labels={"k": SURROGATE}),
            head("b5", created_at=float("nan")),
            head("b6", parent_node=SURROGATE),
            head("b7", depth=2**70),
        ]
        assert await store.insert_heads([head("a"), *bad, head("z")]) == [OK, *[UNKNOWN] * 7, OK]
        assert {one.task_id for one in await store.read_heads(["a", "z", *(one.task_id for one in bad)])} == {
            "a",
            "z",
        }

    async def test_what_a_caller_does_to_its_labels_later_changes_nothing(self, store: Store) -> None:
        labels = {"k": "v"}
        await store.insert_heads([head("a", labels=labels)])
        labels["k"] = "w"
        assert (await store.read_heads(["a"]))[0].labels == {"k": "v"}


class TestUpdates:
    async def test_an_update_sets_the_owners_fields_and_no_others(self, store: Store) -> None:
        await store.insert_heads([FULL_HEAD])
        new = HeadUpdate("full", "failed", 4, 3, False, None, 9.5, ended_at=9.25, error='{"code":"x"}', snapshot="4:s")
        assert await store.update_heads([new]) == [OK]
        assert await store.read_heads(["full"]) == [
            replace(
                FULL_HEAD,
                status="failed",
                seq=4,
                published_seq=3,
                active=False,
                next_wake=None,
                updated_at=9.5,
                ended_at=9.25,
                error='{"code":"x"}',
                snapshot="4:s",
            )
        ]

    @pytest.mark.parametrize(
        ("seq", "published", "outcome"),
        [
            (6, 0, OK),
            (6, 6, OK),
            (5, 4, OK),
            (5, 3, NO_MATCH),
            (5, 2, NO_MATCH),
            (4, 4, NO_MATCH),
            (0, 0, NO_MATCH),
        ],
    )
    async def test_the_guard(self, store: Store, seq: int, published: int, outcome: Outcome) -> None:
        await store.insert_heads([head("a")])
        assert await store.update_heads([update("a", 5, 3)]) == [OK]
        assert await store.update_heads([update("a", seq, published, status="new")]) == [outcome]

        (now,) = await store.read_heads(["a"])
        if outcome is OK:
            assert (now.seq, now.published_seq, now.status) == (seq, published, "new")
        else:
            assert (now.seq, now.published_seq, now.status) == (5, 3, "running")

    async def test_an_update_of_nobody_inserts_nobody(self, store: Store) -> None:
        assert await store.update_heads([update("ghost", 1, 1)]) == [NO_MATCH]
        assert await store.read_heads(["ghost"]) == []

    async def test_each_update_of_a_batch_gets_its_own_outcome(self, store: Store) -> None:
        await store.insert_heads([head("a"), head("b"), head("c")])
        await store.update_heads([update("b", 9, 9)])
        updates = [
            update("a", 1, 0),
            update("b", 8, 8),
            update("ghost", 1, 0),
            update("c", 2, 0),
            update("c", 2, 0),  # the same again
            update("c", 2, 1),
            update("c", 1, 1),
            update("a", 3, 0, status=SURROGATE),
        ]
        outcomes = await store.update_heads(updates)
        assert outcomes == [OK, NO_MATCH, NO_MATCH, OK, NO_MATCH, OK, NO_MATCH, UNKNOWN]
        heads = {one.task_id: (one.seq, one.published_seq) for one in await store.read_heads(["a", "b", "c"])}
        assert heads == {"a": (1, 0), "b": (9, 9), "c": (2, 1)}

    async def test_the_same_update_again_matches_nothing(self, store: Store) -> None:
        await store.insert_heads([head("a")])
        assert await store.update_heads([update("a", 1, 1)]) == [OK]
        assert await store.update_heads([update("a", 1, 1)]) == [NO_MATCH]

    async def test_two_owners_race_and_one_wins(self, store: Store) -> None:
        await store.insert_heads([head(f"t{i}") for i in range(40)])
        mine = [update(f"t{i}", 1, 0, status="mine") for i in range(40)]
        yours = [update(f"t{i}", 1, 0, status="yours") for i in range(40)]
        outcomes = await asyncio.gather(store.update_heads(mine), store.update_heads(yours))

        status = {one.task_id: one.status for one in await store.read_heads([f"t{i}" for i in range(40)])}
        for i, (one, other) in enumerate(zip(*outcomes, strict=True)):
            assert {one, other} == {OK, NO_MATCH}
            assert status[f"t{i}"] == ("mine" if one is OK else "yours")


class TestLists:
    async def test_lists_are_newest_first_and_pages_do_not_overlap(self, store: Store) -> None:
        heads = [head(f"t{i:02}", created_at=float(i // 3)) for i in range(20)]
        await store.insert_heads(heads)
        expected = sorted(((one.created_at, one.task_id) for one in heads), reverse=True)

        seen: list[tuple[float, str]] = []
        after = None
        while page := await store.list_heads(HeadFilter(), limit=7, after=after):
            seen += [(one.created_at, one.task_id) for one in page]
            after = seen[-1]
        assert seen == expected

    async def test_filters_hold_together(self, store: Store) -> None:
        await store.insert_heads(
            [
                head("a", tenant="x", labels={"env": "prod", "team": "1"}, name="n", created_at=1.0),
                head("b", tenant="x", labels={"env": "prod"}, status="failed", created_at=2.0),
                head("c", tenant="y", labels={"env": "dev=1"}, status="done", created_at=3.0),
                head("d", tenant="x", created_at=4.0),
            ]
        )

        async def ids(**conditions: Any) -> str:
            found = await store.list_heads(HeadFilter(**conditions), limit=10)
            return "".join(one.task_id for one in found)

        assert await ids() == "dcba"
        assert await ids(tenant="x") == "dba"
        assert await ids(tenant="nobody") == ""
        assert await ids(status=("failed", "done")) == "cb"
        assert await ids(name="n") == "a"
        assert await ids(labels={"env": "prod"}) == "ba"
        assert await ids(labels={"env": "prod", "team": "1"}) == "a"
        assert await ids(labels={"env": "dev"}) == ""
        assert await ids(labels={"env=dev": "1"}) == ""
        assert await ids(labels={"env": "dev=1"}) == "c"
        assert await ids(since=2.0) == "dcb"
        assert await ids(until=3.0) == "ba"
        assert await ids(since=2.0, until=4.0, tenant="x", labels={"env": "prod"}) == "b"

    async def test_a_flow_is_all_of_its_versions_or_exactly_one(self, store: Store) -> None:
        flows = {"a": "etl@1", "b": "etl@2", "c": "etl@12", "d": "etl.x@1", "e": "et@1", "f": "", "g": "etl@1"}
        await store.insert_heads(
            [head(name, flow=flow, tenant="y" if name == "g" else "x") for name, flow in flows.items()]
        )

        async def ids(flow: str, **more: Any) -> str:
            found = await store.list_heads(HeadFilter(flow=flow, **more), limit=10)
            return "".join(one.task_id for one in found)

        assert await ids("etl") == "gcba"
        assert await ids("etl", tenant="x") == "cba"
        assert await ids("etl@1") == "ga"
        assert await ids("etl@1", tenant="x") == "a"
        assert await ids("etl@2") == "b"
        assert await ids("etl@") == ""
        assert await ids("tl") == ""
        assert await ids("") == "f"
        assert len(await store.list_heads(HeadFilter(), limit=10)) == 7

    async def test_children_are_listed_by_their_parent_and_others_as_nobodys(self, store: Store) -> None:
        await store.insert_heads(
            [
                head("a", created_at=1.0),
                head("b", created_at=2.0, parent="a", parent_node="n", depth=1),
                head("c", created_at=3.0, parent="a", parent_node="n", depth=1, status="failed"),
                head("d", created_at=4.0, parent="b", parent_node="n", depth=2),
                head("e", created_at=5.0),
            ]
        )

        async def ids(parent: str | None, **more: Any) -> str:
            found = await store.list_heads(HeadFilter(parent=parent, **more), limit=10)
            return "".join(one.task_id for one in found)

        assert await ids(None) == "edcba"
        assert await ids("") == "ea"
        assert await ids("", tenant="default") == "ea"
        assert await ids("a") == "cb"
        assert await ids("a", status=("failed",)) == "c"
        assert await ids("b") == "d"
        assert await ids("d") == ""
        after_e = await store.list_heads(HeadFilter(parent=""), limit=10, after=(5.0, "e"))
        assert [one.task_id for one in after_e] == ["a"]

    async def test_a_filter_works_with_a_cursor(self, store: Store) -> None:
        await store.insert_heads([head(f"t{i}", created_at=float(i), labels={"odd": str(i % 2)}) for i in range(8)])
        page = await store.list_heads(HeadFilter(labels={"odd": "1"}), limit=2, after=(6.0, "t6"))
        assert [one.task_id for one in page] == ["t5", "t3"]

    async def test_active_heads_come_in_order_of_their_id(self, store: Store) -> None:
        await store.insert_heads([head(f"t{i:02}", partition=i % 2) for i in range(20)])
        await store.update_heads([update("t04", 1, 1, active=False), update("t06", 1, 1, active=True)])

        first = await store.active_heads(0, limit=3)
        assert [one.task_id for one in first] == ["t00", "t02", "t06"]
        rest = await store.active_heads(0, limit=100, after="t06")
        assert [one.task_id for one in rest] == ["t08", "t10", "t12", "t14", "t16", "t18"]
        assert await store.active_heads(5, limit=3) == []

    async def test_due_heads(self, store: Store) -> None:
        names = ["never", "later", "soon", "now", "past", "unpublished", "ended", "elsewhere"]
        await store.insert_heads([head(name, next_wake=None) for name in names[:-1]])
        await store.insert_heads([head("elsewhere", partition=9, next_wake=1.0), head("new", next_wake=0.0)])
        await store.update_heads(
            [
                update("never", 1, 1, next_wake=None),
                update("later", 1, 1, next_wake=100.5),
                update("soon", 1, 1, next_wake=99.0),
                update("now", 1, 1, next_wake=100.0),
                update("past", 1, 1, next_wake=1.0),
                update("unpublished", 3, 2, next_wake=None),
                update("ended", 3, 2, next_wake=1.0, active=False),
            ]
        )
        due = [one.task_id for one in await store.due_heads([0, 1], 100.0, limit=10)]
        assert due == ["new", "unpublished", "past", "soon", "now"]
        assert [one.task_id for one in await store.due_heads([0], 100.0, limit=3)] == due[:3]
        assert [one.task_id for one in await store.due_heads([9], 100.0, limit=3)] == ["elsewhere"]
        assert [one.task_id for one in await store.due_heads([0], 101.0, limit=3, after=99.0)] == ["now", "later"]
        assert [one.task_id for one in await store.due_heads([0], 101.0, limit=1, after=98.5)] == ["soon"]
        assert await store.due_heads([0], 99.0, limit=3, after=100.0) == []

        await store.update_heads([update("unpublished", 3, 3, next_wake=None)])
        assert "unpublished" not in [one.task_id for one in await store.due_heads([0], 1e6, limit=10)]


class TestCommits:
    async def test_a_commit_comes_back_as_it_was(self, store: Store) -> None:
        one = Commit("t", 3, "id-3", "id-2", 1_700_000_000.123456, "coordinator-1", '{"a": "\u00fc\\ud800\U0001f600"}')
        assert await store.insert_commits([one]) == [OK]
        assert await store.read_commits(["t"]) == [one]

    async def test_a_seq_is_taken_once(self, store: Store) -> None:
        assert await store.insert_commits([commit("a", 1, by="first")]) == [OK]
        batch = [commit("a", 1, by="late"), commit("a", 2), commit("b", 1), commit("b", 1, by="twice")]
        assert await store.insert_commits(batch) == [DUPLICATE, OK, OK, DUPLICATE]
        kept = [(one.task_id, one.seq, one.by) for one in await store.read_commits(["a", "b"])]
        assert kept == [("a", 1, "first"), ("a", 2, "c1"), ("b", 1, "c1")]

    async def test_a_bad_commit_leaves_the_others_alone(self, store: Store) -> None:
        batch = [
            commit("a", 1),
            commit("b", 1, body=SURROGATE),
            commit("c", 1, body=HUGE),
            commit("d", 1, body="nul \0 inside"),
            commit("e", 2**70),
            commit("a", 1, by="twice"),
            commit(SURROGATE, 1),
            commit("z", 1),
        ]
        outcomes = await store.insert_commits(batch)
        assert outcomes == [OK, UNKNOWN, UNKNOWN, OK, UNKNOWN, DUPLICATE, UNKNOWN, OK]
        kept = await store.read_commits(["a", "b", "c", "d", "e", "z"])
        assert [(one.task_id, one.body) for one in kept] == [
            ("a", '{"facts":[]}'),
            ("d", "nul \0 inside"),
            ("z", '{"facts":[]}'),
        ]

    async def test_commits_come_in_order_and_after_a_seq(self, store: Store) -> None:
        seqs = [100, 9, 10, 1, 2]
        await store.insert_commits([commit(task, seq) for seq in seqs for task in ("b", "a", "a:1", "a/1")])
        found = [(one.task_id, one.seq) for one in await store.read_commits(["b", "a", "b", "nobody"])]
        assert found == [(task, seq) for task in ("a", "b") for seq in sorted(seqs)]
        assert [one.seq for one in await store.read_commits(["a"], after=9)] == [10, 100]
        assert await store.read_commits(["a"], after=100) == []
        assert [one.task_id for one in await store.read_commits(["a:1"], after=50)] == ["a:1"]

    async def test_the_commits_of_many_tasks_at_once(self, store: Store) -> None:
        commits = [commit(f"t{i:04}", seq) for i in range(1200) for seq in (1, 2)]
        assert set(await store.insert_commits(commits)) == {OK}
        found = await store.read_commits([f"t{i:04}" for i in reversed(range(1200))])
        assert found == commits

    async def test_a_hundred_inserts_at_once(self, store: Store) -> None:
        batches = [[commit(f"t{i}", 1), commit("contested", 1, by=f"c{i}")] for i in range(100)]
        outcomes = await asyncio.gather(*(store.insert_commits(batch) for batch in batches))

        assert {one for one, _ in outcomes} == {OK}
        winners = [i for i, (_, contested) in enumerate(outcomes) if contested is OK]
        assert len(winners) == 1
        assert {contested for _, contested in outcomes} == {OK, DUPLICATE}
        (kept,) = await store.read_commits(["contested"])
        assert kept.by == f"c{winners[0]}"

    async def test_an_acknowledged_write_is_read_at_once(self, store: Store) -> None:
        for seq in range(1, 51):
            assert await store.insert_commits([commit("t", seq)]) == [OK]
            assert [one.seq for one in await store.read_commits(["t"], after=seq - 1)] == [seq]


class TestRequests:
    async def test_a_request_comes_back_as_it_was(self, store: Store) -> None:
        one = request_of("t", 1, kind="signal", args='{"x": "\\u0000"}', partition=4)
        assert await store.insert_request(one) is OK
        assert await store.insert_request(replace(one, id="other")) is DUPLICATE
        assert await store.read_requests("t") == [one]

    async def test_a_bad_request_is_refused(self, store: Store) -> None:
        assert await store.insert_request(request_of("t", 1, args=SURROGATE)) is UNKNOWN
        assert await store.read_requests("t") == []

    async def test_requests_are_read_in_order_of_n(self, store: Store) -> None:
        for n in (10, 2, 1, 1_000_001):
            await store.insert_request(request_of("t", n))
        await store.insert_request(request_of("t:1", 1))
        assert [one.n for one in await store.read_requests("t")] == [1, 2, 10, 1_000_001]

    async def test_open_requests_are_those_not_applied(self, store: Store) -> None:
        for task, n, partition in itertools.product("ba", (3, 1, 2), (0,)):
            await store.insert_request(request_of(task, n, partition=partition))
        await store.insert_request(request_of("c", 1, partition=8))
        await store.insert_request(request_of("c", 2, partition=8, applied=True))

        assert await store.mark_applied([("a", 1), ("b", 3), ("nobody", 1)]) is OK
        keys = [(one.task_id, one.n) for one in await store.open_requests([0, 1], limit=10)]
        assert keys == [("a", 2), ("a", 3), ("b", 1), ("b", 2)]
        assert [(one.task_id, one.n) for one in await store.open_requests([0], limit=2)] == keys[:2]
        assert [(one.task_id, one.n) for one in await store.open_requests([0, 8], limit=99)][-1] == ("c", 1)
        assert [one.applied for one in await store.read_requests("a")] == [True, False, False]
        assert await store.mark_applied([("a", 1)]) is OK


def block(seq: int, *, task_id: str = "t", generation: int = 0, node: str = "n", **fields: Any) -> Block:
    return Block(StreamId(task_id, generation, node), seq, **{"attempt": 1, "count": seq, "body": "{}", **fields})


async def numbers(store: Store, stream: StreamId, **how: Any) -> list[int]:
    return [one.seq for one in await store.read_blocks(stream, **{"limit": 100, **how})]


class TestBlocks:
    async def test_a_block_comes_back_as_it_was(self, store: Store) -> None:
        full = block(1, node="a.b:c-d", attempt=7, count=12345, body='{"b":[["\u00fc\U0001f600",{"$x.y":1}]]}')
        assert await store.insert_block(full) is OK
        assert await store.read_blocks(full.stream, limit=5) == [full]
        assert await store.last_block(full.stream) == full

    async def test_of_two_blocks_of_one_number_the_first_wins(self, store: Store) -> None:
        assert await store.insert_block(block(1, body='"first"')) is OK
        assert await store.insert_block(block(1, attempt=2, body='"second"')) is DUPLICATE
        assert [one.body for one in await store.read_blocks(block(1).stream, limit=9)] == ['"first"']

    async def test_one_of_many_at_once_wins(self, store: Store) -> None:
        outcomes = await asyncio.gather(*(store.insert_block(block(1, attempt=n)) for n in range(20)))
        assert sorted(outcome.value for outcome in outcomes) == ["duplicate"] * 19 + ["ok"]

    async def test_blocks_are_read_in_order_of_their_numbers_from_where_one_is(self, store: Store) -> None:
        for seq in (10, 2, 1, 11, 9):
            assert await store.insert_block(block(seq)) is OK
        stream = block(1).stream
        assert await numbers(store, stream) == [1, 2, 9, 10, 11]
        assert await numbers(store, stream, after=2) == [9, 10, 11]
        assert await numbers(store, stream, after=2, limit=2) == [9, 10]
        assert await numbers(store, stream, after=11) == []
        last = await store.last_block(stream)
        assert last is not None
        assert last.seq == 11

    async def test_streams_are_apart_by_task_generation_and_node(self, store: Store) -> None:
        others = [
            {"task_id": "t:"}, {"task_id": "t/0"}, {"generation": 1}, {"generation": 10}, {"node": "n:0"},
            {"node": "n/0"}, {"node": "n0"}, {"node": "m"}, {"task_id": "t0"},
        ]  # fmt: skip
        for seq, other in enumerate([{}, *others], start=1):
            assert await store.insert_block(block(seq, **other)) is OK
        for seq, other in enumerate([{}, *others], start=1):
            stream = block(seq, **other).stream
            assert await numbers(store, stream) == [seq]
            assert (await store.last_block(stream)) == block(seq, **other)

    async def test_a_stream_without_blocks_has_no_last_one(self, store: Store) -> None:
        assert await store.last_block(StreamId("t", 0, "n")) is None
        assert await store.read_blocks(StreamId("t", 0, "n"), limit=9) == []

    async def test_a_block_that_cannot_be_kept_is_not(self, store: Store) -> None:
        assert await store.insert_block(block(1, body=HUGE)) is UNKNOWN
        assert await store.insert_block(block(1, node=SURROGATE)) is UNKNOWN
        assert await store.insert_block(block(1, count=2**70)) is UNKNOWN
        assert await store.last_block(block(1).stream) is None

    async def test_the_blocks_of_a_task_go_with_its_history(self, store: Store) -> None:
        for task_id in ("t", "t0", "s"):
            assert await store.insert_block(block(1, task_id=task_id)) is OK
        assert await store.delete_history(["t", "s"]) is OK
        assert [await numbers(store, StreamId(name, 0, "n")) for name in ("t", "t0", "s")] == [[], [1], []]

    async def test_deleting_a_tasks_blocks_leaves_those_of_others(self, store: Store) -> None:
        for fields in ({}, {"generation": 3}, {"node": "m"}, {"task_id": "t0"}, {"task_id": "t:1"}, {"task_id": "s"}):
            assert await store.insert_block(block(1, **fields)) is OK
        assert await store.delete_blocks("t") is OK
        assert await store.delete_blocks("t") is OK
        assert await store.last_block(StreamId("t", 0, "n")) is None
        assert await store.last_block(StreamId("t", 3, "n")) is None
        assert await store.last_block(StreamId("t", 0, "m")) is None
        for left in ("t0", "t:1", "s"):
            assert await numbers(store, StreamId(left, 0, "n")) == [1]
        assert await store.insert_block(block(1)) is OK


class TestBlobs:
    @pytest.mark.parametrize("size", [0, 1, 512 * 1024, 512 * 1024 + 1, 9_000_000])
    async def test_a_blob_of_any_size_comes_back(self, store: Store, size: int) -> None:
        data = bytes(i * 7 % 251 for i in range(1000)) * (size // 1000) + b"\0" * (size % 1000)
        await store.put_blob("ref", data, kind="graph")
        assert await store.get_blob("ref", kind="graph") == data

    async def test_again_is_harmless_and_kinds_are_apart(self, store: Store) -> None:
        await store.put_blob("ref", b"one", kind="graph")
        await store.put_blob("ref", b"one", kind="graph")
        await store.put_blob("ref", b"two", kind="artifact")
        assert await store.get_blob("ref", kind="graph") == b"one"
        assert await store.get_blob("ref", kind="artifact") == b"two"

    async def test_what_is_not_there_is_a_key_error(self, store: Store) -> None:
        with pytest.raises(KeyError):
            await store.get_blob("nothing", kind="graph")

    @pytest.mark.parametrize("size", [1, 9_000_000])
    async def test_a_deleted_blob_is_gone_and_may_come_back(self, store: Store, size: int) -> None:
        for ref in ("t", "t:1", "u"):
            await store.put_blob(ref, bytes(size), kind="snapshot")
        await store.put_blob("t", b"graph", kind="graph")

        assert await store.delete_blob("t", kind="snapshot") is OK

        with pytest.raises(KeyError):
            await store.get_blob("t", kind="snapshot")
        assert await store.get_blob("t", kind="graph") == b"graph"
        assert len(await store.get_blob("t:1", kind="snapshot")) == size
        assert len(await store.get_blob("u", kind="snapshot")) == size
        await store.put_blob("t", b"again", kind="snapshot")
        assert await store.get_blob("t", kind="snapshot") == b"again"

    async def test_deleting_what_is_not_there_is_harmless(self, store: Store) -> None:
        assert await store.delete_blob("nothing", kind="snapshot") is OK

    async def test_the_same_blob_by_many_at_once(self, store: Store) -> None:
        data = bytes(2_000_000)
        await asyncio.gather(*(store.put_blob("ref", data, kind="graph") for _ in range(10)))
        assert await store.get_blob("ref", kind="graph") == data


class TestFlows:
    async def test_a_version_comes_back_as_it_was(self, store: Store) -> None:
        one = FlowVersion(
            "acme/eu", "etl.v2:day-1_x", 1, "sha", 1_700_000_000.123456, "ann@x", "why \u00fc\n\U0001f600"
        )
        assert await store.insert_flow_version(one) is OK
        assert await store.flow_versions("acme/eu", one.name, limit=9) == [one]
        assert await store.newest_flows("acme/eu", limit=9) == [one]

    async def test_a_version_is_taken_once(self, store: Store) -> None:
        assert await store.insert_flow_version(flow("a", 1, note="first")) is OK
        assert await store.insert_flow_version(flow("a", 1, note="second")) is DUPLICATE
        assert await store.insert_flow_version(flow("a", 1, tenant="u", note="another's")) is OK
        assert [one.note for one in await store.flow_versions("t", "a", limit=9)] == ["first"]
        assert [one.note for one in await store.flow_versions("u", "a", limit=9)] == ["another's"]

    async def test_of_those_who_insert_one_version_at_once_one_has_it(self, store: Store) -> None:
        outcomes = await asyncio.gather(*(store.insert_flow_version(flow("a", 1, note=f"{i}")) for i in range(20)))
        assert sorted(outcome.value for outcome in outcomes) == [*["duplicate"] * 19, "ok"]
        (kept,) = await store.flow_versions("t", "a", limit=9)
        assert kept.note == f"{outcomes.index(OK)}"

    async def test_versions_come_newest_first_and_below_one(self, store: Store) -> None:
        for name, number in itertools.product(("a", "a.b", "b"), (2, 10, 1, 9)):
            assert await store.insert_flow_version(flow(name, number)) is OK

        async def numbers(**more: Any) -> list[int]:
            return [one.version for one in await store.flow_versions("t", "a", **more)]

        assert await numbers(limit=9) == [10, 9, 2, 1]
        assert await numbers(limit=2) == [10, 9]
        assert await numbers(limit=9, before=10) == [9, 2, 1]
        assert await numbers(limit=1, before=3) == [2]
        assert await numbers(limit=9, before=1) == []
        assert await store.flow_versions("u", "a", limit=9) == []
        assert await store.flow_versions("t", "nothing", limit=9) == []

    async def test_the_newest_of_each_flow_comes_in_order_of_names(self, store: Store) -> None:
        for name, newest in {"b": 1, "a": 3, "B": 2, "a-1": 12, "c": 2}.items():
            for number in range(1, newest + 1):
                await store.insert_flow_version(flow(name, number))
        await store.insert_flow_version(flow("bb", 1, tenant="u"))

        async def found(**more: Any) -> list[str]:
            return [f"{one.name}@{one.version} {one.graph_ref}" for one in await store.newest_flows("t", **more)]

        assert await found(limit=9) == ["B@2 g2", "a@3 g3", "a-1@12 g12", "b@1 g1", "c@2 g2"]
        assert await found(limit=2) == ["B@2 g2", "a@3 g3"]
        assert await found(limit=2, after="a") == ["a-1@12 g12", "b@1 g1"]
        assert await found(limit=9, after="c") == []
        assert await store.newest_flows("nobody", limit=9) == []

    async def test_a_version_that_no_store_could_keep_is_unknown(self, store: Store) -> None:
        bad = [
            flow("a", 1, note=SURROGATE),
            flow("a", 1, note=HUGE),
            flow("a", 2**70),
            flow("a", 1, created_at=float("nan")),
        ]
        assert [await store.insert_flow_version(one) for one in bad] == [UNKNOWN] * 4
        assert await store.flow_versions("t", "a", limit=9) == []

    async def test_tags_come_back_as_they_were_in_order(self, store: Store) -> None:
        tags = [tag("a", "prod", 2, 1), tag("a", "default", 1, 1), tag("b", "default", 7, 1, at=1e9 + 0.25)]
        assert [await store.put_flow_tag(one) for one in tags] == [OK] * 3
        assert await store.put_flow_tag(tag("a", "default", 9, 1, tenant="u")) is OK

        assert await store.flow_tags("t", ["b", "a", "nothing", "a"]) == [tags[1], tags[0], tags[2]]
        assert await store.flow_tags("t", ["b"]) == [tags[2]]
        assert await store.flow_tags("t", []) == []

    async def test_a_tag_moves_by_one_revision_at_a_time(self, store: Store) -> None:
        assert await store.put_flow_tag(tag("a", "x", 1, 2)) is NO_MATCH
        assert await store.put_flow_tag(tag("a", "x", 1, 1)) is OK
        assert await store.put_flow_tag(tag("a", "x", 2, 1)) is NO_MATCH
        assert await store.put_flow_tag(tag("a", "x", 2, 3)) is NO_MATCH
        moved = tag("a", "x", 2, 2, at=9.5, principal="bob")
        assert await store.put_flow_tag(moved) is OK
        assert await store.put_flow_tag(tag("a", "x", 1, 2)) is NO_MATCH
        assert await store.put_flow_tag(tag("a", "x", 1, 3, principal=SURROGATE)) is UNKNOWN
        assert await store.flow_tags("t", ["a"]) == [moved]

    async def test_of_those_who_move_a_tag_at_once_one_does(self, store: Store) -> None:
        await store.put_flow_tag(tag("a", "x", 100, 1))
        outcomes = await asyncio.gather(*(store.put_flow_tag(tag("a", "x", i, 2)) for i in range(20)))
        assert sorted(outcome.value for outcome in outcomes) == [*["no_match"] * 19, "ok"]
        assert [one.version for one in await store.flow_tags("t", ["a"])] == [outcomes.index(OK)]


class TestWorkers:
    async def test_an_output_is_kept_until_its_time_is_over(self, store: Store) -> None:
        now = time.time()
        assert await store.find_kept("k", now) is None
        for body in ("[1]", '[{"a":"\\ud800"}]'):
            kept = Kept("k", body, now + 60)
            assert await store.keep(kept) is OK
            assert await store.find_kept("k", now) == kept
        assert await store.find_kept("k", now + 61) is None
        assert await store.find_kept("other", now) is None

    async def test_outputs_that_are_past_their_time_are_forgotten_by_new_ones(self, store: Store) -> None:
        for n in range(3):
            assert await store.keep(Kept(f"old{n}", "[]", 1.0)) is OK
        assert await store.keep(Kept("new", "[]", time.time() + 60)) is OK
        assert [await store.find_kept(f"old{n}", time.time()) for n in range(3)] == [None] * 3

    async def test_a_renewal_replaces_the_one_before(self, store: Store) -> None:
        assert await store.read_renewal("w") is None
        for count, tokens in ((1, ("a",)), (2, ("a", "b")), (3, ())):
            renewal = Renewal("w", "i1", count, tokens)
            assert await store.renew(renewal) is OK
            assert await store.read_renewal("w") == renewal
        assert await store.read_renewal("v") is None

    async def test_renewals_of_one_worker_at_once(self, store: Store) -> None:
        outcomes = await asyncio.gather(*(store.renew(Renewal("w", "i", n, ())) for n in range(20)))
        assert set(outcomes) <= {OK, UNKNOWN}
        assert OK in outcomes
        assert await store.read_renewal("w") is not None


async def test_a_store_describes_itself(store: Store) -> None:
    described = await store.describe()
    assert described["kind"] in ("memory", "sqlite", "mongo")
    assert described["address"]
    assert "version" in described


async def test_a_started_store_starts_again_over_the_same_data(store: Store, tmp_path: Path) -> None:
    await store.insert_commits([commit("t", 1)])
    await store.stop()
    await store.start()
    assert [one.seq for one in await store.read_commits(["t"])] == [1]


def swap(limit_id: str, before: str, stamp: str, body: str = "[]", partition: int = 0) -> LimitSwap:
    return LimitSwap(limit_id, partition, before, stamp, body)


class TestLimits:
    async def test_a_record_is_written_where_there_is_none(self, store: Store) -> None:
        assert await store.swap_limits([swap("a", "", "s1", "[1]"), swap("b", "", "s2", partition=3)]) == [OK, OK]
        assert await store.swap_limits([swap("a", "", "s3")]) == [NO_MATCH]
        found = {record.limit_id: record for record in await store.read_limits(["a", "b", "none"])}
        assert found == {"a": LimitRecord("a", 0, "s1", "[1]"), "b": LimitRecord("b", 3, "s2", "[]")}

    async def test_a_record_is_replaced_only_by_who_knows_it(self, store: Store) -> None:
        await store.swap_limits([swap("a", "", "s1"), swap("b", "", "t1")])
        outcomes = await store.swap_limits([swap("a", "s0", "s2"), swap("b", "t1", "t2", "[2]")])
        assert outcomes == [NO_MATCH, OK]
        stamps = {record.limit_id: record.stamp for record in await store.read_limits(["a", "b"])}
        assert stamps == {"a": "s1", "b": "t2"}

    async def test_the_same_swap_again_is_harmless(self, store: Store) -> None:
        first, second = swap("a", "", "s1"), swap("a", "s1", "s2")
        assert await store.swap_limits([first]) == [OK]
        assert await store.swap_limits([first]) == [OK]
        assert await store.swap_limits([second]) == [OK]
        assert await store.swap_limits([first, swap("b", "", "t")]) == [NO_MATCH, OK]

    async def test_a_record_is_removed_only_by_who_knows_it(self, store: Store) -> None:
        await store.swap_limits([swap("a", "", "s1")])
        assert await store.swap_limits([swap("a", "s0", "x", "")]) == [NO_MATCH]
        assert await store.swap_limits([swap("a", "s1", "x", "")]) == [OK]
        assert await store.swap_limits([swap("a", "s1", "x", "")]) == [OK]  # it is gone, as was wanted
        assert await store.read_limits(["a"]) == []
        assert await store.swap_limits([swap("a", "s1", "s2")]) == [NO_MATCH]
        assert await store.swap_limits([swap("a", "", "s3")]) == [OK]

    async def test_of_two_who_swap_at_once_one_wins(self, store: Store) -> None:
        await store.swap_limits([swap("a", "", "s0")])
        outcomes = await asyncio.gather(*(store.swap_limits([swap("a", "s0", f"s-{n}")]) for n in range(8)))
        assert sorted(outcome.value for [outcome] in outcomes) == ["no_match"] * 7 + ["ok"]

    async def test_the_records_of_a_partition_come_page_by_page(self, store: Store) -> None:
        await store.swap_limits([swap(name, "", f"s{name}", partition=int(name < "x")) for name in "cabxy"])
        first = await store.limits_of(1, limit=2)
        assert [record.limit_id for record in first] == ["a", "b"]
        assert [record.limit_id for record in await store.limits_of(1, limit=2, after="b")] == ["c"]

    async def test_what_cannot_be_stored_is_unknown_and_the_others_stand(self, store: Store) -> None:
        swaps = [swap("a", "", "s1"), swap("b", "", "s2", SURROGATE), swap("c", "", "s3")]
        assert await store.swap_limits(swaps) == [OK, UNKNOWN, OK]
        assert await store.swap_limits([]) == []
