"""Coordinators and workers as processes of their own, which may be killed, frozen, thawed, told to stop, and
replaced."""

from __future__ import annotations

import asyncio
import atexit
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from tests.integration.site import Site, until

ROOT = Path(__file__).resolve().parents[3]
Role = Literal["coordinator", "worker"]
# Nothing is promised about it, and on a busy machine five Pythons that start at once take half a minute.
STARTED_SEC = 90.0


class Part:
    """One process. `name` is its worker's or coordinator's id; `log` is what it says of what happens in it."""

    def __init__(self, role: Role, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.role = role
        self.name = name
        self.log = folder / f"{name}.log"
        self.errors = folder / f"{name}.err"
        self.killed_at: float | None = None
        self.frozen_at: float | None = None
        with self.log.open("ab") as out, self.errors.open("ab") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.harness.part", role, name],
                stdin=subprocess.PIPE, stdout=out, stderr=err, cwd=ROOT, env={**os.environ, **environment},
            )  # fmt: skip
        atexit.register(self.end)

    @property
    def living(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> float:
        """SIGKILL; when (wall clock) it was told so: it is dead some moments later."""
        self.killed_at = time.time()
        self.process.kill()
        self.process.wait()
        return self.killed_at

    def freeze(self) -> float:
        self.frozen_at = time.time()
        self.process.send_signal(signal.SIGSTOP)
        return self.frozen_at

    def thaw(self) -> None:
        self.frozen_at = None
        self.process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM, as an operator would."""
        self.process.terminate()

    async def ended(self, timeout: float) -> int:
        """Wait until it has ended by itself; its exit code."""
        await until(f"{self.name} ends", lambda: not self.living, timeout=timeout)
        code = self.process.returncode
        assert code is not None
        return code

    def end(self) -> None:
        """Whatever state it is in."""
        if self.living:
            self.process.kill()
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        atexit.unregister(self.end)

    def said(self) -> list[tuple[float, str, str]]:
        """Its happenings so far: when, which, and all about it."""
        lines = self.log.read_bytes().split(b"\n")
        return [tuple(json.loads(line)) for line in lines[:-1]]

    def complaint(self) -> str:
        return f"{self.name} ended with code {self.process.returncode}: {self.errors.read_text()[-2000:]}"


@dataclass
class Cluster:
    """So many coordinators and workers on one site; whoever is killed is replaced under a new name."""

    site: Site
    folder: Path
    ledger: Path
    extra: Mapping[str, str] = field(default_factory=dict)
    parts: dict[str, Part] = field(default_factory=dict)
    """Those that should live, by place: `w0`, `w1`, `c0`, ..."""
    every: list[Part] = field(default_factory=list)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for part in self.every:
            part.end()

    def spawn(self, role: Role, place: str) -> Part:
        """A process for a place. Each life has a name of its own, as a worker without a configured id has."""
        life = sum(part.name.startswith(f"{place}.") for part in self.every)
        environment = {**self.site.environment, **self.extra, "LEDGER": str(self.ledger)}
        part = self.parts[place] = Part(role, f"{place}.{life}", self.folder, environment)
        self.every.append(part)
        return part

    def replace(self, part: Part) -> Part:
        place = part.name.partition(".")[0]
        return self.spawn(part.role, place)

    def of_role(self, role: Role) -> list[Part]:
        return [part for part in self.parts.values() if part.role == role and part.living]

    async def start(self, *, coordinators: int, workers: int) -> None:
        for n in range(coordinators):
            self.spawn("coordinator", f"c{n}")
        for n in range(workers):
            self.spawn("worker", f"w{n}")
        await self.in_business(list(self.parts.values()))

    async def in_business(self, parts: Sequence[Part], timeout: float = STARTED_SEC) -> None:
        """Wait until every coordinator of these has partitions, and each worker is known to a coordinator."""
        for part in parts:
            await until(f"{part.name} is in business", lambda part=part: self._serves(part), timeout=timeout)

    def _serves(self, part: Part) -> bool:
        if not part.living:
            raise AssertionError(part.complaint())
        if part.role == "coordinator":
            return any(what == "Rebalanced" and "gained=frozenset({" in about for _, what, about in part.said())
        seen = f"worker='{part.name}', what='hello'"
        return all(
            any(what == "WorkerSeen" and seen in about for _, what, about in coordinator.said())
            for coordinator in self.of_role("coordinator")
        )

    def happenings(self) -> Iterator[tuple[Part, float, str, str]]:
        for part in self.every:
            for at, what, about in part.said():
                yield part, at, what, about

    def counts(self) -> Counter[str]:
        """How often each thing happened, over all processes there ever were."""
        return Counter(what for _, _, what, _ in self.happenings())

    def complaints(self) -> list[str]:
        """What went wrong by itself: processes that ended unasked, loops that failed for no outage."""
        dead = [p for p in self.parts.values() if not p.living and p.killed_at is None]
        return [part.complaint() for part in dead]


async def all_end(parts: Sequence[Part], timeout: float) -> list[int]:
    return list(await asyncio.gather(*(part.ended(timeout) for part in parts)))


def quietly(part: Part) -> None:
    with suppress(ProcessLookupError):
        part.terminate()
