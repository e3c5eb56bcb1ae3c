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
from pathlib import Path
from typing import Any, Final

from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.languages import interpreter

PACKAGES: Final = "packages"
LOCK: Final = "lock.json"
DONE: Final = "done"
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
    """Keeps at most `most` of them in `folder`, the least recently used ones go first. `index` is an address, or a
    folder of wheels; `install_sec` bounds the making of one."""

    def __init__(self, folder: Path, *, index: str, most: int = 20, install_sec: float = 300.0) -> None:
        self._folder = folder
        self._index = index
        self._most = max(1, most)
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
        await asyncio.to_thread(self._sweep)
        making = home.with_name(f".{home.name}.making")
        await asyncio.to_thread(shutil.rmtree, making, ignore_errors=True)
        making.mkdir(mode=0o755)
        try:
            await self._install(making, requirements)
            await asyncio.to_thread(_seal, making, requirements)
            making.rename(home)
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

    def _sweep(self) -> None:
        """Make room for one more: the longest unused go, but for those that somebody uses."""
        homes = [path for path in self._folder.iterdir() if path.is_dir() and (path / DONE).exists()]
        homes.sort(key=lambda path: path.stat().st_mtime)
        for home in homes[: max(0, len(homes) - self._most + 1)]:
            used = self._open(f".{home.name}.used")
            try:
                fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
                gone = home.with_name(f".{home.name}.gone-{os.getpid()}-{time.monotonic_ns()}")
                home.rename(gone)
            except OSError:
                continue  # it is in use, or somebody else has removed it
            finally:
                os.close(used)
            shutil.rmtree(gone, ignore_errors=True)

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
    (making / DONE).touch()
