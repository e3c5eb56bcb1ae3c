"""Folders with the packages that code requires: made once for each set, kept in a cache, and never the worker's own.

Packages come from one index alone, as wheels: nothing of them runs while they are installed, nor (their `.pth` files
are not read) when an interpreter starts. What was installed is written down beside them (`lock.json`, with hashes).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.languages import interpreter

PACKAGES: Final = "packages"
LOCK: Final = "lock.json"
DONE: Final = "done"
SIZE: Final = "size"
LOOK_SEC: Final = 0.1
MOST_SAID: Final = 4000
PASSED_ON: Final = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "PIP_CERT")
HOPELESS: Final = (
    "No matching distribution",
    "ResolutionImpossible",
    "Invalid requirement",
    "conflicting dependencies",
)
"""What pip says where trying again is of no use."""


class Environments:
    """Keeps at most `most` of them in `folder`, and at most `max_bytes` on its disk: the least recently used ones go
    first, and never one that somebody uses, so that there is more while those in use need more. `index` is an address,
    or a folder of wheels; `install_sec` bounds the making of one."""

    def __init__(
        self, folder: Path, *, index: str, most: int = 20, max_bytes: int = 4 << 30, install_sec: float = 300.0,
    ) -> None:  # fmt: skip
        self._folder = folder
        self._index = index
        self._most = max(1, most)
        self._max_bytes = max_bytes
        self._install_sec = install_sec

    @contextlib.asynccontextmanager
    async def use(self, requirements: Sequence[str]) -> AsyncIterator[Path]:
        """The folder to import from, which stays as long as this is entered. Raises `CannotStart`: `requirements` where
        trying again is of no use, else `install_failed`."""
        key = self.key_of(requirements)
        home = self._folder / key
        await asyncio.to_thread(self._folder.mkdir, mode=0o755, parents=True, exist_ok=True)
        used = self._open(f".{key}.used")
        try:
            fcntl.flock(used, fcntl.LOCK_SH)  # who would remove it holds this for a moment at most
            if not (home / DONE).exists():
                async with self._lock(key):
                    if not (home / DONE).exists():
                        await self._make(home, requirements)
            with contextlib.suppress(OSError):  # the cache may be another user's: then its order of use is theirs
                os.utime(home)
            yield home / PACKAGES
        finally:
            os.close(used)

    def key_of(self, requirements: Sequence[str]) -> str:
        """What tells one set from another: the requirements in any order, the interpreter, and where packages come
        from."""
        words = sorted({requirement.strip().lower() for requirement in requirements})
        about = [*words, "", sys.version, interpreter(), self._index]
        return hashlib.sha256("\n".join(about).encode()).hexdigest()[:24]

    async def _make(self, home: Path, requirements: Sequence[str]) -> None:
        await asyncio.to_thread(self._sweep, 1)
        making = home.with_name(f".{home.name}.making")
        await asyncio.to_thread(shutil.rmtree, making, ignore_errors=True)
        making.mkdir(mode=0o755)
        try:
            await self._install(making, requirements)
            await asyncio.to_thread(_seal, making, requirements)
            making.rename(home)
            await asyncio.to_thread(self._sweep, 0)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, making, ignore_errors=True))
            raise

    async def _install(self, making: Path, requirements: Sequence[str]) -> None:
        command = [
            *_pip(), "install", "--target", str(making / PACKAGES), "--report", str(making / "report.json"),
            "--only-binary", ":all:", "--no-compile", "--isolated", "--no-input", "--disable-pip-version-check",
            "--no-cache-dir", "--quiet", *self._whence(), "--", *requirements,
        ]  # fmt: skip
        env = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        env |= {"PATH": "/usr/bin:/bin", "HOME": str(making), "LANG": "C.UTF-8", "PIP_CONFIG_FILE": os.devnull}
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, env=env, start_new_session=True,
        )  # fmt: skip
        try:
            async with asyncio.timeout(self._install_sec):
                said, _ = await process.communicate()
        except TimeoutError:
            say = f"installing {', '.join(requirements)} took longer than {self._install_sec:g} s"
            raise CannotStart("install_failed", say) from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await asyncio.shield(process.wait())
        if process.returncode:
            raise _failure(said.decode(errors="replace"), requirements, self._index)

    def _whence(self) -> list[str]:
        if "://" in self._index:
            return ["--index-url", self._index]
        return ["--no-index", "--find-links", self._index]

    def _sweep(self, room_for: int) -> None:
        """Make room for so many more: the longest unused go, but for those that somebody uses."""
        self._clear()
        sets = kept(self._folder)
        count, total = len(sets), sum(one.size for one in sets)
        for one in sets:
            if count + room_for <= self._most and total <= self._max_bytes:
                return
            if self._remove(one.home):
                count, total = count - 1, total - one.size

    def _clear(self) -> None:
        """What processes that were killed have left half made, or half removed."""
        for path in self._folder.glob(".*.gone-*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self._folder.glob(".*.making"):
            lock = self._open(f"{path.name.removesuffix('.making')}.lock")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            except BlockingIOError:
                continue  # it is being made
            finally:
                os.close(lock)

    def _remove(self, home: Path) -> bool:
        """Whether it is gone; not if somebody uses it."""
        used = self._open(f".{home.name}.used")
        try:
            fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
            gone = home.with_name(f".{home.name}.gone-{os.getpid()}-{time.monotonic_ns()}")
            home.rename(gone)
        except FileNotFoundError:
            return True  # somebody else has removed it
        except OSError:
            return False
        finally:
            os.close(used)
        shutil.rmtree(gone, ignore_errors=True)
        return True

    def _open(self, name: str) -> int:
        return os.open(self._folder / name, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)

    @contextlib.asynccontextmanager
    async def _lock(self, key: str) -> AsyncIterator[None]:
        """Held by one maker of a set at a time, in all processes that share the cache; it ends with its process."""
        fd = self._open(f".{key}.lock")
        try:
            deadline = time.monotonic() + self._install_sec + 30
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise CannotStart("install_failed", "another process installs the same for too long") from None
                    await asyncio.sleep(LOOK_SEC)
            yield
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Kept:
    """One set that a cache has, and how many bytes of the disk it takes up."""

    home: Path
    size: int
    used: float


def kept(folder: Path) -> list[Kept]:
    """The sets in a cache, the longest unused first. What somebody removes meanwhile is not among them."""
    found = []
    for home in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            if home.is_dir() and (home / DONE).exists():
                found.append(Kept(home, _size_of(home), home.stat().st_mtime))
    return sorted(found, key=lambda one: one.used)


def _size_of(home: Path) -> int:
    """As it was measured when it was made; one that was made before that was done is measured now."""
    try:
        return int((home / SIZE).read_text())
    except (OSError, ValueError):
        return _measured(home)


def _measured(folder: Path) -> int:
    total = 0
    for path, _, names in os.walk(folder):
        for name in (".", *names):
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
    return total


def _pip() -> list[str]:
    """pip of this interpreter, or the one that Python brings along to make environments with."""
    import importlib.util

    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-I", "-m", "pip"]
    with contextlib.suppress(ImportError):
        import ensurepip

        wheels = sorted(Path(ensurepip.__file__).parent.glob("_bundled/pip-*.whl"))
        if wheels:
            return [sys.executable, "-I", f"{wheels[-1]}/pip"]
    raise CannotStart("no_pip", "packages cannot be installed: this Python has no pip", "install python3-venv or pip")


def _failure(said: str, requirements: Sequence[str], index: str) -> CannotStart:
    words = [line for line in said.splitlines() if line.strip()]
    text = "\n".join(words)[-MOST_SAID:]
    hopeless = any(sign in said for sign in HOPELESS)
    say = f"{', '.join(requirements)} cannot be installed from {index}: {text or 'pip said nothing'}"
    return CannotStart("requirements" if hopeless else "install_failed", say)


def _seal(making: Path, requirements: Sequence[str]) -> None:
    """Write down what was installed, and that it is whole."""
    report: dict[str, Any] = json.loads((making / "report.json").read_text())
    installed = [
        {
            "name": item["metadata"]["name"],
            "version": item["metadata"]["version"],
            "url": item["download_info"]["url"],
            "hashes": item["download_info"].get("archive_info", {}).get("hashes", {}),
        }
        for item in report.get("install", [])
    ]
    lock = {"requirements": sorted(requirements), "python": sys.version.split()[0], "installed": installed}
    (making / LOCK).write_text(json.dumps(lock, indent=2))
    (making / "report.json").unlink()
    (making / PACKAGES).mkdir(exist_ok=True)
    (making / SIZE).write_text(str(_measured(making)))
    (making / DONE).touch()
