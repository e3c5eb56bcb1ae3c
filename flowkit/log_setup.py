"""Helpers for logging with FlowKit: loggers that take any keyword, a context that every line carries, and a handler
that writes lines of JSON to stdout. Silent unless the application configures logging, or asks for that handler."""

from __future__ import annotations

import contextvars
import logging
import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from typing import Any

from flowkit.log_lines import attach, attached, detach
from flowkit.telemetry import log

__all__ = [
    "bind_context", "configure_from_env", "current_context", "disable_stdout_logging", "enable_stdout_logging",
    "get_logger", "log_context", "set_level", "swallow", "warn_once",
]  # fmt: skip

ROOT = log.name
YES = frozenset({"1", "true", "yes", "on"})
PARAMETERS = frozenset({"exc_info", "stack_info", "stacklevel", "extra"})

_context: contextvars.ContextVar[Mapping[str, Any]] = contextvars.ContextVar("flowkit_log_context")


class KeywordLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose methods take any keywords: `log.info("loaded", rows=3)`. They become fields of the record."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        fields = {**current_context(), **{name: kwargs.pop(name) for name in [*kwargs] if name not in PARAMETERS}}
        kwargs["extra"] = {**(kwargs.get("extra") or {}), "fields": fields}
        return msg, kwargs


def get_logger(name: str = "") -> KeywordLogger:
    """The logger `flowkit.<name>`, or the one of that very name if it begins with `flowkit`."""
    ours = name == ROOT or name.startswith(f"{ROOT}.")
    return KeywordLogger(logging.getLogger(name if ours else f"{ROOT}.{name}" if name else ROOT), {})


# The context.


def current_context() -> dict[str, Any]:
    """What every line of this asyncio task, or thread, carries."""
    return dict(_context.get({}))


def bind_context(**fields: Any) -> None:
    """Have every line from here on, in this asyncio task or thread, carry these fields too."""
    _context.set({**_context.get({}), **fields})


@contextmanager
def log_context(**fields: Any) -> Iterator[None]:
    """Have every line inside the `with` carry these fields too."""
    token = _context.set({**_context.get({}), **fields})
    try:
        yield
    finally:
        _context.reset(token)


# What must not disturb, and what need not be repeated.


@contextmanager
def swallow(*, logger: Any = None, code: str = "swallowed", msg: str = "an error was passed over",
            level: int = logging.WARNING, expected: bool = False, reraise: bool = False,
            **fields: Any) -> Iterator[None]:  # fmt: skip
    """Log what is raised inside the `with`, and go on behind it. `expected`: without a traceback; `reraise`: log only.

    A cancellation always passes through.
    """
    try:
        yield
    except Exception as error:  # to be this broad is what it is for
        trace = None if expected else error
        _write(
            logger, level, msg, {**fields, "code": code, "error": str(error), "error_type": type(error).__name__}, trace
        )
        if reraise:
            raise


def warn_once(logger: Any, code: str, msg: str, *args: Any, level: int = logging.WARNING, **fields: Any) -> bool:
    """Log a message the first time that this logger meets this code; whether it did."""
    if next(_times(getattr(logger, "name", ROOT), code)):
        return False
    _write(logger, level, msg % args if args else msg, {**fields, "code": code}, None)
    return True


@lru_cache(maxsize=4096)
def _times(name: str, code: str) -> Iterator[int]:
    return count()


def _write(logger: Any, level: int, msg: str, fields: Mapping[str, Any], error: BaseException | None) -> None:
    if not isinstance(logger, KeywordLogger):
        plain = logger if isinstance(logger, logging.Logger) else getattr(logger, "logger", log)
        logger = KeywordLogger(plain, {})
    logger.log(level, "%s", msg, exc_info=error, stacklevel=4, **fields)


# Where it goes.


def set_level(level: int | str) -> None:
    """From which level on FlowKit logs."""
    log.setLevel(level.upper() if isinstance(level, str) else level)


def enable_stdout_logging(level: int | str = logging.INFO, json_output: bool = True, include_stack: bool = True,
                          pretty: bool = False, route_errors_to_stderr: bool = False) -> None:  # fmt: skip
    """Write what FlowKit logs from `level` on to stdout, a JSON object a line: `ts, level, logger, message, event` and
    the fields. `pretty` spreads it over lines; without `json_output` it is text. `include_stack`: with tracebacks;
    `route_errors_to_stderr`: errors go there. Calling it again replaces what it did before."""
    attach(log, json_output=json_output, stack=include_stack, pretty=pretty, split=route_errors_to_stderr)
    set_level(level)


def disable_stdout_logging() -> None:
    """Undo `enable_stdout_logging`."""
    detach(log)
    log.setLevel(logging.NOTSET)


def configure_from_env(environ: Mapping[str, str] = os.environ, *, anew: bool = True) -> bool:
    """Do what `FLOWKIT_LOG_STDOUT`, `FLOWKIT_LOG_LEVEL`, `FLOWKIT_LOG_PRETTY` and `FLOWKIT_LOG_STACK` say; whether
    they ask for lines on stdout. Coordinators and workers call this too, where nobody did before (`anew` False).

    Raises `ValueError` for a level that there is not.
    """
    if not anew and (attached(log) or log.level != logging.NOTSET):
        return attached(log)
    said = {name: environ.get(f"FLOWKIT_LOG_{name}", "") for name in ("STDOUT", "LEVEL", "PRETTY", "STACK")}
    if said["STDOUT"].lower() in YES:
        enable_stdout_logging(
            said["LEVEL"] or logging.INFO,
            pretty=said["PRETTY"].lower() in YES,
            include_stack=said["STACK"].lower() in YES | {""},
        )
        return True
    if said["LEVEL"]:
        set_level(said["LEVEL"])
    return False
