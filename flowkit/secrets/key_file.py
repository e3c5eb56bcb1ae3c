"""Master keys in a file that nobody but its owner can read."""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from flowkit.errors import MasterKeyError
from flowkit.secrets.envelope import Place
from flowkit.secrets.master_keys import Ring, fresh_line, read_ring

LARGEST: Final = 64 * 1024
HEAD: Final = (
    "# FlowKit's master keys: whoever reads this file can open the secrets that are under them. Keep a copy of it,\n"
    "# apart from copies of the database. The first key is for what is new; the others still open what is older.\n"
)
Mark = tuple[int, int, int]


class FileKeys:
    """The ring in a file, which is read again when it has changed: a key that another process added is known here at
    once. `make`: where there is no such file, the first secret makes one; `on_made` hears of that."""

    def __init__(self, path: Path, *, make: bool = False, on_made: Callable[[Path], None] | None = None) -> None:
        self.path = path
        self._make = make
        self._on_made = on_made
        self._ring: Ring | None = None
        self._mark: Mark | None = None

    async def current(self) -> str:
        if self._make and await asyncio.to_thread(make_key_file, self.path) and self._on_made is not None:
            self._on_made(self.path)
        return (await self._fresh()).current

    async def wrap(self, key: bytes, place: Place, key_id: str) -> bytes:
        return (await self._having(key_id)).wrap(key, place, key_id)

    async def unwrap(self, wrapped: bytes, place: Place, key_id: str) -> bytes:
        return (await self._having(key_id)).unwrap(wrapped, place, key_id)

    async def add_key(self) -> str:
        await asyncio.to_thread(_add_key, self.path)
        return (await self._fresh()).current

    async def describe(self) -> Mapping[str, str]:
        ring = await self._fresh()
        return {"kind": "file", "where": str(self.path), "current": ring.current, "ids": ", ".join(ring.keys)}

    async def _having(self, key_id: str) -> Ring:
        # A key that was taken out of the file is gone for this process too, as soon as it next looks.
        if self._ring is None or key_id not in self._ring.keys:
            return await self._fresh()
        return self._ring

    async def _fresh(self) -> Ring:
        ring, self._mark = await asyncio.to_thread(self._read_if_changed, self._ring, self._mark)
        self._ring = ring
        return ring

    def _read_if_changed(self, ring: Ring | None, mark: Mark | None) -> tuple[Ring, Mark]:
        try:
            now = _mark_of(os.stat(self.path))
        except OSError as error:
            raise _cannot_read(self.path, error) from error
        return (ring, now) if ring is not None and now == mark else read_key_file(self.path)


def read_key_file(path: Path) -> tuple[Ring, Mark]:
    """The ring, and what tells whether the file has changed since. Raises `MasterKeyError`."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # of a pipe, nobody might ever write
        try:
            found = os.fstat(fd)
            _check_mode(path, found)
            text = os.read(fd, LARGEST + 1)
        finally:
            os.close(fd)
    except OSError as error:
        raise _cannot_read(path, error) from error
    if len(text) > LARGEST:
        raise MasterKeyError(f"{path} is too large for a file of master keys: name another file")
    return read_ring(text.decode("utf-8", "replace"), str(path)), _mark_of(found)


def make_key_file(path: Path) -> bool:
    """Make the file with one key, unless it is there. Raises `MasterKeyError`."""
    if path.exists():
        return False
    try:
        draft = _write_draft(path, HEAD + fresh_line() + "\n")
        try:
            os.link(draft, path)  # whole or not at all, and never in the place of another's
        except FileExistsError:
            return False
        finally:
            os.unlink(draft)
        _sync_folder(path)
    except OSError as error:
        raise MasterKeyError(f"cannot make the file of master keys {path}: {error.strerror}") from error
    return True


def _add_key(path: Path) -> None:
    """Put a new key before the others, so that whoever reads the file meanwhile finds the old or the new one."""
    try:
        fd = _locked(path)
        try:
            read_key_file(path)  # what is no good now is to be told before it is written again
            draft = _write_draft(path, f"{fresh_line()}\n", below=Path(path).read_text("utf-8"))
            os.replace(draft, path)
            _sync_folder(path)
        finally:
            os.close(fd)
    except OSError as error:
        raise MasterKeyError(
            f"cannot add a key to {path}: {error.strerror}; put a line `ID BASE64` (openssl rand -base64 32) before "
            "the others yourself, then rotate again"
        ) from error


def _locked(path: Path) -> int:
    """A descriptor that holds the lock of the file that is there now, not of one that was replaced meanwhile."""
    while True:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.fstat(fd).st_ino == os.stat(path).st_ino:
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _write_draft(path: Path, text: str, *, below: str = "") -> str:
    fd, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # made with mode 0600
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(_under_comments(text, below))
            file.flush()
            os.fsync(fd)
    except BaseException:
        with suppress(OSError):
            os.unlink(draft)
        raise
    return draft


def _under_comments(text: str, below: str) -> str:
    lines = below.splitlines(keepends=True)
    comments = next((n for n, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "".join(lines[:comments]) + text + "".join(lines[comments:])


def _sync_folder(path: Path) -> None:
    fd = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _check_mode(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise MasterKeyError(f"{path} is not a file: name the file that holds the master keys")
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise MasterKeyError(f"{path} has mode {mode:04o}, so others can read the master keys: chmod 600 {path}")


def _cannot_read(path: Path, error: OSError) -> MasterKeyError:
    if isinstance(error, FileNotFoundError):
        return MasterKeyError(
            f"there is no file of master keys {path}: put it back; without it, what is under its keys cannot be opened"
        )
    return MasterKeyError(f"cannot read the file of master keys {path}: {error.strerror}")


def _mark_of(found: os.stat_result) -> Mark:
    return found.st_ino, found.st_mtime_ns, found.st_size
