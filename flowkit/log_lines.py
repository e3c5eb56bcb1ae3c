"""Log records as lines on stdout: JSON objects, or text."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO


class LineHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever stdout is now, or stderr: `name` says which."""

    def __init__(self, stream_name: str) -> None:
        logging.Handler.__init__(self)
        self.stream_name = stream_name

    @property
    def stream(self) -> TextIO:
        return getattr(sys, self.stream_name)  # type: ignore[no-any-return]

    @stream.setter
    def stream(self, stream: TextIO) -> None:
        pass


class JsonLines(logging.Formatter):
    """One object for each record. What JSON cannot say is said as text."""

    def __init__(self, *, stack: bool, indent: int | None) -> None:
        super().__init__()
        self._stack = stack
        self._indent = indent

    def format(self, record: logging.LogRecord) -> str:
        fields = fields_of(record)
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "event": fields.pop("event", getattr(record, "happening", None)),
            **{name: value for name, value in fields.items() if name not in ("ts", "level", "logger", "message")},
        }
        if self._stack and record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False, indent=self._indent)


class TextLines(logging.Formatter):
    """`time LEVEL logger message name=value`, and the traceback."""

    def __init__(self, *, stack: bool) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s %(message)s")
        self._stack = stack

    def format(self, record: logging.LogRecord) -> str:
        plain = logging.makeLogRecord(record.__dict__)
        pairs = "".join(f" {name}={value!r}" for name, value in fields_of(record).items())
        plain.msg, plain.args = f"{record.getMessage()}{pairs}", ()
        if not self._stack:
            plain.exc_info = plain.exc_text = None
        return super().format(plain)


def attach(logger: logging.Logger, *, json_output: bool, stack: bool, pretty: bool, split: bool) -> None:
    """Have the logger's records written to stdout; if `split`, those of errors to stderr instead."""
    detach(logger)
    formatter: logging.Formatter = TextLines(stack=stack)
    if json_output:
        formatter = JsonLines(stack=stack, indent=2 if pretty else None)
    handlers = {name: LineHandler(name) for name in (("stdout", "stderr") if split else ("stdout",))}
    for handler in handlers.values():
        handler.setFormatter(formatter)
        logger.addHandler(handler)
    if split:
        handlers["stdout"].addFilter(lambda record: record.levelno < logging.ERROR)
        handlers["stderr"].setLevel(logging.ERROR)


def attached(logger: logging.Logger) -> bool:
    """Whether `attach` has done something that was not undone."""
    return any(isinstance(handler, LineHandler) for handler in logger.handlers)


def detach(logger: logging.Logger) -> None:
    """Undo `attach`."""
    for handler in [handler for handler in logger.handlers if isinstance(handler, LineHandler)]:
        logger.removeHandler(handler)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What the record carries beside its message."""
    known = {name: getattr(record, name) for name in ("task_id", "node_id", "attempt") if hasattr(record, name)}
    return {**known, **getattr(record, "fields", {})}
