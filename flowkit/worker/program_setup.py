"""Chooses how a worker runs code: the highest level that there is here, and that its operator allows."""

from __future__ import annotations

from pathlib import Path

from flowkit.config import WorkerConfig
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.plain import PlainRuntime
from flowkit.worker.programs import Programs, Secrets


def open_programs(cfg: WorkerConfig, secrets: Secrets | None = None) -> Programs:
    """Raises `CannotStart`, which says what to do, where code may not be run at any level that there is."""
    runtime = PlainRuntime(trusted=cfg.code_trusted)
    folder = Path(cfg.code_dir) if cfg.code_dir else None
    return Programs(runtime, folder=folder, secrets=secrets)


def programs_if_any(cfg: WorkerConfig, secrets: Secrets | None = None) -> Programs | None:
    """The same, or None: for those who run code only where nothing stands in the way."""
    try:
        return open_programs(cfg, secrets)
    except CannotStart:
        return None
