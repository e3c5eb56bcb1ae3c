"""Opens a client on the database that a command line names, and says where else to look when nothing is there."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from flowkit import cli
from flowkit.cli import settings
from flowkit.cli.console import UsageError, say
from flowkit.cli.logs import set_up
from flowkit.client import Client
from flowkit.config import CoordinatorConfig
from flowkit.errors import BusUnavailable, ConfigError, StoreUnavailable


def ask(args: Namespace, act: Callable[[Client, Namespace], Awaitable[Any]], what: str, *, new: bool = False) -> int:
    """Let a verb act as a client. `what` it is about, such as `tasks`; `new`: a file that is not there is made."""
    set_up("error", debug=hasattr(args, "debug"))
    project = settings.find_project()
    cfg = settings.load(CoordinatorConfig, args, project)
    named = settings.named_database(args, project)
    path = None if named is None else settings.file_of(named)
    if path is not None and not new and not path.is_file():
        raise UsageError(f"there is no file {path}; --db names the SQLite file or the MongoDB where the {what} are")
    db = named or settings.mongo_url(cfg)

    async def use() -> None:
        async with Client(db=settings.file_of(db) or db, cfg=cfg) as client:
            await act(client, args)

    try:
        asyncio.run(use())
    except (StoreUnavailable, BusUnavailable, ConfigError):
        if named is None:
            say(f"no --db was named, so it was looked for in MongoDB; for {what} in a file: --db flow.db")
        raise
    return cli.FINISHED


async def warn_if_nobody_is_there(client: Client) -> None:
    """Say so where no process coordinates the file."""
    file = client.backend.file
    if file is not None and not await client.coordinated():
        path = _near(file.path)
        say(f"no coordinator runs on this file: `flowkit worker MODULE --db {path}` goes on with its tasks")


def _near(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
