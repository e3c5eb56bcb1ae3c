"""What a coordinator saw of its tasks and counts without reading is what their commits say."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from flowkit import Embedded, Retry
from flowkit.coordinator import story
from flowkit.coordinator.cell import Cell
from flowkit.coordinator.engine import Engine
from flowkit.monitor_ports import HOUR_SEC, AttemptQuery, AttemptRecord, Seen
from flowkit.ports import Commit
from flowkit.testing.play import simulate
from flowkit.trace import indexer
from flowkit.trace.history import histograms_of
from flowkit.trace.task_trace import Recorded, read_ended
from tests.core.builders import graph, node
from tests.trace.histories import finish

ALL = AttemptQuery("default", 0.0, 4e9)
PATIENCE_SEC = 60.0
SEEDS = range(12)


class Flaky:
    """Asks once to be tried again."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, n: int) -> int:
        self.calls += 1
        if self.calls == 1:
            raise Retry("not yet", after_sec=0.05)
        return n


async def double(n: int) -> int:
    return 2 * n


GRAPHS: dict[str, dict[str, Any]] = {
    "plain": graph(node("a", type="double"), name="plain"),
    "chain": graph(node("a", type="double"), node("b", "a", type="double", inputs={"n": 1}), name="chain"),
    "flaky": graph(node("a", type="flaky"), name="flaky"),
    "wide": graph(*(node(f"a{place}", type="double") for place in range(20)), name="wide"),
}


async def test_the_records_of_what_was_seen_are_those_of_its_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer, "FIRST_ROUND_SEC", 3600.0)  # that round reads them, too
    handlers = {"double": double, "flaky": Flaky()}
    async with Embedded(tmp_path / "flow.db", handlers=handlers) as engine:
        coordinator = engine.coordinator
        history, traces = coordinator.runtime.history, coordinator._backend.traces
        load, read = history.load, list[str]()

        async def watched(task_ids: Sequence[str], *, whole: bool = False) -> Any:
            read.extend(task_ids)
            return await load(task_ids, whole=whole)

        history.load = watched  # type: ignore[method-assign]
        ids = {name: await coordinator.create_task(graph=raw, params={"n": 1}) for name, raw in GRAPHS.items()}
        for task_id in ids.values():
            assert (await engine.wait_task(task_id, 30)).ok

        async with asyncio.timeout(PATIENCE_SEC):
            while len(await traces.indexed(list(ids.values()))) < len(ids):
                await asyncio.sleep(0.1)
        assert read == []

        pasts = await load(list(ids.values()), whole=True)
        told: list[AttemptRecord] = []
        for past in pasts.values():
            assert past.first is not None
            told += finish(read_ended(Recorded(past.head, past.first, {}, past.commits)))
        found = await traces.slowest_attempts(ALL, limit=100)
        assert sorted(found, key=_place) == sorted(told, key=_place)
        assert len(told) == 1 + 2 + 2 + 20
        hours = histograms_of(await traces.rollups(ALL, span=HOUR_SEC), None, HOUR_SEC)
        assert sum(sum(bins.values()) for hour in hours for bins in hour.outcomes.values()) == len(told)


@pytest.mark.parametrize(("mode", "directed", "least"), [("calm", (), 20), ("chaos", (), 1), ("chaos", ("rich",), 1)])
def test_a_story_is_what_a_fold_of_the_same_commits_says(
    mode: str, directed: tuple[str, ...], least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: dict[Cell, list[Commit]] = {}
    outcomes: Counter[str] = Counter()
    lengths: set[int] = set()
    wrong: list[Any] = []
    told: dict[str, list[Seen]] = {}
    remember, begin = Cell.remember, Engine.__init__
    monkeypatch.setattr(story, "PORTION", 3)

    def remembered(cell: Cell, commit: Commit, facts: Any) -> None:
        if commit.seq == 1:
            told[cell.task_id] = []
        heard.setdefault(cell, []).append(commit)
        remember(cell, commit, facts)

    def attempts(task_id: str, seen: Seen) -> bool:
        told[task_id].append(seen)
        return True

    def at_rest(cell: Cell) -> None:
        assert cell.head is not None
        assert cell.task is not None
        if cell.story is not None:
            folded = finish(read_ended(Recorded(cell.head, cell.task.graph, {}, heard[cell])))
            portions = [*told[cell.task_id], cell.story.take()]
            records = [record for portion in portions for record in portion.records]
            if sorted(records, key=_place) != sorted(folded, key=_place) or portions[-1].until != heard[cell][-1].seq:
                wrong.append(portions)
            for since, portion in zip([0, *(one.until for one in portions)], portions, strict=False):
                if portion.since != since or not all(since < one.seq <= portion.until for one in portion.records):
                    wrong.append(portion)
            outcomes.update(one.outcome for one in folded)
            lengths.add(len(portions))

    def begun(engine: Engine, **given: Any) -> None:
        begin(engine, **given)
        engine.on_rest, engine.on_attempts = at_rest, attempts

    monkeypatch.setattr(Cell, "remember", remembered)
    monkeypatch.setattr(Engine, "__init__", begun)
    for seed in SEEDS:
        assert not simulate(seed, mode, directed=directed).violations
    assert wrong == []
    assert outcomes["succeeded"] >= least  # where coordinators crash, few see a task from its beginning to its end
    assert least == 1 or max(lengths) > 2


def _place(one: AttemptRecord) -> tuple[str, str, int]:
    return one.task_id, one.node, one.attempt
