"""What attempts say: how it leaves the worker, and what is cut."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from flowkit import Context
from flowkit.adapters.memory import MemoryBus
from flowkit.clock import SystemClock
from flowkit.config import WorkerConfig
from flowkit.errors import ConfigError
from flowkit.wire.logs import LogLine, decode_logs, lines_of
from flowkit.wire.topics import MAX_MESSAGE_BYTES
from flowkit.worker.attempt_log import AttemptLog, LogBounds
from tests.worker.stand import Stand, virtual


class Listener:
    """Reads `logs.v1` of a stand."""

    def __init__(self, stand: Stand) -> None:
        self.stand = stand
        self.sizes: list[int] = []

    async def __aenter__(self) -> Listener:
        bus = MemoryBus(self.stand.broker)
        self._tail = await bus.tail(self.stand.topics.logs)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tail.stop()

    async def lines(self, wait: float = 2.0) -> list[LogLine]:
        """What has come, once nothing more does for a while."""
        found: list[LogLine] = []
        while records := await self._tail.fetch(wait):
            for record in records:
                self.sizes.append(len(record.value or b""))
                found += [line for block in decode_logs(record.value) for line in lines_of(block)]
        return found


async def say(handler: Any, **cfg: Any) -> list[LogLine]:
    async with Stand([handler], **cfg) as stand, Listener(stand) as listener:
        await stand.run(handler.__name__)
        return await listener.lines()


@virtual
async def test_each_line_says_whose_it_is_what_and_when() -> None:
    async def talks(ctx: Context) -> None:
        ctx.log.info("loaded %d of %s", 3, "x", rows=3, of={"a": [1, None]})
        ctx.log.debug("small")
        ctx.log.warning("100%")
        await asyncio.sleep(5)
        try:
            raise ValueError("no")
        except ValueError:
            ctx.log.exception("failed", code=7)

    lines = await say(talks)

    assert [(line.sequence, line.level, line.message) for line in lines] == [
        (1, "info", "loaded 3 of x"),
        (2, "debug", "small"),
        (3, "warning", "100%"),
        (4, "error", "failed"),
    ]
    assert {(line.task_id, line.node_id, line.attempt) for line in lines} == {("t1", "n", 1)}
    assert lines[0].fields == {"rows": 3, "of": {"a": [1, None]}}
    assert lines[3].fields["code"] == 7
    assert lines[3].fields["traceback"].rstrip().endswith("ValueError: no")
    assert lines[3].at == pytest.approx(lines[0].at + 5)
    assert lines[0].trace_id == lines[3].trace_id
    assert len(lines[0].trace_id) == 32


def test_a_plain_handler_says_lines_from_its_thread() -> None:
    def talks(ctx: Context) -> None:
        for number in range(2000):
            ctx.log.info("line %d", number)

    lines = asyncio.run(say(talks, clock=SystemClock()))

    assert [line.message for line in lines] == [f"line {number}" for number in range(2000)]
    assert [line.sequence for line in lines] == list(range(1, 2001))


@virtual
async def test_what_is_below_the_level_is_not_kept() -> None:
    async def talks(ctx: Context) -> None:
        for level in ("debug", "info", "warning", "error"):
            getattr(ctx.log, level)(level)

    assert [line.level for line in await say(talks, log_level="warning")] == ["warning", "error"]


def test_a_level_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"log_level is one of debug, info, warning, error, not 'loud'"):
        WorkerConfig(log_level="loud")


@virtual
async def test_what_json_cannot_say_is_said_as_text() -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("never")

    async def talks(ctx: Context) -> None:
        ctx.log.info("a \ud800 b", one=Odd(), two={1, 2}, three=float("nan"), four={"\ud800": b"x"}, five=10**30)
        ctx.log.info("%d", "no number")
        ctx.log.info(Odd())  # type: ignore[arg-type]

    first, second, third = await say(talks)

    assert first.message == r"a \ud800 b"
    assert first.fields == {
        "one": "(a Odd whose text cannot be read: RuntimeError)", "two": "{1, 2}", "three": None,
        "four": {r"\ud800": "b'x'"}, "five": 10**30,
    }  # fmt: skip
    assert second.message == "'%d' ('no number',)"
    assert third.message == "(a Odd)"


@virtual
async def test_a_line_whose_arguments_cannot_be_shown_fails_nothing() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError("never")

    async def talks(ctx: Context) -> None:
        ctx.log.info("one %s", Odd())
        ctx.log.info("two")

    assert [line.message for line in await say(talks)] == [
        "'one %s' (arguments that cannot be shown: RuntimeError)", "two",
    ]  # fmt: skip


@virtual
async def test_what_is_too_long_is_cut_and_says_so() -> None:
    async def talks(ctx: Context) -> None:
        ctx.log.info("x" * 20_000)
        ctx.log.info("\x00" * 16_000, big="y" * 100_000)
        ctx.log.info("many", **{f"n{number}": "z" * 8000 for number in range(10)})

    async with Stand([talks]) as stand, Listener(stand) as listener:
        await stand.run("talks")
        first, second, third = await listener.lines()

    assert first.message == "x" * 16_384 + " (3616 characters were cut)"
    assert second.message.endswith("(15900 characters were cut)")
    assert second.fields["big"] == "y" * 8192 + " (91808 characters were cut)"
    assert "bytes were cut" in third.fields["fields"]
    assert max(listener.sizes) <= MAX_MESSAGE_BYTES


@virtual
async def test_an_attempt_that_says_too_much_is_cut_and_two_lines_say_so() -> None:
    async def talks(ctx: Context) -> None:
        for number in range(25):
            ctx.log.info("line %d", number)

    lines = await say(talks, log_lines=10)

    assert [line.message for line in lines[:10]] == [f"line {number}" for number in range(10)]
    assert "is cut" in lines[10].message
    assert lines[11].message == ("15 lines were cut: the attempt had said all that it may (10 lines, 4194304 bytes)")
    assert lines[11].fields == {"cut": 15, "why": "attempt"}
    assert [line.sequence for line in lines] == list(range(1, 13))

    lines = await say(talks, log_bytes=300)
    assert lines[-1].fields["cut"] == 25 - (len(lines) - 2)
    assert 3 < len(lines) < 15


@virtual
async def test_while_kafka_is_away_lines_wait_and_then_come_in_order() -> None:
    async def talks(ctx: Context) -> None:
        for number in range(3000):
            ctx.log.info("line %d %s", number, "x" * 100)
            if number % 1000 == 0:
                await asyncio.sleep(1)

    async with Stand([talks]) as stand, Listener(stand) as listener:
        stand.bus.deaf.add(stand.topics.logs)
        await stand.run("talks")
        assert await listener.lines(5.0) == []

        stand.bus.deaf.clear()
        lines = await listener.lines(10.0)

    assert [line.sequence for line in lines] == list(range(1, 3001))
    assert max(listener.sizes) <= MAX_MESSAGE_BYTES


@virtual
async def test_without_room_lines_are_cut_where_they_would_be_and_the_handler_never_waits() -> None:
    took: list[float] = []

    async def talks(ctx: Context) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for number in range(1000):
            ctx.log.info("early %d", number)
        took.append(loop.time() - began)
        await asyncio.sleep(60)
        ctx.log.info("late")

    async with Stand([talks]) as stand, Listener(stand) as listener:
        stand.runtime._logs._most = 20_000
        stand.bus.deaf.add(stand.topics.logs)
        job = stand.job("talks")
        await stand.send(job)
        await asyncio.sleep(30)
        stand.bus.deaf.clear()
        await stand.result(job, 90)
        lines = await listener.lines(10.0)

    kept = [line for line in lines if line.message.startswith("early")]
    assert took == [0.0]
    assert [line.message for line in kept] == [f"early {number}" for number in range(len(kept))]
    assert 100 < len(kept) < 1000
    cut, late = lines[len(kept) :]
    assert cut.fields == {"cut": 1000 - len(kept), "why": "worker"}
    assert late.message == "late"
    assert [line.sequence for line in lines] == list(range(1, len(lines) + 1))


@virtual
async def test_a_worker_that_leaves_sends_what_was_said() -> None:
    async def talks(ctx: Context) -> None:
        ctx.log.info("last words")
        await asyncio.sleep(60)

    async with Stand([talks]) as stand, Listener(stand) as listener:
        await stand.send(stand.job("talks"))
        await stand.until(lambda: stand.runtime.active)
        await stand.runtime.stop()
        assert [line.message for line in await listener.lines()] == ["last words"]


@virtual
async def test_an_attempt_that_is_over_is_not_heard() -> None:
    kept: list[Any] = []

    async def talks(ctx: Context) -> None:
        kept.append(ctx.log)
        ctx.log.info("in time")

    async with Stand([talks]) as stand, Listener(stand) as listener:
        await stand.run("talks")
        kept[0].info("too late")
        assert [line.message for line in await listener.lines()] == ["in time"]


@pytest.fixture
def quiet_root() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.INFO)
    yield root
    root.setLevel(level)


def test_what_libraries_log_is_kept_where_that_is_asked_for(quiet_root: logging.Logger) -> None:
    library = logging.getLogger("some.library")

    async def asynchronous(ctx: Context) -> None:
        await asyncio.sleep(0)
        library.warning("from %s", "a library", extra={"host": "h1"})
        library.debug("not enabled")
        ctx.log.info("mine")

    def plain() -> None:
        library.error("from a thread")

    def fresh_thread() -> None:
        thread = threading.Thread(target=library.error, args=("nobody's",))
        thread.start()
        thread.join()

    async def both() -> list[LogLine]:
        async with (
            Stand([asynchronous, plain, fresh_thread], clock=SystemClock(), capture_logging=True) as stand,
            Listener(stand) as listener,
        ):
            for role in ("asynchronous", "plain", "fresh_thread"):
                await stand.run(role)
            library.warning("between attempts")
            return await listener.lines(1.0)

    before = list(quiet_root.handlers)
    lines = asyncio.run(both())

    assert [(line.task_id, line.level, line.message) for line in sorted(lines, key=lambda line: line.at)] == [
        ("t1", "warning", "from a library"),
        ("t1", "info", "mine"),
        ("t2", "error", "from a thread"),
    ]
    assert {"logger": "some.library", "host": "h1"} in [line.fields for line in lines]
    assert quiet_root.handlers == before


def test_what_libraries_log_is_left_alone_otherwise(quiet_root: logging.Logger) -> None:
    async def handler() -> None:
        logging.getLogger("some.library").warning("x")

    assert asyncio.run(say(handler)) == []


class TestRedaction:
    def log(self, **bounds: Any) -> AttemptLog:
        job = type("Job", (), {"task_id": "t", "tenant": "default", "node": "n", "attempt": 1})()
        return AttemptLog(
            job, LogBounds(**{"lines": 10, "bytes": 10**6, "level": 0, **bounds}), clock=lambda: 5.0,
            room=lambda size, always: True, wake=lambda log: None,
        )  # fmt: skip

    def test_a_text_is_cleared_wherever_it_stands(self) -> None:
        log = self.log()
        log.redact = lambda text: text.replace("hunter22", "[REDACTED]")
        log.write(20, "pw=hunter22", {"hunter22": {"deep": ["hunter22", 7]}, "odd": ValueError("hunter22")})

        taken = log.take()
        assert taken is not None
        assert b"hunter22" not in b"".join(taken[3])
        assert b"".join(taken[3]).count(b"[REDACTED]") == 4

    def test_half_a_secret_behind_a_cut_is_none(self) -> None:
        log = self.log()
        log.redact = lambda text: text.replace("hunter22", "*")
        log.write(20, "x" * 16_380 + "hunter22")

        taken = log.take()
        assert taken is not None
        assert b"hunt" not in taken[3][0]
