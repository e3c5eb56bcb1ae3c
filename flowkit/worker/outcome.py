"""Judges what a handler raised: its code, whether trying again helps, and what of it the user should read."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowkit.core.facts import ErrorInfo
from flowkit.core.reports import Failed
from flowkit.errors import FlowKitError, InputError, Permanent, Retry
from flowkit.sandbox.outcome import Failure
from flowkit.wire.codec import dumps

PERMANENT = (Permanent, InputError, TypeError, ValueError, KeyError, AssertionError)
MOST_MESSAGE = 8 * 1024
MOST_TRACEBACK = 16 * 1024
MOST_ENCODED = 36 * 1024  # control characters grow sixfold in JSON, and a report must fit into a message
LONGEST_CODE = 128
LAST_FRAMES = 40
ENGINE = str(Path(__file__).resolve().parents[1])
MACHINERY = (
    ENGINE,
    f"{Path(traceback.__file__).parent}/asyncio/",
)

Classify = Callable[[BaseException], Any]
Hide = Callable[[str], str]


def as_it_is(text: str) -> str:
    return text


@dataclass(frozen=True, slots=True)
class Judgement:
    code: str
    permanent: bool = False
    retry_after: float | None = None
    final: bool = False


class AttemptFailure(Exception):
    """Raised inside the worker: the attempt fails in this way, without a traceback of the user's."""

    def __init__(self, code: str, message: str, *, permanent: bool) -> None:
        super().__init__(message)
        self.code = code
        self.permanent = permanent


class ProgramFailure(Exception):
    """Raised inside the worker: the program of the attempt ended in this way."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure

    def report(self, node: str, attempt: int, token: str, run_sec: float) -> Failed:
        said = self.failure
        info: ErrorInfo = {"code": said.code, "message": said.message}
        info |= {name: text for name, text in (("type", said.type), ("traceback", said.traceback)) if text}
        _fit(info)
        return Failed(
            node, attempt, token, info, said.permanent, said.retry_after, run_sec, final=said.final and said.permanent
        )


def judge(error: BaseException, classify: Classify | None = None, hide: Hide = as_it_is) -> Judgement:
    """What an error means for the attempt. A class's `classify_error` decides first, if it answers sensibly."""
    after = error.after_sec if isinstance(error, Retry) else None
    after = after if isinstance(after, int | float) and after >= 0 else None
    if isinstance(error, AttemptFailure):
        return Judgement(error.code, error.permanent)
    if classify is not None and not isinstance(error, InputError):
        try:
            code, permanent = classify(error)
            final = bool(permanent) and isinstance(error, Permanent)
            return Judgement(clean(hide(str(code)), LONGEST_CODE), bool(permanent), after, final)
        except Exception as trouble:  # a classifier that fails must not hide what it was asked about
            error.add_note(f"classify_error failed on this: {type(trouble).__name__}: {_message_of(trouble)}")
            return _by_its_type(error, after, hide)
    return _by_its_type(error, after, hide)


def _by_its_type(error: BaseException, after: float | None, hide: Hide) -> Judgement:
    return Judgement(_code_of(error, hide), isinstance(error, PERMANENT), after, isinstance(error, Permanent))


def failed(node: str, attempt: int, token: str, error: BaseException, *, run_sec: float,
           classify: Classify | None = None, hide: Hide = as_it_is) -> Failed:  # fmt: skip
    """The report of an attempt that ended with this error. `hide` makes of every text one that may leave this process,
    before anything is cut: half a secret is one too."""
    if isinstance(error, ProgramFailure):
        return error.report(node, attempt, token, run_sec)
    judgement = judge(error, classify, hide)
    info: ErrorInfo = {"code": judgement.code, "message": _message_of(error, hide), "type": hide(type(error).__name__)}
    if not isinstance(error, AttemptFailure | InputError):
        info["traceback"] = traceback_of(error, hide)
    _fit(info)
    return Failed(
        node, attempt, token, info, judgement.permanent, judgement.retry_after, run_sec, final=judgement.final
    )


def traceback_of(error: BaseException, hide: Hide = as_it_is) -> str:
    """The traceback as the user's own code sees it: no frame of FlowKit, and never too long."""
    try:
        whole = traceback.TracebackException.from_exception(error, limit=-LAST_FRAMES)
        _strip(whole, 0)
        text = "".join(whole.format())
    except Exception as trouble:  # an exception may break its own printing
        text = f"{type(error).__name__} (its traceback cannot be printed: {type(trouble).__name__})\n"
    return clean(hide(text), MOST_TRACEBACK, keep_end=True)


def clean(text: str, most: int, *, keep_end: bool = False) -> str:
    """At most so many characters, none of which UTF-8 cannot say."""
    if len(text) > most:
        text = f"[...]{text[-most + 5 :]}" if keep_end else f"{text[: most - 5]}[...]"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _code_of(error: BaseException, hide: Hide) -> str:
    # Only what FlowKit's own exceptions say: elsewhere `code` means other things (HTTP status, SQL state).
    if isinstance(error, Permanent | Retry | FlowKitError):
        return clean(hide(str(error.code)), LONGEST_CODE)
    return clean(hide(type(error).__name__), LONGEST_CODE)


def _message_of(error: BaseException, hide: Hide = as_it_is) -> str:
    try:
        text = str(error)
    except Exception as trouble:  # a user's own __str__
        text = f"(its message cannot be read: {type(trouble).__name__})"
    return clean(hide(text), MOST_MESSAGE)


def _fit(info: ErrorInfo) -> None:
    for name in ("traceback", "message"):
        while len(dumps(info)) > MOST_ENCODED and len(info.get(name, "")) > 1000:
            info[name] = clean(info[name], len(info[name]) // 2, keep_end=name == "traceback")


def _strip(whole: traceback.TracebackException, depth: int) -> None:
    kept = [frame for frame in whole.stack if not frame.filename.startswith(MACHINERY)]
    whole.stack = traceback.StackSummary.from_list(kept)
    if depth < 8:
        for inner in (whole.__cause__, whole.__context__, *(whole.exceptions or ())):
            if inner is not None:
                _strip(inner, depth + 1)
