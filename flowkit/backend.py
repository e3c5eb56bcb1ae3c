"""What a process runs on: Kafka and MongoDB, or one SQLite file and a bus of its own. Chosen by what the user hands
over."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from flowkit.core.signature import Signature
from flowkit.errors import ConfigError
from flowkit.monitor_ports import LogStore, TraceStore
from flowkit.ports import Bus, SecretStore, Store

if TYPE_CHECKING:
    from flowkit.adapters.sqlite import SqliteStore
    from flowkit.config import CommonSettings
    from flowkit.wire.seals import Seals


@dataclass(eq=False)
class Backend:
    """A store, a bus, and where log lines and traces are kept. Embedded, those of one file are shared by all parts of
    the process: that is how a coordinator and a worker meet. `file` is the SQLite store where there is one;
    `coordinated`: a coordinator of this process runs on it, or stands by. `workers`: for each worker of this process on
    it, what its roles take. `seals`: how its messages are signed, None where they are not.
    `ticket_keys`: under which tickets for secrets are sealed where nobody but this process issues and takes them."""

    store: Store
    bus: Bus
    file: SqliteStore | None = None
    temporary: bool = False
    coordinated: bool = False
    workers: list[Mapping[str, Signature | None]] = field(default_factory=list)
    ticket_keys: Mapping[str, bytes] = field(default_factory=lambda: {"own": os.urandom(32)}, repr=False)
    seals: Seals | None = None
    _users: int = 0

    @property
    def embedded(self) -> bool:
        return self.file is not None

    @property
    def logs(self) -> LogStore:
        """Where log lines are kept: every adapter's store has one beside it."""
        found: LogStore = self.store.logs  # type: ignore[attr-defined]
        return found

    @property
    def traces(self) -> TraceStore:
        """Where the index of ended attempts is kept, beside the store as well."""
        found: TraceStore = self.store.traces  # type: ignore[attr-defined]
        return found

    @property
    def secrets(self) -> SecretStore | None:
        """Where sealed secrets are kept; None where the store keeps none."""
        found: SecretStore | None = getattr(self.store, "secrets", None)
        return found

    @property
    def pool(self) -> str:
        """The pool that this process signs for; empty where nothing is signed."""
        return "" if self.seals is None else self.seals.pool

    def signatures_of(self, role: str) -> list[Signature | None]:
        """What the workers of this process that serve a role take; None for one that does not say."""
        return [roles[role] for roles in self.workers if role in roles]

    async def start(self) -> None:
        """Connect, if nobody in this process has. Raises `StoreUnavailable`, `BusUnavailable`."""
        self._users += 1
        if self._users > 1:
            return
        try:
            await self.store.start()
            try:
                await self.bus.start()
            except BaseException:
                await self.store.stop()
                raise
        except BaseException:
            self._users -= 1
            raise

    async def stop(self) -> None:
        """Disconnect, once nobody in this process uses it any more."""
        self._users -= 1
        if self._users == 0:
            await self.bus.stop()
            await self.store.stop()


_FILES: WeakValueDictionary[Path, Backend] = WeakValueDictionary()


def open_backend(db: object, cfg: CommonSettings) -> Backend:
    """The backend for what a user calls `db`: a PyMongo or Motor database, a `mongodb://` or `sqlite:///` URL, a
    file's path, or None for a temporary file that all parts of this process share.

    Raises `ConfigError` for anything else.
    """
    if db is None:
        shared = next((backend for backend in _FILES.values() if backend.temporary), None)
        return shared if shared is not None else temporary_backend()
    if isinstance(db, Path):
        return _embedded(db)
    if isinstance(db, str):
        scheme = urlsplit(db).scheme if "://" in db else ""
        if scheme == "sqlite":
            return _embedded(Path(db.removeprefix("sqlite:///").removeprefix("sqlite://")))
        if scheme == "":
            return _embedded(Path(db))
        if scheme not in ("mongodb", "mongodb+srv"):
            raise ConfigError(f"db: {scheme}:// is neither mongodb:// nor sqlite:///")
    return _cluster(db, cfg)


def temporary_backend() -> Backend:
    """A backend of its own in a temporary directory, which goes when nobody holds the backend any more."""
    folder = tempfile.mkdtemp(prefix="flowkit-")
    backend = _embedded(Path(folder) / "flow.db")
    backend.temporary = True
    weakref.finalize(backend, shutil.rmtree, folder, ignore_errors=True)
    return backend


def _embedded(path: Path) -> Backend:
    from flowkit.adapters.memory_bus import MemoryBus
    from flowkit.adapters.sqlite import SqliteStore

    path = path.resolve()
    backend = _FILES.get(path)
    if backend is None:
        store = SqliteStore(path)
        backend = _FILES[path] = Backend(store, MemoryBus(), store)
    return backend


def _cluster(db: object, cfg: CommonSettings) -> Backend:
    from flowkit.connections import kafka_bus, message_seals, mongo_store

    seals = message_seals(cfg)
    return Backend(mongo_store(db, cfg), kafka_bus(cfg, seals=seals), seals=seals)
