"""What a worker here keeps of the packages that code requires, and how much of it it may keep."""

from __future__ import annotations

import asyncio

from flowkit.cli.checks import Finding, ok, warn
from flowkit.config import WorkerConfig
from flowkit.sandbox.environments import kept
from flowkit.worker.program_setup import cache_of

MIB = 1024 * 1024


async def of_packages_of_code(cfg: WorkerConfig) -> Finding:
    """By the settings that a worker would have here."""
    folder = cache_of(cfg)
    try:
        sets = await asyncio.to_thread(kept, folder)
    except OSError as error:
        return warn("environments", f"{folder} cannot be read: {error}", "let code_cache name another folder")
    total = sum(one.size for one in sets)
    most = f"{cfg.code_cache_bytes // MIB:,} MiB"
    says = f"{len(sets)} of {cfg.code_environments} sets, {total / MIB:,.0f} of {most}, in {folder}"
    if total <= cfg.code_cache_bytes:
        return ok("environments", says)
    hint = "what is not in use goes with the next set that is made; let code_cache_bytes fit what is in use"
    return warn("environments", says, hint)
