"""Chooses how a worker runs code: the highest level that there is here, and that its operator allows.

An engine that never sees code loads next to nothing of what runs it.
"""

from __future__ import annotations

import contextlib
import os
import py_compile
import shutil
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from flowkit.code_policies import read_code_policies
from flowkit.config import WorkerConfig
from flowkit.core.code import LEVELS
from flowkit.errors import ConfigError, did_you_mean
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.inside.landlock import abi
from flowkit.sandbox.languages import CHILD
from flowkit.sandbox.runtime import Level, Runtime
from flowkit.worker.attempt_secrets import Secrets
from flowkit.worker.programs import Programs

if TYPE_CHECKING:
    from flowkit.sandbox.levels import Report


def make_programs(cfg: WorkerConfig, secrets: Secrets | None = None) -> Programs:
    """What runs code by these settings; it is not known yet whether that can be done. Raises `ConfigError`."""
    _check_level(cfg.code_level)
    return Programs(
        partial(open_runtime, cfg),
        expected=_expected(cfg) or Level.L1,
        folder=Path(cfg.code_dir) if cfg.code_dir else None,
        install=partial(_install, cfg) if cfg.code_index else None,
        secrets=secrets,
        policies=read_code_policies(cfg.code_policy),
    )


def programs_if_likely(cfg: WorkerConfig, secrets: Secrets | None = None) -> Programs | None:
    """The same where it looks as if code could be run here. Costs next to nothing, and may turn out to be wrong."""
    _check_level(cfg.code_level)
    return None if _expected(cfg) is None else make_programs(cfg, secrets)


async def open_runtime(cfg: WorkerConfig) -> Runtime:
    """Raises `CannotStart`, which says what to do, where code may not be run at any level that there is."""
    from flowkit.sandbox.plain import PlainRuntime

    # Where it cannot be written, it is compiled each time.
    with contextlib.suppress(OSError, py_compile.PyCompileError):
        py_compile.compile(CHILD, doraise=True)
    if cfg.code_level == "L1":
        return PlainRuntime(trusted=cfg.code_trusted)

    from flowkit.sandbox.bubblewrap import BubblewrapRuntime
    from flowkit.sandbox.landlock import LandlockRuntime
    from flowkit.sandbox.levels import detect

    report = await detect()
    if cfg.code_level:
        report.require(Level[cfg.code_level])
    match level_by(report, cfg):
        case Level.L3:
            return BubblewrapRuntime(cold_first=True)
        case Level.L2:
            return LandlockRuntime()
        case Level.L1:
            return PlainRuntime(trusted=True)
    refused = "; ".join(f"no {level.name}: {why}" for level, why in report.refused.items())
    raise CannotStart(
        "level_not_allowed",
        f"this machine shuts programs in at no level ({refused})",
        "mend that (flowkit doctor), or, if you trust the code, set code_trusted (FLOWKIT_CODE_TRUSTED=1)",
    )


def level_by(report: Report, cfg: WorkerConfig) -> Level | None:
    """The level at which a worker with these settings runs code on a machine that gives this; None: at none. Raises
    `ConfigError`."""
    _check_level(cfg.code_level)
    allowed = [Level[cfg.code_level]] if cfg.code_level else sorted(Level, reverse=True)
    given = [level for level in allowed if level not in report.refused and (level > Level.L1 or cfg.code_trusted)]
    return given[0] if given else None


def _check_level(level: str) -> None:
    if level not in ("", *LEVELS):
        raise ConfigError(f"code_level is one of {', '.join(LEVELS)}, not {level!r}{did_you_mean(level, LEVELS)}")


def _install(cfg: WorkerConfig, requirements: Sequence[str]) -> AbstractAsyncContextManager[Path]:
    from flowkit.sandbox.environments import Environments

    environments = Environments(
        cache_of(cfg), index=cfg.code_index, most=cfg.code_environments, max_bytes=cfg.code_cache_bytes,
        install_sec=cfg.code_install_sec,
    )  # fmt: skip
    return environments.use(requirements)


def _expected(cfg: WorkerConfig) -> Level | None:
    """The level that will most likely be there; None if it looks as if there were none."""
    if cfg.code_level:
        return Level[cfg.code_level] if cfg.code_level != "L1" or cfg.code_trusted else None
    if shutil.which("bwrap"):
        return Level.L3
    if abi():
        return Level.L2
    return Level.L1 if cfg.code_trusted else None


def cache_of(cfg: WorkerConfig) -> Path:
    """Where a worker with these settings keeps the packages that code requires."""
    if cfg.code_cache:
        return Path(cfg.code_cache)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home, "flowkit", "environments")
