"""The logger of an attempt, and the ear for what libraries log while it runs."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from flowkit.log_setup import PARAMETERS, current_context
from flowkit.worker.attempt_log import MOST_VALUE, AttemptLog
from flowkit.worker.log_pipe import LogPipe
from flowkit.worker.outcome import clean

if TYPE_CHECKING:
    Adapter = logging.LoggerAdapter[logging.Logger]
else:
    Adapter = logging.LoggerAdapter

OWN: Final = "flowkit"

speaker: ContextVar[tuple[LogPipe, AttemptLog] | None] = ContextVar("flowkit_speaker", default=None)
"""Whose lines this task, or thread, says."""

_handlers = logging.getLogger(f"{OWN}.handler")
_plain = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}  # what formatters add


class AttemptLogger(Adapter):
    """`ctx.log`: the methods of `logging`'s loggers, which take any keywords beside. Each line is kept with the task,
    at its level and whatever the process does with its own logs, and goes to the logger `flowkit.handler` too."""

    def __init__(self, lines: AttemptLog) -> None:
        job = lines.job
        super().__init__(_handlers, {"task_id": job.task_id, "node_id": job.node, "attempt": job.attempt})
        self._lines = lines

    def isEnabledFor(self, level: int) -> bool:
        return True

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        fields = {**current_context(), **{name: kwargs.pop(name) for name in [*kwargs] if name not in PARAMETERS}}
        extra = kwargs.pop("extra", None) or {}
        hide = self._lines.redact
        told = {**extra, **fields, **_traceback(kwargs.get("exc_info"), hide)}
        self._lines.write(level, said(msg, args), told)
        if self.logger.isEnabledFor(level):
            if hide is not None:
                msg, args = self._covered(said(msg, args), kwargs.pop("exc_info", None), hide), ()
                extra, fields = self._lines.plain(extra), self._lines.plain(fields)
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
            told = {**extra, **(self.extra or {}), "fields": fields}
            self.logger.log(level, msg, *args, extra=told, **kwargs)

    @staticmethod
    def _covered(text: str, error: Any, hide: Callable[[str], str]) -> str:
        """A line for this process's own logs, without the secrets of the attempt."""
        return "\n".join([hide(text), *_traceback(error, hide).values()])


class Ear(logging.Handler):
    """Hears what is logged while an attempt of this worker runs, by whatever logger, and says it in its name."""

    def __init__(self, pipe: LogPipe) -> None:
        super().__init__()
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        who = speaker.get()
        if who is None or who[0] is not self._pipe or record.name.partition(".")[0] == OWN:
            return
        fields = {name: value for name, value in vars(record).items() if name not in _plain}
        about = {"logger": record.name, **fields, **_traceback(record.exc_info, who[1].redact)}
        who[1].write(record.levelno, said(record.msg, record.args), about, at=record.created)


def said(message: object, args: Any) -> str:
    """A message with its arguments; one that does not fit them as it is: a log line fails no attempt."""
    try:
        text = str(message)
        if isinstance(args, tuple) and len(args) == 1 and isinstance(args[0], dict) and args[0]:
            args = args[0]
        return text % args if args else text
    except Exception:  # whatever a user's own __str__ or a wrong format does
        return f"{message!r} {_shown(args)}" if isinstance(message, str) else f"(a {type(message).__name__})"


def _shown(args: object) -> str:
    try:
        return repr(args)
    except Exception as trouble:  # a user's own __repr__
        return f"(arguments that cannot be shown: {type(trouble).__name__})"


def _traceback(given: Any, hide: Callable[[str], str] | None) -> dict[str, str]:
    error = given if isinstance(given, BaseException) else given[1] if isinstance(given, tuple) else None
    if given is True or given == 1:
        error = sys.exc_info()[1]
    if error is None:
        return {}
    text = "".join(traceback.format_exception(error))
    return {"traceback": clean(text if hide is None else hide(text), MOST_VALUE, keep_end=True)}
