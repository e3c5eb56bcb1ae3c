"""What an exception means, and what the user reads of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from flowkit.core.reports import Failed
from flowkit.errors import Cancelled, ConfigError, InputError, Permanent, Retry
from flowkit.wire.codec import dumps
from flowkit.worker.outcome import AttemptFailure, Judgement, failed, judge, traceback_of


def report(error: BaseException, classify: Any = None) -> Failed:
    return failed("n", 2, "k", error, run_sec=0.5, classify=classify)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


class HttpError(Exception):
    code = "404"


@pytest.mark.parametrize(
    ("error", "judgement"),
    [
        (TypeError(), Judgement("TypeError", True)),
        (ValueError(), Judgement("ValueError", True)),
        (json.JSONDecodeError("m", "d", 0), Judgement("JSONDecodeError", True)),
        (KeyError(), Judgement("KeyError", True)),
        (AssertionError(), Judgement("AssertionError", True)),
        (IndexError(), Judgement("IndexError")),
        (RuntimeError(), Judgement("RuntimeError")),
        (TimeoutError(), Judgement("TimeoutError")),
        (ConnectionError(), Judgement("ConnectionError")),
        (HttpError(), Judgement("HttpError")),
        (SystemExit(1), Judgement("SystemExit")),
        (asyncio.CancelledError(), Judgement("CancelledError")),
        (Cancelled(), Judgement("Cancelled")),
        (Permanent("no column"), Judgement("permanent", True, None, True)),
        (Permanent("bad_input", "no column"), Judgement("bad_input", True, None, True)),
        (InputError("no"), Judgement("bad_input", True)),
        (ConfigError("no"), Judgement("E_CONFIG")),
        (Retry(), Judgement("retry")),
        (Retry("later", after_sec=5, code="busy"), Judgement("busy", False, 5)),
        (Retry(after_sec=-1), Judgement("retry")),
        (AttemptFailure("batch_failed", "no", permanent=True), Judgement("batch_failed", True)),
    ],
)
def test_the_kind_of_an_error_decides(error: BaseException, judgement: Judgement) -> None:
    assert judge(error) == judgement


def test_a_class_decides_first() -> None:
    assert judge(ValueError(), lambda error: ("mine", False)) == Judgement("mine", False)
    assert judge(Retry(after_sec=3), lambda error: ("mine", False)) == Judgement("mine", False, 3)
    assert judge(InputError("no"), lambda error: ("mine", False)) == Judgement("bad_input", True)


@pytest.mark.parametrize("classify", [lambda error: None, lambda error: 1 / 0, lambda error: ("a", "b", "c")])
def test_a_classifier_that_fails_hides_nothing(classify: Any) -> None:
    assert judge(ValueError(), classify) == Judgement("ValueError", True)


def test_why_a_classifier_failed_is_told_with_what_it_was_asked_about() -> None:
    found = report(raised(ValueError("no column 'id'")), lambda error: 1 / 0)

    assert found.error["message"] == "no column 'id'"
    assert "classify_error failed on this: ZeroDivisionError: division by zero" in found.error["traceback"]


def test_a_report_carries_code_message_type_and_traceback() -> None:
    found = report(raised(ValueError("no column 'id'")))

    assert (found.node, found.attempt, found.token, found.run_sec) == ("n", 2, "k", 0.5)
    assert found.permanent
    assert found.error["code"] == found.error["type"] == "ValueError"
    assert found.error["message"] == "no column 'id'"
    assert "test_outcome.py" in found.error["traceback"]
    assert found.error["traceback"].endswith("ValueError: no column 'id'\n")


def test_causes_are_shown_and_frames_of_flowkit_are_not() -> None:
    def user_code() -> None:
        try:
            dumps(object())
        except TypeError as error:
            raise RuntimeError("outer") from error

    try:
        user_code()
    except RuntimeError as error:
        text = traceback_of(error)

    assert "user_code" in text
    assert "The above exception was the direct cause" in text
    assert "flowkit/wire" not in text


def test_exception_groups_are_shown() -> None:
    text = traceback_of(raised(ExceptionGroup("several", [ValueError("one"), KeyError("two")])))

    assert "ValueError: one" in text
    assert "KeyError: 'two'" in text


def test_a_deep_recursion_is_short() -> None:
    def deeper() -> None:
        deeper()

    with pytest.raises(RecursionError) as caught:
        deeper()

    assert len(traceback_of(caught.value)) < 6000


def test_an_error_that_breaks_its_own_printing_is_told_all_the_same() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("never")

    found = report(raised(Broken()))

    assert found.error["code"] == "Broken"
    assert "cannot be read" in found.error["message"]


@pytest.mark.parametrize("text", ["x" * 10**6, "\x00" * 10**6, "ä" * 10**6, "\ud800" * 10**5, "a\nb" * 10**5])
def test_no_error_outgrows_a_message(text: str) -> None:
    found = report(raised(ValueError(text)))

    assert len(dumps(found.error)) < 40 * 1024
    assert found.error["message"].startswith(text.encode("utf-8", "backslashreplace").decode()[:1])
    json.loads(dumps(found.error))
