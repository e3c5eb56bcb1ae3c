"""What long-running commands log on stderr; that a service is away is one line, not a traceback a second."""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO

from flowkit.cli.console import clean, one_line
from flowkit.errors import BusUnavailable, ServiceUnavailable, StoreUnavailable
from flowkit.telemetry import AttemptKilled, DeadLettered, LeaseExpired, LoopFailed, MasterKeyMade, Quarantined

FORMAT = "%(asctime)s %(levelname)-7s %(message)s"
AGAIN_SEC = 30.0
AWAY = (BusUnavailable, ServiceUnavailable, StoreUnavailable, ConnectionError, TimeoutError)
DRIVERS = ("aiokafka", "kafka", "pymongo", "asyncio", "uvicorn", "opentelemetry.exporter")


def set_up(level: str, *, debug: bool) -> None:
    """Log to stderr: FlowKit and the user's modules from `level` on, the drivers only their gravest words."""
    handler = _Stderr()
    handler.setFormatter(_Formatter(FORMAT, debug=debug))
    handler.addFilter(_Repeated(debug=debug))
    root = logging.getLogger()
    root.handlers = [other for other in root.handlers if not isinstance(other, _Stderr)] + [handler]
    root.setLevel(level.upper())
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
    """A happening is a sentence; that a service is away needs no traceback."""

    def __init__(self, pattern: str, *, debug: bool) -> None:
        super().__init__(pattern)
        self._debug = debug

    def format(self, record: logging.LogRecord) -> str:
        said = None if self._debug else sentence(happening(record))
        if said is None:
            return clean(super().format(record))
        plain = logging.makeLogRecord(record.__dict__)
        plain.msg, plain.args = clean(said), ()
        if away(record):
            plain.exc_info = plain.exc_text = None
        return super().format(plain)


class _Repeated(logging.Filter):
    """That the same service is away is said every half minute; what a stop stops goes without saying."""

    def __init__(self, *, debug: bool) -> None:
        super().__init__()
        self._debug = debug
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        it = happening(record)
        if self._debug or not isinstance(it, AttemptKilled | LoopFailed):
            return True
        if isinstance(it, AttemptKilled):
            return it.why != "drain"
        if not away(record):
            return True
        kind, now = type(it.error).__name__, time.monotonic()
        if now - self._said.get(kind, -AGAIN_SEC) < AGAIN_SEC:
            return False
        self._said[kind] = now
        return True


def happening(record: logging.LogRecord) -> object:
    """What the record tells of, if it comes from FlowKit's telemetry."""
    told = hasattr(record, "happening") and isinstance(record.args, tuple) and record.args
    return record.args[0] if told and isinstance(record.args, tuple) else None


def away(record: logging.LogRecord) -> bool:
    """Whether it is about a loop that failed because a service did not answer."""
    it = happening(record)
    return isinstance(it, LoopFailed) and isinstance(it.error, AWAY)


def sentence(it: object) -> str | None:
    """A happening in words, None for one that speaks for itself."""
    match it:
        case LoopFailed(loop=loop, error=error, pause=pause):
            again = f"; again in {pause:g} s" if pause else ""
            return f"{loop}: {type(error).__name__}: {one_line(error)}{again}"
        case LeaseExpired(task_id=task_id, node=node, attempt=attempt, worker=worker):
            return f"worker {worker} is silent: node {node!r} of task {task_id}, attempt {attempt}, is given to another"
        case AttemptKilled(worker=worker, token=token, why=why):
            return f"worker {worker} stopped the attempt with lease {token}: {why}"
        case DeadLettered(topic=topic, reason=reason):
            return f"a message of {topic} went to the dead letters: {one_line(reason)}"
        case MasterKeyMade(path=path):
            return f"made a master key, in {path} (mode 0600): keep a copy of it, apart from the database's"
        case Quarantined(task_id=task_id, reason=reason):
            return f"task {task_id} is quarantined: {one_line(reason)}"
    return None
