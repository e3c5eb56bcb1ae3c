"""A cluster with secrets, each part a process of its own: a coordinator, workers, a secret manager."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flowkit import CoordinatorConfig
from flowkit.client import Client
from tests.integration.site import Site, until

ROOT = Path(__file__).resolve().parents[3]


@dataclass
class House:
    """`folder` holds the keys, the logs (`*.log`), and the folder for temporary files of all parts (`tmp`)."""

    site: Site
    folder: Path
    parts: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    manager: str = ""

    def __post_init__(self) -> None:
        for name in ("tmp", "home"):
            (self.folder / name).mkdir()
        for name in ("master", "tickets"):
            path = self.folder / f"{name}.keys"
            path.touch(mode=0o600)
            path.write_text(f"k1 {base64.b64encode(secrets.token_bytes(32)).decode()}\n")

    def keys(self, name: str) -> str:
        return f"file:{self.folder / f'{name}.keys'}"

    def client(self) -> Client:
        """For an operator, who has the master keys."""
        return Client(db=self.site.db, cfg=CoordinatorConfig(**self.site.settings, secrets_keys=self.keys("master")))

    def begin(self, part: str, *words: str, **more: str) -> None:
        """Start `flowkit WORDS`; what it says goes to `PART.log`."""
        own = {"TMPDIR": str(self.folder / "tmp"), "HOME": str(self.folder / "home"), "PYTHONPATH": str(ROOT)}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWKIT_", "KAFKA_"))}
        with (self.folder / f"{part}.log").open("ab") as log:
            self.parts[part] = subprocess.Popen(
                [sys.executable, "-m", "flowkit", *words, "--log-level", "debug"],
                cwd=self.folder, env=kept | self.site.environment | own | more, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log,
            )  # fmt: skip

    def log(self, part: str) -> str:
        return (self.folder / f"{part}.log").read_text(errors="replace")

    async def heard(self, part: str, words: str) -> str:
        """What a part has said, once these words have come."""

        def has() -> bool:
            assert self.parts[part].poll() is None, f"{part} has ended: {self.log(part)[-4000:]}"
            return words in self.log(part)

        await until(f"{part} says {words!r}", has, timeout=60)
        return self.log(part)

    async def open(self, *, workers: int = 1, roles: tuple[str, ...] = ("code",), **worker: str) -> None:
        """Start all parts; the first coordinator makes topics and indexes, so the others follow."""
        self.begin("coordinator", "coordinator", FLOWKIT_SECRETS_TICKETS=self.keys("tickets"))
        await self.heard("coordinator", "coordinator c-")
        self.begin(
            "manager", "secrets", "serve", "--listen", "127.0.0.1:0",
            FLOWKIT_SECRETS_KEYS=self.keys("master"), FLOWKIT_SECRETS_TICKETS=self.keys("tickets"),
        )  # fmt: skip
        said = await self.heard("manager", "secret manager at ")
        self.manager = said.partition("secret manager at ")[2].partition(",")[0]
        words = [word for role in roles for word in ("--role", role)]
        for number in range(workers):
            self.begin(f"worker{number}", "worker", "app", *words, FLOWKIT_SECRETS_ADDRESS=self.manager, **worker)
        for number in range(workers):
            await self.heard(f"worker{number}", "serves")

    async def close(self) -> None:
        """Tell all parts to end, and wait until they have."""
        for process in self.parts.values():
            process.terminate()
        for name, process in self.parts.items():
            await asyncio.to_thread(process.wait, 60)
            assert process.returncode == 0, f"{name} ended with {process.returncode}: {self.log(name)[-4000:]}"

    def kill(self) -> None:
        for process in self.parts.values():
            process.kill()
            process.wait()


@contextmanager
def house(site: Site, folder: Path, app: str) -> Iterator[House]:
    """`app` is the module with the workers' handlers."""
    (folder / "app.py").write_text(app)
    made = House(site, folder)
    try:
        yield made
    finally:
        made.kill()
