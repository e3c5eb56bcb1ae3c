"""Chooses how a worker runs code: the highest level that there is here, and that its operator allows."""

from __future__ import annotations

import contextlib
import os
import py_compile
import shutil
from pathlib import Path

from flowkit.config import WorkerConfig
from flowkit.core.code import LEVELS
from flowkit.errors import ConfigError, did_you_mean
from flowkit.sandbox.bubblewrap import BubblewrapRuntime
from flowkit.sandbox.environments import Environments
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.inside.landlock import abi
from flowkit.sandbox.landlock import LandlockRuntime
from flowkit.sandbox.languages import CHILD
from flowkit.sandbox.levels import detect
from flowkit.sandbox.plain import PlainRuntime
from flowkit.sandbox.runtime import Level, Runtime
from flowkit.worker.programs import Programs, Secrets


def make_programs(cfg: WorkerConfig, secrets: Secrets | None = None) -> Programs:
    """What runs code by these settings; it is not known yet whether that can be done. Raises `ConfigError`."""
    if cfg.code_level not in ("", *LEVELS):
        raise ConfigError(
            f"code_level is one of {', '.join(LEVELS)}, not {cfg.code_level!r}{did_you_mean(cfg.code_level, LEVELS)}"
        )
    folder = Path(cfg.code_dir) if cfg.code_dir else None
    install = None
    if cfg.code_index:
        cache = Path(cfg.code_cache or _usual_cache())
        install = Environments(
            cache, index=cfg.code_index, most=cfg.code_environments, install_sec=cfg.code_install_sec
        ).use
    return Programs(
        lambda: open_runtime(cfg), expected=_expected(cfg) or Level.L1, folder=folder, install=install, secrets=secrets
    )


def programs_if_likely(cfg: WorkerConfig, secrets: Secrets | None = None) -> Programs | None:
    """The same where it looks as if code could be run here. Costs next to nothing, and may turn out to be wrong."""
    return None if _expected(cfg) is None else make_programs(cfg, secrets)


async def open_runtime(cfg: WorkerConfig) -> Runtime:
    """Raises `CannotStart`, which says what to do, where code may not be run at any level that there is."""
    with contextlib.suppress(
        OSError, py_compile.PyCompileError
    ):  # where it cannot be written, it is compiled each time
        py_compile.compile(CHILD, doraise=True)
    if cfg.code_level == "L1":
        return PlainRuntime(trusted=cfg.code_trusted)
    report = await detect()
    if cfg.code_level:
        report.require(Level[cfg.code_level])
    if Level.L3 not in report.refused and cfg.code_level != "L2":
        return BubblewrapRuntime()
    if Level.L2 not in report.refused:
        return LandlockRuntime()
    if cfg.code_trusted:
        return PlainRuntime(trusted=True)
    refused = "; ".join(f"no {level.name}: {why}" for level, why in report.refused.items())
    raise CannotStart(
        "level_not_allowed",
        f"this machine shuts programs in at no level ({refused})",
        "mend that (flowkit doctor), or, if you trust the code, set code_trusted (FLOWKIT_CODE_TRUSTED=1)",
    )


def _expected(cfg: WorkerConfig) -> Level | None:
    """The level that will most likely be there; None if it looks as if there were none."""
    if cfg.code_level:
        return Level[cfg.code_level] if cfg.code_level != "L1" or cfg.code_trusted else None
    if shutil.which("bwrap"):
        return Level.L3
    if abi():
        return Level.L2
    return Level.L1 if cfg.code_trusted else None


def _usual_cache() -> str:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(home, "flowkit", "environments")
