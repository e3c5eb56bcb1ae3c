"""How long-running commands live: trying, serving, stopping; and what they log of it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Iterator

import pytest

from flowkit.cli import lifecycle, outage
from flowkit.cli.lifecycle import Signals, serve
from flowkit.cli.logs import set_up
from flowkit.cli.outage import Outages
from flowkit.errors import BusUnavailable, ConfigError, StoreUnavailable
from flowkit.telemetry import AttemptKilled, DeadLettered, LeaseExpired, LoopFailed, Quarantined, Telemetry


class Service:
    """Fails to start with what is left of `failures`, then serves; `log` says what was done to it."""

    def __init__(self, log: list[str], failures: list[Exception], signals: Signals | None = None) -> None:
        self._log = log
        self._failures = failures
        self._signals = signals

    async def start(self) -> None:
        self._log.append("start")
        if self._failures:
            raise self._failures.pop(0)

    async def started(self) -> None:
        self._log.append("started")
        if self._signals is not None:
            self._signals.asked.set()

    async def stop(self) -> None:
        self._log.append("stop")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "FIRST_PAUSE_SEC", 0.01)
    monkeypatch.setattr(lifecycle, "LONGEST_PAUSE_SEC", 0.03)


async def test_it_goes_on_trying_until_its_services_answer(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    signals, log = Signals(), list[str]()
    failures = [
        StoreUnavailable("no mongo"),
        BusUnavailable("no kafka"),
        *(BusUnavailable("still no") for _ in range(3)),
    ]

    await serve(lambda: Service(log, failures, signals), signals)  # type: ignore[arg-type]

    assert log == ["start"] * 6 + ["started", "stop"]
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "flowkit: no mongo [E_STORE_UNAVAILABLE]; trying again in 0.01 s"
    assert [line.rpartition(" in ")[2] for line in told[:5]] == ["0.01 s", "0.02 s", "0.03 s", "0.03 s", "0.03 s"]
    assert told[5:] == ["flowkit: stopping", "flowkit: stopped"]


async def test_what_trying_cannot_mend_is_raised(quick: None) -> None:
    with pytest.raises(ConfigError):
        await serve(lambda: Service([], [ConfigError("wrong")]), Signals())


async def test_a_signal_ends_the_trying(capsys: pytest.CaptureFixture[str]) -> None:
    log: list[str] = []
    with Signals() as signals:
        serving = asyncio.create_task(serve(lambda: Service(log, [StoreUnavailable("no")]), signals))
        await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(serving, 30)

    assert log == ["start"]
    assert capsys.readouterr().err.splitlines()[-1] == "flowkit: stopped"


async def test_a_signal_ends_a_start_that_hangs() -> None:
    class Hanging(Service):
        async def start(self) -> None:
            await asyncio.sleep(60)

    with Signals() as signals:
        serving = asyncio.create_task(serve(lambda: Hanging([], []), signals))
        await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(serving, 30)


async def test_what_was_started_is_stopped_whatever_happens() -> None:
    class Failing(Service):
        async def started(self) -> None:
            raise RuntimeError("broken")

    log: list[str] = []
    with pytest.raises(RuntimeError):
        await serve(lambda: Failing(log, []), Signals())
    assert log == ["start", "stop"]


async def test_the_second_signal_is_a_hurry() -> None:
    hurried: list[bool] = []
    with Signals(at_once=lambda: hurried.append(True)) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(signals.asked.wait(), 30)
        assert hurried == []
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(30):
            while not hurried:
                await asyncio.sleep(0.01)

    assert hurried == [True]


# Outages while it runs.


class Sometimes:
    """A part of a backend whose `describe` gives the next of its answers."""

    def __init__(self, *answers: Exception | None) -> None:
        self._answers = list(answers)

    async def describe(self) -> dict[str, str]:
        answer = self._answers.pop(0) if self._answers else None
        if answer is not None:
            raise answer
        return {}


async def test_outages_are_told_once_and_so_is_their_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(outage, "LOOK_SEC", 0.01)
    monkeypatch.setattr(outage, "AWAY_LOOK_SEC", 0.01)

    class Backend:
        bus = Sometimes(None, BusUnavailable("gone"), TimeoutError())
        store = Sometimes()

    watching = asyncio.create_task(Outages(Backend, "k:1").watch())  # type: ignore[arg-type]
    said = ""
    async with asyncio.timeout(30):
        while "answers again" not in said:
            await asyncio.sleep(0.02)
            said += capsys.readouterr().err
    await asyncio.sleep(0.05)
    watching.cancel()

    told = (said + capsys.readouterr().err).splitlines()
    assert told[0] == "flowkit: Kafka at k:1 does not answer; going on trying: gone"
    assert told[1].startswith("flowkit: Kafka at k:1 answers again, after ")
    assert len(told) == 2


# The log.


@pytest.fixture
def log() -> Iterator[Telemetry]:
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    drivers = {name: logging.getLogger(name).level for name in ("aiokafka", "pymongo", "asyncio", "kafka")}
    set_up("info", debug=False)
    yield Telemetry()
    root.setLevel(level)
    root.handlers = handlers
    for name, driver_level in drivers.items():
        logging.getLogger(name).setLevel(driver_level)


def test_that_a_service_is_away_is_one_line(log: Telemetry, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(20):
        log.emit(LoopFailed("c-1", "sweeper", StoreUnavailable("mongo: no answer"), 0.05))
        log.emit(LoopFailed("c-1", "intake", StoreUnavailable("mongo: no answer"), 0.05))

    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("WARNING sweeper: StoreUnavailable: mongo: no answer; again in 0.05 s")


def test_a_fault_of_ours_has_its_traceback(log: Telemetry, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise KeyError("x")
    except KeyError as error:
        log.emit(LoopFailed("c-1", "sweeper", error, 0.05))

    told = capsys.readouterr().err
    assert "sweeper: KeyError: 'x'" in told
    assert "Traceback" in told


def test_happenings_are_sentences(log: Telemetry, capsys: pytest.CaptureFixture[str]) -> None:
    for happening in (
        LeaseExpired("T", "n", 2, "w"), AttemptKilled("w", "token", "no_renewal"), AttemptKilled("w", "token", "drain"),
        DeadLettered("f.facts.v1", "not\nJSON"), Quarantined("T", "a gap"),
    ):  # fmt: skip
        log.emit(happening)

    assert [line.split(maxsplit=3)[3] for line in capsys.readouterr().err.splitlines()] == [
        "worker w is silent: node 'n' of task T, attempt 2, is given to another",
        "worker w stopped the attempt with lease token: no_renewal",
        "a message of f.facts.v1 went to the dead letters: not JSON",
        "task T is quarantined: a gap",
    ]


def test_others_log_as_they_do(log: Telemetry, capsys: pytest.CaptureFixture[str]) -> None:
    logging.getLogger("app").info("from %s\x1b", "here")
    logging.getLogger("app").debug("not this")
    logging.getLogger("aiokafka").error("Unable to connect")

    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(r"INFO    from here\x1b")


def test_the_log_goes_where_stderr_is_now(log: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    later = io.StringIO()
    monkeypatch.setattr(sys, "stderr", later)
    logging.getLogger("app").warning("there")
    assert later.getvalue().endswith("there\n")
