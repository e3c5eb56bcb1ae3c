"""What long-running commands log on stderr; that a service is away is one line, not a traceback a second."""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO

from flowkit.cli.console import clean, one_line
from flowkit.errors import BusUnavailable, StoreUnavailable

FORMAT = "%(asctime)s %(levelname)-7s %(message)s"
AGAIN_SEC = 30.0
AWAY = (BusUnavailable, StoreUnavailable, ConnectionError, TimeoutError)
DRIVERS = ("aiokafka", "kafka", "pymongo", "asyncio")


def set_up(level: str, *, debug: bool) -> None:
    """Log to stderr: FlowKit and the user's modules from `level` on, the drivers only their gravest words."""
    handler = _Stderr()
    handler.setFormatter(_Formatter(FORMAT, debug=debug))
    handler.addFilter(_OnceInAWhile(debug=debug))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    if not debug:
        for name in DRIVERS:
            logging.getLogger(name).setLevel(logging.CRITICAL)


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to whatever stderr is now: a live tree takes its place for a while."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, stream: TextIO) -> None:
        pass


class _Formatter(logging.Formatter):
    def __init__(self, pattern: str, *, debug: bool) -> None:
        super().__init__(pattern)
        self._debug = debug

    def format(self, record: logging.LogRecord) -> str:
        error = away(record)
        if error is None or self._debug:
            return clean(super().format(record))
        loop = getattr(record.args[0] if isinstance(record.args, tuple) and record.args else None, "loop", "a loop")
        plain = logging.makeLogRecord(record.__dict__)
        plain.msg = f"{loop} goes on trying: {one_line(error or type(error).__name__)}"
        plain.args, plain.exc_info, plain.exc_text = (), None, None
        return super().format(plain)


class _OnceInAWhile(logging.Filter):
    """The same service away is said once, and again every half minute."""

    def __init__(self, *, debug: bool) -> None:
        super().__init__()
        self._debug = debug
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        error = away(record)
        if error is None or self._debug:
            return True
        kind, now = type(error).__name__, time.monotonic()
        if now - self._said.get(kind, -AGAIN_SEC) < AGAIN_SEC:
            return False
        self._said[kind] = now
        return True


def away(record: logging.LogRecord) -> BaseException | None:
    """The error of a loop that failed because a service did not answer."""
    error = record.exc_info[1] if record.exc_info else None
    loop_failed = getattr(record, "happening", None) == "LoopFailed"
    return error if loop_failed and isinstance(error, AWAY) else None
