"""Attempts that make batches and read them: what is written, what a later attempt makes of it, how far one may be
ahead."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import flowkit
from flowkit.core.reports import Streams
from flowkit.errors import StoreUnavailable
from flowkit.ports import Block, Outcome, StreamId
from flowkit.wire.messages import Over
from flowkit.wire.stream import Cursor, Mark, read_mark, write_body
from flowkit.worker import Batch
from tests.worker.stand import Stand, virtual
from tests.worker.streams import TASK, batches, blocks, ended, job, plan, run, values, write


async def count_up(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


def count_plainly(n: int) -> Iterator[int]:
    yield from range(n)
    return {"counted": n}  # type: ignore[return-value]


async def add_up(rows: AsyncIterator[int]) -> int:
    return sum([row async for row in rows])


# ---------------------------------------------------------------------------------------------- making


@virtual
async def test_what_a_handler_yields_is_kept_in_order_and_closed_with_its_output() -> None:
    async with Stand([count_up]) as stand:
        report = await run(stand, "p", "count_up", plan(readers={"c": False}), {"n": 25})
        assert report.output.value == {"batches": 25}
        assert await values(stand, "p") == list(range(25))
        assert [batch[0] for batch in await batches(stand, "p")] == [str(i) for i in range(25)]
        last = (await blocks(stand, "p"))[-1]
        assert (last.count, read_mark(last.body).end) == (25, [[{"batches": 25}], None])


@virtual
async def test_a_plain_generator_gives_its_batches_and_what_it_returns() -> None:
    async with Stand([count_plainly]) as stand:
        report = await run(stand, "p", "count_plainly", plan(readers={"c": False}), {"n": 200})
        assert report.output.value == {"counted": 200}
        assert await values(stand, "p") == list(range(200))


@virtual
async def test_a_handler_that_returns_gives_a_stream_of_one_batch() -> None:
    def whole() -> Any:
        return {"all": 1}

    async with Stand([whole]) as stand:
        await run(stand, "p", "whole", plan(readers={"c": False}))
        assert await values(stand, "p") == [{"all": 1}]


async def fails_behind(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i
    raise flowkit.Permanent("enough", "no more")


def fails_plainly_behind(n: int) -> Iterator[int]:
    yield from range(n)
    raise flowkit.Permanent("enough", "no more")


@pytest.mark.parametrize("role", ["fails_behind", "fails_plainly_behind"])
@virtual
async def test_what_was_yielded_before_a_failure_is_kept_all_of_it(role: str) -> None:
    async with Stand([fails_behind, fails_plainly_behind]) as stand:
        report = await run(stand, "p", role, plan(readers={"c": False}, most=1000), {"n": 100})
        assert report.error["code"] == "enough"
        assert await values(stand, "p") == list(range(100))


@virtual
async def test_a_failure_is_told_though_the_store_does_not_take_what_was_made_before() -> None:
    async with Stand([fails_behind]) as stand:

        async def away(block: Block) -> Outcome:
            raise StoreUnavailable("away")

        stand.store.insert_block = away  # type: ignore[method-assign]
        report = await run(stand, "p", "fails_behind", plan(readers={"c": False}), {"n": 1})
        assert report.error["code"] == "enough"


@virtual
async def test_an_async_handler_that_reads_as_a_plain_one_does_is_told_so_and_stops_nobody() -> None:
    async def blocking(rows: Any) -> list[int]:
        return [row for row in rows]

    async with Stand([blocking]) as stand:
        await write(stand, "p", 1, 2)
        report = await run(stand, "c", "blocking", plan(reads={"rows": ["p"]}), {"rows": None})
        assert (report.error["code"], report.permanent) == ("TypeError", True)
        assert "an async handler reads a stream by `async for`" in report.error["message"]


async def test_a_list_is_read_like_a_stream_in_either_way() -> None:
    def plainly(rows: flowkit.Stream) -> list[Any]:
        return [[row, rows.index, rows.uid] for row in rows]

    async def otherwise(rows: flowkit.Stream) -> list[Any]:
        return [[row, rows.index, rows.uid] async for row in rows]

    async with Stand([plainly, otherwise]) as stand:
        for role in ("plainly", "otherwise"):
            report = await run(stand, role, role, None, {"rows": ["a", "b"]})
            assert report.output.value == [["a", 0, "0"], ["b", 1, "1"]]


@virtual
async def test_nobody_who_reads_means_that_nothing_is_kept() -> None:
    async with Stand([count_up]) as stand:
        report = await run(stand, "p", "count_up", None, {"n": 5})
        assert report.output.value == {"batches": 5}
        assert await blocks(stand, "p") == []


@virtual
async def test_the_first_batch_is_reported_where_somebody_waits_for_it() -> None:
    async with Stand([count_up]) as stand:
        await run(stand, "p", "count_up", plan(readers={"c": False}, awaited=True), {"n": 3})
        await run(stand, "q", "count_up", plan(readers={"c": False}), {"n": 3})
        told = [told.report for told in stand.told if isinstance(told.report, Streams)]
        assert {(report.node, report.begun) for report in told} <= {("p", True)}


@virtual
async def test_the_first_batch_is_told_of_while_the_store_is_still_writing_it() -> None:
    kept = asyncio.Event()

    async with Stand([count_up]) as stand:
        insert = stand.store.insert_block

        async def slowly(block: Block) -> Outcome:
            await kept.wait()
            return await insert(block)

        stand.store.insert_block = slowly  # type: ignore[method-assign]
        mine = job(stand, "p", "count_up", plan(readers={"c": True}, awaited=True, most=2), {"n": 3})
        await stand.send(mine)
        await stand.until(lambda: any(isinstance(told.report, Streams) and told.report.begun for told in stand.told))
        assert await blocks(stand, "p") == []
        kept.set()
        await write(stand, "c", end=False, cursors={"p": Cursor(index=2, bytes=2, seq=1)})
        await stand.until(lambda: ended(stand, mine))
        assert await values(stand, "p") == [0, 1, 2]


@virtual
async def test_a_handler_that_never_waits_lets_its_first_batches_out_one_by_one() -> None:
    async with Stand([count_up]) as stand:
        await run(stand, "p", "count_up", plan(readers={"c": False}, most=2000), {"n": 500})
        assert (await blocks(stand, "p"))[0].count < 5


async def test_what_a_plain_generator_makes_first_is_not_held_back_for_what_comes_next() -> None:
    seen = threading.Event()

    def plain() -> Iterator[int]:
        yield 1
        yield int(seen.wait(10))

    async with Stand([plain]) as stand:
        mine = job(stand, "p", "plain", plan(readers={"c": False}))
        await stand.send(mine)
        async with asyncio.timeout(60):
            while not await blocks(stand, "p"):
                await asyncio.sleep(0.01)
        assert await values(stand, "p") == [1]
        seen.set()
        await stand.until(lambda: ended(stand, mine))
        assert await values(stand, "p") == [1, 1]


@virtual
async def test_a_large_batch_is_kept_apart_and_read_as_it_was() -> None:
    async def large() -> AsyncIterator[Any]:
        yield "x" * 100_000
        yield b"\x00" * 10

    async def lengths(rows: Any) -> Any:
        return [[type(row).__name__, len(row)] async for row in rows]

    async with Stand([large, lengths]) as stand:
        await run(stand, "p", "large", plan(readers={"c": False}))
        report = await run(stand, "c", "lengths", plan(reads={"rows": ["p"]}), {"rows": None})
        assert report.output.value == [["str", 100_000], ["bytes", 10]]


@virtual
async def test_what_json_cannot_say_is_a_bad_output() -> None:
    async def odd() -> AsyncIterator[Any]:
        yield {1, 2}

    async with Stand([odd]) as stand:
        report = await run(stand, "p", "odd", plan(readers={"c": False}))
        assert (report.error["code"], report.permanent) == ("bad_output", True)


# ---------------------------------------------------------------------------------------------- later attempts


@virtual
async def test_a_later_attempt_adds_only_what_is_not_there() -> None:
    async with Stand([count_up]) as stand:
        await write(stand, "p", 0, 1, 2, end=False)
        await run(stand, "p", "count_up", plan(readers={"c": False}), {"n": 5}, attempt=2)
        assert await values(stand, "p") == [0, 1, 2, 3, 4]
        assert [block.attempt for block in await blocks(stand, "p")][:2] == [1, 2]


@virtual
async def test_batches_with_ids_are_known_by_them_in_whichever_order() -> None:
    async def files(names: list[str]) -> AsyncIterator[Batch]:
        for name in names:
            yield Batch(batch_uid=name, payload=name.upper())

    async with Stand([files]) as stand:
        mark = Mark("w", "i", named=True)
        await stand.store.insert_block(Block(StreamId(TASK, 0, "p"), 1, 1, 1, write_body(mark, [b'["b","B"]'])))
        await run(stand, "p", "files", plan(readers={"c": False}), {"names": ["a", "b", "a", "c"]}, attempt=2)
        assert [batch[:2] for batch in await batches(stand, "p")] == [["b", "B"], ["a", "A"], ["c", "C"]]


@virtual
async def test_a_handler_that_asks_goes_on_by_itself() -> None:
    async def pages(ctx: flowkit.Context) -> AsyncIterator[int]:
        for i in range(ctx.stream.resume_from, 5):
            yield 10 * i

    async with Stand([pages]) as stand:
        await write(stand, "p", 0, 10, end=False)
        await run(stand, "p", "pages", plan(readers={"c": False}), attempt=2)
        assert await values(stand, "p") == [0, 10, 20, 30, 40]


@virtual
async def test_a_stream_that_was_closed_is_not_made_again() -> None:
    ran = []

    async def again() -> AsyncIterator[int]:
        ran.append(1)
        yield 1

    async with Stand([again]) as stand:
        mark = Mark("w", "i", end=[["out"], ["next"]])
        await stand.store.insert_block(Block(StreamId(TASK, 0, "p"), 1, 1, 0, write_body(mark, [])))
        report = await run(stand, "p", "again", plan(readers={"c": False}), attempt=2)
        assert (report.output.value, report.next, ran) == ("out", ("next",), [])


@virtual
async def test_a_first_attempt_that_a_later_one_has_overtaken_already_learns_so_when_it_writes() -> None:
    async with Stand([count_up]) as stand:
        await write(stand, "p", 0, 1, end=False, attempt=2)
        before = await blocks(stand, "p")
        report = await run(stand, "p", "count_up", plan(readers={"c": False}), {"n": 5})
        assert (report.error["code"], report.permanent) == ("fenced", False)
        assert await blocks(stand, "p") == before


@virtual
async def test_a_first_attempt_asks_the_store_for_batches_alone() -> None:
    looked: list[str] = []

    async with Stand([add_up]) as stand:
        await write(stand, "p", 1, 2)
        last = stand.store.last_block

        async def noted(stream: StreamId) -> Block | None:
            looked.append(stream.node)
            return await last(stream)

        stand.store.last_block = noted  # type: ignore[method-assign]
        await run(stand, "c", "add_up", plan(reads={"rows": ["p"]}), {"rows": None})
        assert looked == []
        await run(stand, "c", "add_up", plan(reads={"rows": ["p"]}), {"rows": None}, attempt=2)
        assert looked == ["c"]


@virtual
async def test_an_attempt_that_was_overtaken_writes_nothing_more() -> None:
    go_on = asyncio.Event()

    async def slow() -> AsyncIterator[int]:
        yield 1
        await go_on.wait()
        yield 2

    async with Stand([slow]) as stand:
        mine = job(stand, "p", "slow", plan(readers={"c": False}))
        await stand.send(mine)
        while not await blocks(stand, "p"):
            await asyncio.sleep(0.01)
        await stand.store.insert_block(Block(StreamId(TASK, 0, "p"), 2, 2, 1, write_body(Mark("w2", "i"), [])))
        go_on.set()
        await stand.until(lambda: ended(stand, mine))
        assert ended(stand, mine)[0].error["code"] == "fenced"
        assert await values(stand, "p") == [1]


# ---------------------------------------------------------------------------------------------- reading


@virtual
async def test_a_reader_gets_the_batches_in_order_and_says_how_far_it_is() -> None:
    async with Stand([add_up]) as stand:
        await write(stand, "p", *range(100))
        report = await run(stand, "c", "add_up", plan(reads={"rows": ["p"]}), {"rows": None})
        assert report.output.value == sum(range(100))
        assert read_mark((await blocks(stand, "c"))[-1].body).cursors["p"].index == 100


@virtual
async def test_an_attempt_of_a_reader_that_yields_goes_on_behind_what_was_done() -> None:
    seen = []

    async def double(rows: AsyncIterator[int]) -> AsyncIterator[int]:
        async for row in rows:
            seen.append(row)
            yield 2 * row

    async with Stand([double]) as stand:
        await write(stand, "p", 0, 1, 2, 3)
        cursors = {"p": Cursor(index=1, bytes=1, seq=1, part=1)}  # 0 is done with, and 1 was doubled
        await write(stand, "c", 0, 2, end=False, cursors=cursors)
        await run(stand, "c", "double", plan(reads={"rows": ["p"]}, readers={"d": False}), {"rows": None}, attempt=2)
        assert seen == [1, 2, 3]
        assert await values(stand, "c") == [0, 2, 4, 6]


@virtual
async def test_an_attempt_of_a_reader_that_returns_reads_all_again() -> None:
    async with Stand([add_up]) as stand:
        await write(stand, "p", 1, 2, 3)
        await write(stand, "c", end=False, cursors={"p": Cursor(index=2, bytes=2, seq=1)})
        report = await run(stand, "c", "add_up", plan(reads={"rows": ["p"]}), {"rows": None}, attempt=2)
        assert report.output.value == 6


@virtual
async def test_what_was_saved_is_gone_on_from() -> None:
    seen: list[list[int]] = []

    async def total(ctx: flowkit.Context, rows: AsyncIterator[int]) -> int:
        sum_, mine = ctx.stream.state or 0, []
        seen.append(mine)
        async for row in rows:
            mine.append(row)
            sum_ += row
            await ctx.stream.save(sum_)
            if row == 2 and ctx.attempt == 1:
                raise ConnectionError
        return sum_

    async with Stand([total]) as stand:
        await write(stand, "p", 1, 2, 3, 4)
        first = await run(stand, "c", "total", plan(reads={"rows": ["p"]}), {"rows": None})
        assert first.error["code"] == "ConnectionError"
        second = await run(stand, "c", "total", plan(reads={"rows": ["p"]}), {"rows": None}, attempt=2)
        assert second.output.value == 10
        assert seen == [[1, 2], [3, 4]]


@virtual
async def test_several_streams_come_in_turn_or_side_by_side() -> None:
    async def both(rows: flowkit.Stream) -> Any:
        return sorted([[rows.source, rows.index, row] async for row in rows])

    async def pairs(left: AsyncIterator[int], right: AsyncIterator[int]) -> Any:
        return [[one, await anext(right)] async for one in left]

    async with Stand([both, pairs]) as stand:
        await write(stand, "p", 1, 2)
        await write(stand, "q", 3, 4)
        report = await run(stand, "c", "both", plan(reads={"rows": ["p", "q"]}), {"rows": None})
        assert report.output.value == [["p", 0, 1], ["p", 1, 2], ["q", 0, 3], ["q", 1, 4]]
        said = plan(reads={"left": ["p"], "right": ["q"]})
        report = await run(stand, "d", "pairs", said, {"left": None, "right": None})
        assert report.output.value == [[1, 3], [2, 4]]


@virtual
async def test_a_list_may_stand_where_a_stream_is_iterated_over() -> None:
    async with Stand([add_up]) as stand:
        report = await stand.run("add_up", {"rows": [1, 2, 3]})
        assert report.output.value == 6  # type: ignore[union-attr]
        report = await stand.run("add_up", {"rows": 7})
        assert report.error["code"] == "bad_input"  # type: ignore[union-attr]


@virtual
async def test_a_stream_for_a_parameter_that_asks_for_a_value_is_a_bad_input() -> None:
    async def wants(rows: list[int]) -> None: ...

    async with Stand([wants]) as stand:
        await write(stand, "p", 1)
        report = await run(stand, "c", "wants", plan(reads={"rows": ["p"]}), {"rows": None})
        assert report.error["code"] == "bad_input"
        assert "AsyncIterator" in report.error["message"]


@virtual
async def test_a_node_that_ended_without_closing_its_stream_is_read_to_its_end() -> None:
    async with Stand([add_up]) as stand:
        await write(stand, "p", 1, 2, end=False)
        report = await run(stand, "c", "add_up", plan(reads={"rows": ["p"]}, over=["p"]), {"rows": None})
        assert report.output.value == 3
        again = await run(stand, "d", "add_up", plan(reads={"rows": ["p"]}, over=["p"]), {"rows": None})
        assert again.output.value == 3


# ---------------------------------------------------------------------------------------------- how far ahead


@virtual
async def test_a_node_is_never_further_ahead_than_it_may_be() -> None:
    made = read = most = 0

    async def make(n: int) -> AsyncIterator[int]:
        nonlocal made
        for i in range(n):
            made = i
            yield i

    async def slowly(rows: AsyncIterator[int]) -> int:
        nonlocal read, most
        async for _ in rows:
            most = max(most, made - read)
            read += 1
            await asyncio.sleep(0.05)
        return read

    async with Stand([make, slowly]) as stand:
        source = job(stand, "p", "make", plan(readers={"c": True}, awaited=True), {"n": 100})
        await stand.send(source)
        await asyncio.sleep(30)
        assert made == 10, "nobody has read yet"
        reader = job(stand, "c", "slowly", plan(reads={"rows": ["p"]}), {"rows": None})
        await stand.send(reader)
        await stand.until(lambda: ended(stand, reader))
        assert ended(stand, reader)[0].output.value == 100
        assert most <= 11
        asked = [told.report for told in stand.told if isinstance(told.report, Streams)]
        assert len(asked) > 3, "who waits for long asks"


@virtual
async def test_a_reader_that_has_ended_is_waited_for_no_longer() -> None:
    async with Stand([count_up]) as stand:
        mine = job(stand, "p", "count_up", plan(readers={"c": True}), {"n": 50})
        await stand.send(mine)
        await asyncio.sleep(3)
        assert not ended(stand, mine)
        await stand.send(Over(mine.token, TASK, "p", 1, ["c"]))
        await stand.until(lambda: ended(stand, mine))
        assert len(await values(stand, "p")) == 50


@virtual
async def test_what_nobody_reads_yet_is_kept_up_to_a_limit_and_no_further() -> None:
    async with Stand([count_up]) as stand:
        said = plan(readers={"c": False}) | {"limits": [10, 2**40, 500]}
        report = await run(stand, "p", "count_up", said, {"n": 10_000})
        assert (report.error["code"], report.permanent) == ("stream_full", True)
        assert "spill_bytes" in report.error["message"]


@virtual
async def test_who_waits_for_a_stream_takes_up_no_slot() -> None:
    async def quick() -> str:
        return "done"

    async with Stand([add_up, quick], slots=1) as stand:
        waiting = job(stand, "c", "add_up", plan(reads={"rows": ["p"]}), {"rows": None})
        await stand.send(waiting)
        await asyncio.sleep(1)
        assert (await stand.run("quick")).output.value == "done"  # type: ignore[union-attr]
        assert stand.beats[-1].slots == 2
        await write(stand, "p", 1)
        await stand.until(lambda: ended(stand, waiting))


# ---------------------------------------------------------------------------------------------- what may go wrong


@virtual
async def test_a_block_that_the_store_is_silent_about_is_asked_for_again_and_is_there_once() -> None:
    silent = 3

    async with Stand([count_up]) as stand:
        insert = stand.store.insert_block

        async def forgetful(block: Block) -> Outcome:
            nonlocal silent
            outcome = await insert(block)
            silent -= 1
            return Outcome.UNKNOWN if silent >= 0 else outcome

        stand.store.insert_block = forgetful  # type: ignore[method-assign]
        report = await run(stand, "p", "count_up", plan(readers={"c": False}, most=500), {"n": 100})
        assert report.output.value == {"batches": 100}
        assert await values(stand, "p") == list(range(100))
        assert [block.seq for block in await blocks(stand, "p")] == list(range(1, len(await blocks(stand, "p")) + 1))


async def test_a_plain_function_reads_a_stream_by_a_plain_loop() -> None:
    def lengths(rows: Any) -> list[int]:
        return [len(row) for row in rows]

    async with Stand([lengths]) as stand:
        await write(stand, "p", '"a"', '"bcd"')
        mine = job(stand, "c", "lengths", plan(reads={"rows": ["p"]}), {"rows": None})
        await stand.send(mine)
        await stand.until(lambda: ended(stand, mine))
        assert ended(stand, mine)[0].output.value == [1, 3]


@virtual
async def test_a_state_that_is_too_large_fails_for_good() -> None:
    async def hoards(rows: AsyncIterator[int], ctx: flowkit.Context) -> None:
        async for _ in rows:
            await ctx.stream.save("x" * 300_000)

    async with Stand([hoards]) as stand:
        await write(stand, "p", 1)
        report = await run(stand, "c", "hoards", plan(reads={"rows": ["p"]}), {"rows": None})
        assert (report.error["code"], report.permanent) == ("bad_state", True)
        assert "262,144 bytes" in report.error["message"]
