"""What every `LogStore` promises, asked of every backend."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from flowkit.monitor_ports import LogBlock, LogQuery, LogStore
from flowkit.ports import Outcome, Store

OK, DUPLICATE, UNKNOWN = Outcome.OK, Outcome.DUPLICATE, Outcome.UNKNOWN


def block(place: int, **fields: Any) -> LogBlock:
    usual = {
        "task_id": "t1", "tenant": "acme", "node": "load[3]", "base": "load", "attempt": 1, "first": place, "count": 2,
        "level": 20, "until": float(place), "place": place, "body": '[[1.5,20,"hello \u00fc\U0001f600"]]',
    }  # fmt: skip
    return LogBlock(**{**usual, **fields})


@pytest.fixture
def logs(store: Store) -> LogStore:
    return store.logs  # type: ignore[attr-defined, no-any-return]


async def places(logs: LogStore, limit: int = 100, **wanted: Any) -> list[int]:
    return [one.place for one in await logs.read_logs(LogQuery("t1", **wanted), limit=limit)]


async def test_blocks_come_back_as_they_were_in_the_order_of_their_places(logs: LogStore) -> None:
    blocks = [block(2**50 + 1, node="\u00fc", base="\u00fc"), block(7, level=40), block(9, body="[]")]

    assert await logs.insert_logs([*blocks, block(8, task_id="t2")]) == [OK] * 4

    assert await logs.read_logs(LogQuery("t1"), limit=9) == [blocks[1], blocks[2], blocks[0]]
    assert await places(logs, limit=2) == [7, 9]
    assert await logs.read_logs(LogQuery("nobody"), limit=9) == []


async def test_a_block_that_comes_twice_is_there_once_as_it_came_first(logs: LogStore) -> None:
    first = block(1)
    await logs.insert_logs([first])

    again = replace(first, place=5, body="[]")
    other = [block(6, first=1, attempt=2), block(7, first=1, node="load[4]"), block(8, first=2)]
    assert await logs.insert_logs([again, *other]) == [DUPLICATE, OK, OK, OK]
    assert await logs.insert_logs([again, *other]) == [DUPLICATE] * 4

    assert await logs.read_logs(LogQuery("t1"), limit=9) == [first, *other]


async def test_one_that_no_store_can_keep_leaves_the_others_alone(logs: LogStore) -> None:
    bad = [block(1, body="\ud800"), block(2, until=float("nan"))]

    assert await logs.insert_logs([bad[0], block(3), bad[1], block(4)]) == [UNKNOWN, OK, UNKNOWN, OK]
    assert await places(logs) == [3, 4]
    assert await logs.insert_logs([]) == []


async def test_a_query_restricts(logs: LogStore) -> None:
    await logs.insert_logs([
        block(1, node="load[1]"),
        block(2, node="load[2]", level=40),
        block(3, node="load[1]", attempt=2, level=30),
        block(4, node="loader", base="loader", level=10),
    ])  # fmt: skip

    assert await places(logs, node="load") == [1, 2, 3]
    assert await places(logs, node="load[1]") == [1, 3]
    assert await places(logs, node="loader") == [4]
    assert await places(logs, attempt=2) == [3]
    assert await places(logs, level=30) == [2, 3]
    assert await places(logs, since=3.0) == [3, 4]
    assert await places(logs, node="load", level=30, since=3.0, attempt=1) == []


async def test_pages_go_on_with_the_block_that_they_are_told(logs: LogStore) -> None:
    ties = [
        block(place, node=node, base=node, attempt=attempt, first=10 * place + first)
        for place, node, attempt, first in itertools.product((5, 6), ("a", "b", "B"), (1, 2), (1, 9))
    ]
    await logs.insert_logs(ties[::-1])
    wanted = sorted(one.where for one in ties)

    for number, where in enumerate(wanted):
        found = await logs.read_logs(LogQuery("t1", start=where), limit=3)
        assert [one.where for one in found] == wanted[number : number + 3]


async def test_old_ones_go_so_many_at_a_time(logs: LogStore) -> None:
    await logs.insert_logs([block(n, task_id=f"t{n % 3}") for n in range(10)])

    assert await logs.expire_logs(6.0, limit=4) == 4
    assert await logs.expire_logs(6.0, limit=4) == 2
    assert await logs.expire_logs(6.0, limit=4) == 0

    left = [one.place for task in range(3) for one in await logs.read_logs(LogQuery(f"t{task}"), limit=9)]
    assert sorted(left) == [6, 7, 8, 9]


async def test_they_go_with_the_history_of_their_task(logs: LogStore, store: Store) -> None:
    await logs.insert_logs([block(n, task_id=f"t{n % 3}") for n in range(1300)])

    assert await store.delete_history(["t0", "t2", "nobody"]) is OK

    assert await logs.read_logs(LogQuery("t0"), limit=9) == []
    assert await logs.read_logs(LogQuery("t2"), limit=9) == []
    assert len(await logs.read_logs(LogQuery("t1"), limit=999)) == 433
