"""What the doctor looks at where tasks live in a SQLite file."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

from flowkit.adapters.sqlite import SqliteStore
from flowkit.cli.checks import Finding, contents_of, fail, ok, warn
from flowkit.cli.checks_policies import Served, of_graphs
from flowkit.cli.checks_secrets import of_secrets
from flowkit.cli.times import show_seconds
from flowkit.client import Client
from flowkit.config import CoordinatorConfig
from flowkit.errors import FlowKitError

LITTLE_DISK, NO_DISK = 1024**3, 64 * 1024**2
LARGE_TO_CHECK = 256 * 1024**2
OVERDUE_SEC = 5.0
REMOTE = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs"})


async def of_file(path: Path, cfg: CoordinatorConfig, here: Served) -> AsyncIterator[Finding]:
    """The file, its disk, who coordinates it, whether its tasks move, and what its flows say of their code."""
    findings, usable = of_place(path)
    for finding in findings:
        yield finding
    if usable:
        async for finding in _of_tasks(path, cfg, here):
            yield finding


def of_place(path: Path) -> tuple[list[Finding], bool]:
    """What can be said without opening the file as FlowKit's, and whether it can be opened so."""
    folder = path.absolute().parent
    if not folder.is_dir():
        hint = "make it, or name another file with --db"
        return [fail("file", f"there is no directory {folder}", hint)], False
    findings = [disk(folder)]
    if kind := file_system(folder):
        findings.append(fail("disk", f"{folder} is on {kind}: SQLite's locks do not work there", "use a local disk"))
    if not path.exists():
        return [*findings, _of_missing(path, folder)], False
    if not os.access(path, os.W_OK):
        hint = "run as its owner, or change its mode"
        return [*findings, fail("file", f"{path} is not writable by this user", hint)], False
    if (broken := damage(path)) is not None:
        hint = "it is no FlowKit file, or damaged: restore a copy, or name another"
        return [*findings, fail("file", f"{path}: {broken}", hint)], False
    return findings, True


def _of_missing(path: Path, folder: Path) -> Finding:
    if os.access(folder, os.W_OK):
        return ok("file", f"{path} is not there yet; the first task makes it")
    return fail("file", f"{folder} is not writable", "make it so, or name another file with --db")


async def _of_tasks(path: Path, cfg: CoordinatorConfig, here: Served) -> AsyncIterator[Finding]:
    try:
        async with Client(db=path, cfg=cfg) as client:
            store = client.backend.store
            assert isinstance(store, SqliteStore)
            about = await store.describe()
            size = f"{about['bytes'] / 1024**2:.1f} MiB"
            yield ok("file", f"{path}: {size}, {contents_of(about)}")
            active = await store.active_heads(0, limit=1) or await store.open_requests([0], limit=1)
            overdue = await store.due_heads([0], time.time() - OVERDUE_SEC, limit=1000)
            yield _of_owner(path, coordinated=bool(await client.coordinated()), active=bool(active))
            if overdue:
                late = time.time() - min(head.next_wake or 0.0 for head in overdue)
                yield warn("tasks", f"{len(overdue)} wait for a coordinator, the longest for {show_seconds(late)}")
            else:
                yield ok("tasks", "none is overdue")
            for finding in await of_graphs(store, here):
                yield finding
            async for finding in of_secrets(store.secrets, store.path, cfg):
                yield finding
    except FlowKitError as error:
        yield fail("file", str(error))


def _of_owner(path: Path, *, coordinated: bool, active: bool) -> Finding:
    if coordinated:
        return ok("coordinator", "a process coordinates the file")
    if active:
        return warn("coordinator", "nobody coordinates the file", f"flowkit worker MODULE --db {path}")
    return ok("coordinator", "nobody coordinates the file, and there is nothing to do")


def disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    said = f"{free / 1024**3:.1f} GiB free at {folder}"
    if free < NO_DISK:
        return fail("disk", said, "make room: a full disk stops every task")
    return warn("disk", said, "make room soon") if free < LITTLE_DISK else ok("disk", said)


def file_system(folder: Path) -> str | None:
    """The kind of a remote file system, as far as Linux tells; None for a local one."""
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text("utf-8", "replace").splitlines()]
    except OSError:
        return None
    here = [(len(point), kind) for _, point, kind, *_ in mounts if _inside(folder, point.replace("\\040", " "))]
    kind = max(here, default=(0, ""))[1]
    return kind if kind in REMOTE else None


def _inside(folder: Path, point: str) -> bool:
    return folder.is_relative_to(point)


def damage(path: Path) -> str | None:
    """What SQLite has to say against the file; a large one is only opened, not read through."""
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if path.stat().st_size > LARGE_TO_CHECK:
                return None
            (said,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            return None if said == "ok" else str(said)
        finally:
            connection.close()
    except sqlite3.Error as error:
        return str(error)
