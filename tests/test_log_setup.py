"""Logging with FlowKit: silent until asked, lines of JSON, fields and contexts."""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from flowkit import log_setup
from flowkit.core import log as older
from flowkit.log_lines import LineHandler
from flowkit.telemetry import LoopFailed, Telemetry, log


@pytest.fixture(autouse=True)
def tidy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("STDOUT", "LEVEL", "PRETTY", "STACK"):
        monkeypatch.delenv(f"FLOWKIT_LOG_{name}", raising=False)
    yield
    log_setup.disable_stdout_logging()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_older_code_finds_all_of_it_under_its_old_address() -> None:
    for name in log_setup.__all__:
        assert getattr(older, name) is getattr(log_setup, name)
    assert dir(older) == sorted(log_setup.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'os'"):
        _ = older.os


def test_the_old_address_loads_nothing_before_it_is_asked() -> None:
    script = "import sys, flowkit.core.log; print({'flowkit.log_setup', 'flowkit.telemetry'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"


def test_it_is_silent_by_default() -> None:
    script = "from flowkit.core.log import get_logger; get_logger('x').error('nobody reads this', rows=3)"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == ("", "")


def test_any_keyword_becomes_a_field(capsys: pytest.CaptureFixture[str]) -> None:
    log_setup.enable_stdout_logging()

    log_setup.get_logger("etl").info("loaded %s", "a.csv", event="etl.loaded", rows=3, when=complex(1, 2))

    [line] = lines(capsys)
    assert line.pop("ts").endswith("+00:00")
    assert line == {
        "level": "INFO", "logger": "flowkit.etl", "message": "loaded a.csv", "event": "etl.loaded", "rows": 3,
        "when": "(1+2j)",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "name"), [("etl", "flowkit.etl"), ("flowkit", "flowkit"), ("flowkit.x", "flowkit.x"), ("", "flowkit")]
)
def test_loggers_live_below_flowkits(asked: str, name: str) -> None:
    assert log_setup.get_logger(asked).logger.name == name


async def test_a_context_is_carried_by_every_line_of_its_task_alone(capsys: pytest.CaptureFixture[str]) -> None:
    log_setup.enable_stdout_logging()
    logger = log_setup.get_logger("x")

    async def other() -> None:
        log_setup.bind_context(task_id="other")
        logger.info("other")

    log_setup.bind_context(task_id="t")
    with log_setup.log_context(node_id="n", task_id="inner"):
        await asyncio.create_task(other())
        logger.info("inner", node_id="given")
    logger.info("outer")

    said = [(line["message"], line["task_id"], line.get("node_id")) for line in lines(capsys)]
    assert said == [("other", "other", "n"), ("inner", "inner", "given"), ("outer", "t", None)]


def test_what_is_swallowed_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    log_setup.enable_stdout_logging(level="debug")
    logger = log_setup.get_logger("x")

    with log_setup.swallow(logger=logger, code="cache", msg="no cache", level=logging.INFO, key="k"):
        raise ValueError("broken")
    with log_setup.swallow(logger=logging.getLogger("flowkit.plain"), code="seen", expected=True):
        raise KeyError("k")
    with pytest.raises(OSError, match="gone"), log_setup.swallow(logger=logger, reraise=True):
        raise OSError("gone")

    first, second, third = lines(capsys)
    assert (first["level"], first["message"], first["code"], first["error"], first["key"]) == (
        "INFO", "no cache", "cache", "broken", "k",
    )  # fmt: skip
    assert 'raise ValueError("broken")' in first["stack"]
    assert (second["logger"], second["error_type"], "stack" in second) == ("flowkit.plain", "KeyError", False)
    assert third["error"] == "gone"


async def test_a_cancellation_is_never_swallowed() -> None:
    async def work() -> None:
        with log_setup.swallow(code="x"):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_warning_is_said_once_for_each_logger_and_code(capsys: pytest.CaptureFixture[str]) -> None:
    log_setup.enable_stdout_logging()
    one, other = log_setup.get_logger("once.one"), log_setup.get_logger("once.other")

    assert log_setup.warn_once(one, "old", "%s is old", "x", hint="y")
    assert not log_setup.warn_once(one, "old", "%s is old", "z")
    assert log_setup.warn_once(other, "old", "also old", level=logging.ERROR)

    first, second = lines(capsys)
    assert (first["level"], first["message"], first["hint"], first["code"]) == ("WARNING", "x is old", "y", "old")
    assert (second["level"], second["message"]) == ("ERROR", "also old")


def test_errors_may_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    log_setup.enable_stdout_logging(json_output=False, route_errors_to_stderr=True, include_stack=False)
    logger = log_setup.get_logger("x")
    logger.warning("careful", n=1)
    logger.error("bad", exc_info=ValueError("x"))

    said = capsys.readouterr()
    assert said.out.endswith("WARNING flowkit.x careful n=1\n")
    assert said.err.endswith("ERROR   flowkit.x bad\n")


def test_asking_again_replaces_and_disabling_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    log_setup.enable_stdout_logging()
    log_setup.enable_stdout_logging(pretty=True, level=logging.WARNING)
    logger = log_setup.get_logger("x")
    logger.info("not said")
    logger.warning("said")
    log_setup.disable_stdout_logging()
    logger.warning("not said either")

    out = capsys.readouterr().out
    assert json.loads(out)["message"] == "said"
    assert out.startswith("{\n  ")
    assert log.level == logging.NOTSET


def test_happenings_are_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    log_setup.enable_stdout_logging()

    Telemetry().emit(LoopFailed("w-1", "intake", OSError("gone"), 0.5))

    [line] = lines(capsys)
    assert (line["event"], line["level"], line["logger"]) == ("LoopFailed", "WARNING", "flowkit")
    assert "gone" in line["stack"]


def test_the_environment_may_ask_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert not log_setup.configure_from_env({})
    assert not log_setup.configure_from_env({"FLOWKIT_LOG_LEVEL": "error"})
    assert log.level == logging.ERROR
    asked = {"FLOWKIT_LOG_STDOUT": "1", "FLOWKIT_LOG_LEVEL": "debug", "FLOWKIT_LOG_PRETTY": "yes",
             "FLOWKIT_LOG_STACK": "0"}  # fmt: skip
    assert log_setup.configure_from_env(asked)

    log_setup.get_logger("x").debug("said", exc_info=ValueError("x"))

    out = capsys.readouterr().out
    assert out.startswith("{\n  ")
    assert "stack" not in json.loads(out)
    with pytest.raises(ValueError, match="LOUD"):
        log_setup.configure_from_env({"FLOWKIT_LOG_LEVEL": "loud"})


def test_whoever_runs_a_coordinator_or_a_worker_need_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_LOG_STDOUT", "true")
    Telemetry()
    [handler] = [handler for handler in log.handlers if isinstance(handler, LineHandler)]

    log_setup.set_level("error")
    Telemetry()

    assert handler in log.handlers, "what the application has set since is left alone"
    assert log.level == logging.ERROR
