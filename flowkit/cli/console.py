"""What is written to a terminal, a file or a pipe, and how errors are said."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import sys
import traceback
from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from flowkit import cli
from flowkit.errors import (
    BusUnavailable,
    ConfigError,
    FlowKitError,
    FlowNameError,
    GraphError,
    IdempotencyConflict,
    SecretNameError,
    SecretValueError,
    StoreUnavailable,
    WaitTimeout,
)

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# Users' code said so: which line of it is worth as much as the message.
OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class UsageError(Exception):
    """The command cannot be carried out as it was given; the message says what to change."""

    code = "E_USAGE"


class UserCodeError(Exception):
    """A module of the user's failed while it was imported; `__cause__` is its own exception."""

    code = "E_IMPORT"


def fancy(stream: TextIO) -> bool:
    """Whether colours and moving pictures are welcome there."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def clean(text: object) -> str:
    """Text of a stranger's as it may be shown: what would steer the terminal is spelled out."""
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", _encodable(str(text), sys.stderr))


def one_line(text: object, width: int = 200) -> str:
    line = " ".join(clean(text).split())
    return line if len(line) <= width else line[: width - 3] + "..."


def say(message: str) -> None:
    """A line for the person in front of it; stdout is kept for results."""
    sys.stderr.write(f"flowkit: {message}\n")
    sys.stderr.flush()


def put(text: str) -> None:
    """A line of the result."""
    sys.stdout.write(_encodable(text, sys.stdout) + "\n")


def put_json(value: Any, *, indent: int | None = 2) -> None:
    """A result as JSON; bytes become `{"base64": "..."}`."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=_plain)
    if not _fits(text, sys.stdout):
        text = json.dumps(value, indent=indent, default=_plain)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows under titles: coloured in a terminal, aligned columns elsewhere."""
    shown = [[one_line(cell, 60) for cell in row] for row in rows]
    if fancy(sys.stdout):
        from flowkit.cli.tree import show_table

        show_table(titles, shown)
        return
    widths = [max(map(len, column)) for column in zip(titles, *shown, strict=True)]
    for row in ([*titles], *shown):
        put("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def report(error: Exception) -> int:
    """Say what went wrong and what to do, without a traceback; the exit code that goes with it."""
    match error:
        case GraphError():
            _report_problems(error)
            return cli.USAGE
        case UserCodeError():
            say(f"{error}{_where(error.__cause__)}")
        case ConfigError() | UsageError() | IdempotencyConflict() | FlowNameError():
            say(f"{clean(error)} [{error.code}]")
        case SecretNameError() | SecretValueError():
            say(f"{clean(error)} [{error.code}]")
        case WaitTimeout():
            say(f"{clean(error)} [{error.code}]")
            return cli.TIMEOUT
        case StoreUnavailable() | BusUnavailable():
            say(f"{clean(error)} [{error.code}]; `flowkit doctor` tells more")
            return cli.FAILED
        case FlowKitError():
            say(f"{clean(error)} [{error.code}]")
            return cli.FAILED
        case _:
            say(f"internal error: {type(error).__name__}: {clean(error)}; --debug shows the traceback")
            return cli.FAILED
    return cli.USAGE


def _report_problems(error: GraphError) -> None:
    count = len(error.problems)
    say("the graph has a problem:" if count == 1 else f"the graph has {count} problems:")
    for problem in error.problems:
        sys.stderr.write(f"  {problem.code} at {clean(problem.place)}: {clean(problem.message)}\n")


def _where(error: BaseException | None) -> str:
    """The place in the user's code, not in ours or the import system's."""
    frames = traceback.extract_tb(error.__traceback__ if error is not None else None)
    theirs = [f for f in frames if not f.filename.startswith((OWN, "<frozen"))]
    return f" ({theirs[-1].filename}, line {theirs[-1].lineno}); --debug shows the traceback" if theirs else ""


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"base64": b64encode(value).decode()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return str(value)


def _fits(text: str, stream: TextIO) -> bool:
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _encodable(text: str, stream: TextIO) -> str:
    encoding = stream.encoding or "utf-8"
    return text if _fits(text, stream) else text.encode(encoding, "backslashreplace").decode(encoding)
