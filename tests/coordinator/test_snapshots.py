"""Snapshots: when they are taken, what loading makes of them, and which of them are removed."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from flowkit.adapters.memory_store import MemoryStore
from flowkit.clock import ManualClock
from flowkit.coordinator import snapshots
from flowkit.coordinator.cell import Cell
from flowkit.coordinator.graphs import Graphs
from flowkit.coordinator.history import History, fold, new_task, place_of
from flowkit.coordinator.snapshots import DOUBT_SEC, TIDY_SEC, Snapshots
from flowkit.core import facts as f
from flowkit.core.dialect import parse_graph
from flowkit.core.payload import Payload
from flowkit.errors import StoreUnavailable
from flowkit.ports import Commit, Head, HeadUpdate, Outcome
from flowkit.telemetry import Telemetry
from flowkit.wire.codec import dumps
from flowkit.wire.facts import body_of, encode_facts
from flowkit.wire.snapshot import encode_snapshot
from tests.core.builders import START, differences, graph, node

RAW = graph(*(node(f"n{i}", *([f"n{i - 1}"] if i else [])) for i in range(10)))
GRAPH = parse_graph(RAW)


def facts_of(seq: int) -> list[f.Fact]:
    """Commit 1 creates the task, each further one ends a node of the chain."""
    if seq == 1:
        return [f.TaskCreated()]
    name, token = f"n{seq - 2}", f"k{seq}"
    return [f.AttemptLeased(name, 1, token, "w", "i", 1.0), f.AttemptSucceeded(name, 1, token, Payload({"seq": seq}))]


def commit(seq: int) -> Commit:
    prev = f"c.{seq - 1}" if seq > 1 else ""
    return Commit("t", seq, f"c.{seq}", prev, START + seq, "c", body_of(encode_facts(facts_of(seq))))


def bytes_of(*seqs: int) -> int:
    return sum(len(commit(seq).body) for seq in seqs)


class Shelf(MemoryStore):
    """A store that says what was read from it, and may be away."""

    def __init__(self) -> None:
        super().__init__()
        self.afters: list[int] = []
        self.away = ""

    async def read_commits(self, task_ids: Any, *, after: int = 0) -> list[Commit]:
        self.afters.append(after)
        return await super().read_commits(task_ids, after=after)

    async def put_blob(self, ref: str, data: bytes, *, kind: str, **more: Any) -> None:
        await super().put_blob(ref, data, kind=kind, **more)
        if self.away == "put":
            raise StoreUnavailable("no answer")

    def snapshots(self) -> set[str]:
        return {ref for kind, ref in self.data.blobs if kind == "snapshot"}


class FakeEngine:
    def __init__(self) -> None:
        self.owned = {0}
        self.on_outgrown: Any = None


class Stand:
    """A task of `upto` commits in a store, and its cell."""

    def __init__(self, upto: int = 6) -> None:
        self.store = Shelf()
        self.clock = ManualClock(100.0)
        self.telemetry = Telemetry()
        self.engine = FakeEngine()
        self.history = History(self.store, Graphs(self.store), self.telemetry)
        self.service = Snapshots(
            self.store, self.clock, self.history, self.engine, self.telemetry, "c-1"  # type: ignore[arg-type]
        )  # fmt: skip
        self.cell = self.new_cell()
        self.upto = upto

    async def begin(self) -> Stand:
        await self.store.put_blob("g", dumps(RAW), kind="graph")
        await self.store.insert_heads([Head("t", 0, "g")])
        assert set(await self.store.insert_commits([commit(seq) for seq in range(1, self.upto + 1)])) == {Outcome.OK}
        self.acknowledge(*range(1, self.upto + 1))
        return self

    def new_cell(self) -> Cell:
        cell = Cell("t", 0)
        cell.loading = False
        cell.task = new_task(Head("t", 0, "g"), GRAPH)
        return cell

    def acknowledge(self, *seqs: int) -> None:
        for seq in seqs:
            self.cell.acked, self.cell.prev = seq, f"c.{seq}"
        self.cell.unfolded += bytes_of(*seqs)

    async def more(self, *seqs: int) -> None:
        await self.store.insert_commits([commit(seq) for seq in seqs])
        self.acknowledge(*seqs)

    async def take(self) -> str:
        self.service.add(self.cell)
        await self.service.step()
        return self.cell.snapshot

    async def write_head(self, snapshot: str | None = None, published: int | None = None) -> None:
        """As the owner does, behind the commits."""
        seq = self.cell.acked
        [head] = await self.store.read_heads(["t"])
        new = HeadUpdate("t", "running", seq, seq if published is None else published, True, None, 0.0,
                         snapshot=self.cell.snapshot if snapshot is None else snapshot)  # fmt: skip
        self.store.data.heads["t"] = replace(head, seq=0, published_seq=-1)
        assert await self.store.update_heads([new]) == [Outcome.OK]
        self.cell.stored = (seq, new.published_seq)

    async def tidy(self, after: float = TIDY_SEC) -> set[str]:
        self.clock.advance(after)
        await self.service.step()
        return self.store.snapshots()

    def happened(self) -> Counter[str]:
        return Counter({name: n for name, n in self.telemetry.counts.items() if name.startswith("Snapshot")})

    async def load(self, *, whole: bool = False) -> Any:
        self.store.afters.clear()
        return (await self.history.load(["t"], whole=whole))["t"]


@pytest.fixture
async def stand() -> Stand:
    return await Stand().begin()


def folded(upto: int) -> Any:
    task = new_task(Head("t", 0, "g"), GRAPH)
    fold(task, [commit(seq) for seq in range(1, upto + 1)])
    return task


def same(task: Any, upto: int) -> bool:
    other = folded(upto)
    task.graph = other.graph
    return differences(task, other) == []


# Taking.


async def test_the_state_that_it_was_written_from_is_freed_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "SLICE_RUNS", 2)
    task = folded(5)
    left = [size := dict.__len__(task.runs)]
    freeing = asyncio.create_task(snapshots.taken_apart(task))
    while not freeing.done():
        await asyncio.sleep(0)
        left.append(dict.__len__(task.runs))

    assert left[-1] == 0
    assert size > 2
    assert max(before - after for before, after in pairwise(left)) == 2


async def test_a_snapshot_is_taken_of_what_is_stored_and_handed_to_the_cell(stand: Stand) -> None:
    snapshot = await stand.take()

    seq, ref = place_of(snapshot)
    assert (seq, stand.store.snapshots()) == (6, {ref})
    assert stand.cell.snapshot_size == len(await stand.store.get_blob(ref, kind="snapshot"))
    assert stand.cell.unfolded == 0
    assert stand.happened() == {"SnapshotTaken": 1}


async def test_the_next_one_begins_with_the_last(stand: Stand) -> None:
    await stand.take()
    await stand.write_head()
    await stand.more(7, 8)
    stand.cell.snapshot_size = 0
    stand.store.afters.clear()

    assert place_of(await stand.take())[0] == 8

    assert stand.store.afters == [6]
    assert stand.happened() == {"SnapshotTaken": 2, "SnapshotLoaded": 1}


async def test_what_was_committed_meanwhile_counts_for_the_next(stand: Stand) -> None:
    stand.cell.unfolded += 1000

    await stand.take()

    assert stand.cell.unfolded == 1000


@pytest.mark.parametrize("why", ["dead", "loading", "ended", "moved"])
async def test_who_cannot_use_it_gets_none(stand: Stand, why: str) -> None:
    match why:
        case "dead":
            stand.cell.dead = True
        case "loading":
            stand.cell.loading = True
        case "ended":
            assert stand.cell.task is not None
            stand.cell.task.status = "finished"  # type: ignore[assignment]
        case "moved":
            stand.engine.owned.clear()

    assert await stand.take() == ""
    assert stand.store.snapshots() == set()


async def test_a_cell_that_goes_meanwhile_leaves_no_snapshot_behind(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = stand.store.put_blob

    async def put_and_die(*args: Any, **more: Any) -> None:
        await put(*args, **more)
        stand.cell.dead = True

    monkeypatch.setattr(stand.store, "put_blob", put_and_die)

    assert await stand.take() == ""
    assert stand.store.snapshots() == set()


async def test_what_fails_is_left_until_as_much_again_was_committed(stand: Stand) -> None:
    stand.store.away = "put"
    with pytest.raises(StoreUnavailable):
        await stand.take()
    assert stand.store.snapshots() == set()
    stand.store.away = ""

    assert await stand.take() == ""

    stand.cell.unfolded *= 3
    assert await stand.take() != ""


# Loading.


@pytest.mark.parametrize("further", [0, 1, 3])
async def test_a_task_is_its_snapshot_and_the_commits_since(stand: Stand, further: int) -> None:
    await stand.take()
    await stand.write_head()
    await stand.more(*range(7, 7 + further))

    past = await stand.load()

    assert same(past.task, 6 + further)
    assert (past.seq, past.commit_id, past.error) == (6 + further, f"c.{6 + further}", "")
    assert (past.snapshot_size, past.unfolded) == (stand.cell.snapshot_size, bytes_of(*range(7, 7 + further)))
    assert [one.seq for one in past.commits] == list(range(7, 7 + further))
    assert stand.store.afters == [6]
    assert stand.happened()["SnapshotLoaded"] == 1


async def test_unpublished_commits_of_before_the_snapshot_are_read_too(stand: Stand) -> None:
    await stand.take()
    await stand.write_head(published=4)
    await stand.more(7)

    past = await stand.load()

    assert same(past.task, 7)
    assert ([one.seq for one in past.commits], past.unfolded) == ([5, 6, 7], bytes_of(7))


async def test_who_wants_every_commit_gets_it(stand: Stand) -> None:
    await stand.take()
    await stand.write_head()

    past = await stand.load(whole=True)

    assert ([one.seq for one in past.commits], stand.store.afters) == ([1, 2, 3, 4, 5, 6], [0])
    assert same(past.task, 6)


async def spoil(stand: Stand, how: str) -> None:
    seq, ref = place_of(stand.cell.snapshot)
    data = stand.store.data.blobs["snapshot", ref]
    match how:
        case "gone":
            del stand.store.data.blobs["snapshot", ref]
        case "cut":
            data[0] = data[0][:-20]
        case "junk":
            data[0] = b"junk"
        case "other version":
            data[0] = data[0].replace(b'"', b'"9', 1)
        case "other seq":
            await stand.write_head(snapshot=f"{seq - 1}:{ref}")
        case "other history":
            data[0] = encode_snapshot(folded(6), 6, "another")
        case "unreadable pointer":
            await stand.write_head(snapshot="six")


@pytest.mark.parametrize(
    "how", ["gone", "cut", "junk", "other version", "other seq", "other history", "unreadable pointer"]
)
@pytest.mark.parametrize("published", [3, 6])
async def test_whatever_is_wrong_with_a_snapshot_all_commits_are_folded(how: str, published: int) -> None:
    stand = await Stand().begin()
    await stand.take()
    await stand.more(7)
    await stand.write_head(published=published)
    await spoil(stand, how)

    past = await stand.load()

    assert same(past.task, 7)
    assert (past.seq, past.commit_id, past.snapshot_size) == (7, "c.7", 0)
    assert past.unfolded == bytes_of(*range(1, 8))
    assert stand.happened() == {"SnapshotTaken": 1, "SnapshotUnusable": 1}


async def test_a_read_that_misses_what_the_snapshot_holds_is_not_built_upon(stand: Stand) -> None:
    await stand.take()
    await stand.write_head(published=3)
    del stand.store.data.commits["t"][5]

    past = await stand.load()

    assert (past.seq, [one.seq for one in past.commits]) == (4, [1, 2, 3, 4])
    assert stand.happened()["SnapshotUnusable"] == 1


async def test_a_store_without_an_answer_is_no_fault_of_the_snapshot(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stand.take()
    await stand.write_head()

    async def away(ref: str, *, kind: str) -> bytes:
        raise StoreUnavailable("no answer")

    await stand.load()
    monkeypatch.setattr(stand.store, "get_blob", away)

    with pytest.raises(StoreUnavailable):
        await stand.load()
    assert "SnapshotUnusable" not in stand.happened()


async def test_small_tasks_do_not_wait_for_large_ones(stand: Stand) -> None:
    await stand.take()
    await stand.write_head()
    await stand.store.insert_heads([Head("small", 0, "g"), Head("a-large", 0, "g")])
    large = f.TaskPaused("x" * 300_000)
    await stand.store.insert_commits([Commit("a-large", 1, "c", "", 1.0, "c", body_of(encode_facts([large])))])

    batches = [batch async for batch in stand.history.batches(["t", "a-large", "small"])]

    assert [[past.head.task_id for past in batch] for batch in batches] == [["small"], ["a-large"], ["t"]]


# Removing.


async def test_the_one_before_goes_once_the_head_names_the_new_one(stand: Stand) -> None:
    first = await stand.take()
    await stand.write_head()
    await stand.tidy()
    await stand.more(7, 8, 9)
    stand.cell.snapshot_size = 0
    second = await stand.take()

    assert await stand.tidy() == {place_of(first)[1], place_of(second)[1]}

    await stand.write_head()
    assert await stand.tidy() == {place_of(second)[1]}
    assert await stand.load() and stand.happened()["SnapshotUnusable"] == 0


async def test_what_a_coordinator_left_behind_that_died_goes_with_the_next_one_that_is_named(stand: Stand) -> None:
    await stand.store.put_blob("t.dead.1", b"never named", kind="snapshot")
    await stand.store.put_blob("tt.dead.1", b"of another task", kind="snapshot")
    snapshot = await stand.take()
    assert "t.dead.1" in await stand.tidy()

    await stand.write_head()

    assert await stand.tidy() == {place_of(snapshot)[1], "tt.dead.1"}


async def test_one_that_was_replaced_before_any_head_named_it_goes_too(stand: Stand) -> None:
    for seq in (7, 8, 9):
        await stand.more(seq)
        stand.cell.snapshot_size = 0
        last = await stand.take()
        assert place_of(last)[1] in await stand.tidy()

    await stand.write_head()
    assert await stand.tidy() == {place_of(last)[1]}


async def test_one_that_no_head_will_name_any_more_goes_after_a_while(stand: Stand) -> None:
    snapshot = await stand.take()
    assert await stand.tidy(10 * DOUBT_SEC) == {place_of(snapshot)[1]}

    stand.cell.dead = True

    assert await stand.tidy() == {place_of(snapshot)[1]}
    assert await stand.tidy(DOUBT_SEC / 2) == {place_of(snapshot)[1]}
    assert await stand.tidy(DOUBT_SEC) == set()


async def test_the_one_that_the_head_names_stays_when_its_cell_goes(stand: Stand) -> None:
    snapshot = await stand.take()
    await stand.write_head()
    stand.cell.dead = True

    for _ in range(3):
        assert await stand.tidy(DOUBT_SEC) == {place_of(snapshot)[1]}


async def test_another_owners_snapshot_stays_and_ours_goes(stand: Stand) -> None:
    await stand.take()
    stand.cell.dead = True
    await stand.store.put_blob("theirs", b"", kind="snapshot")
    await stand.write_head(snapshot="9:theirs")

    assert await stand.tidy() == {"theirs"}


async def test_they_take_no_more_than_their_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    stand = await Stand().begin()
    load = stand.history.load

    async def slow(*asked: Any, **how: Any) -> Any:
        stand.clock.advance(1.0)
        return await load(*asked, **how)

    monkeypatch.setattr(stand.history, "load", slow)
    first = await stand.take()
    assert first
    stand.cell.unfolded = 10 * stand.cell.snapshot_size

    stand.clock.advance(18.9)
    assert await stand.take() == first

    stand.clock.advance(0.2)
    await stand.service.step()
    assert stand.cell.snapshot != first


async def test_a_task_that_has_gone_is_not_kept_for_the_sake_of_its_snapshots(stand: Stand) -> None:
    """Tens of megabytes may hang on it, for as long as it takes to know that nobody names them."""
    await stand.take()
    task = weakref.ref(stand.cell.task.runs)
    stand.service.add(stand.cell)
    stand.cell.dead = True
    stand.cell = stand.new_cell()
    await stand.service.step()
    gc.collect()
    assert task() is None
