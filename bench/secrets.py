"""`python -m bench.secrets`: what covering secrets in a program's output costs, and what giving them out does.

The first table is in megabytes a second of one core, by how many secrets of which length an attempt has: for a stream
in chunks of 64 KiB, and for lines that are fed one by one. `hostile` is output that nearly is the secret, everywhere.
The second is of a manager on a SQLite file, by one caller after the other.
"""

from __future__ import annotations

import asyncio
import random
import string
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from flowkit.backend import open_backend
from flowkit.clock import SystemClock
from flowkit.config import CoordinatorConfig, WorkerConfig
from flowkit.core.redaction import Redactor
from flowkit.ports import SecretUse
from flowkit.safe import open_office, open_secrets, open_source
from flowkit.telemetry import Telemetry

SIZE = 4 * 1024 * 1024
CHUNK = 64 * 1024
CALLS = 300
CASES = ((1, 8), (1, 32), (5, 32), (20, 40), (1, 1_700), (1, 65_536))


def main() -> None:
    dice = random.Random(1)
    text = log_lines(dice)
    print(f"{'secrets':>7} {'length':>7} {'forms':>7} {'made in':>10} {'stream':>12} {'lines':>12}")
    for count, length in CASES:
        values = ["".join(dice.choices(string.ascii_letters + string.digits + "+/=-_", k=length)) for _ in range(count)]
        redactor, made = timed(lambda values=values: Redactor(values))  # type: ignore[misc]
        stream = speed(redactor, chunks(text))
        lines = speed(redactor, text.splitlines(keepends=True)[:20_000])
        forms = len(redactor._forms)
        print(f"{count:>7} {length:>7} {forms:>7} {made * 1000:>7.1f} ms {stream:>7.1f} MB/s {lines:>7.1f} MB/s")
    hostile = speed(Redactor(["ab" * 40 + "c"]), chunks(b"ab" * (SIZE // 8)))
    print(f"{'hostile':>46} {hostile:>7.1f} MB/s\n")
    asyncio.run(give_out())


def log_lines(dice: random.Random) -> bytes:
    words = ["".join(dice.choices(string.ascii_lowercase, k=dice.randint(2, 10))) for _ in range(2_000)]
    lines: list[str] = []
    size = 0
    while size < SIZE:
        stamp = f"2027-01-{dice.randint(1, 28):02}T12:00:{dice.random() * 60:06.3f} INFO"
        lines.append(f"{stamp} {' '.join(dice.choices(words, k=12))} id={dice.randbytes(8).hex()}\n")
        size += len(lines[-1])
    return "".join(lines).encode()


def chunks(text: bytes) -> Iterable[bytes]:
    return (text[start : start + CHUNK] for start in range(0, len(text), CHUNK))


def speed(redactor: Redactor, parts: Iterable[bytes]) -> float:
    parts, stream = list(parts), redactor.stream()
    started = time.perf_counter()
    for part in parts:
        stream.feed(part)
    stream.flush()
    return sum(map(len, parts)) / (time.perf_counter() - started) / 1e6


def timed(act: Callable[[], Redactor]) -> tuple[Redactor, float]:
    started = time.perf_counter()
    return act(), time.perf_counter() - started


async def give_out() -> None:
    with tempfile.TemporaryDirectory() as folder:
        cfg, clock, telemetry = CoordinatorConfig(), SystemClock(), Telemetry()
        backend = open_backend(Path(folder) / "flow.db", cfg)
        await backend.store.start()
        secrets = open_secrets(backend, cfg, clock, telemetry)
        office, source = open_office(backend, cfg, clock), open_source(backend, WorkerConfig(), cfg, clock, telemetry)
        uses = iter(range(10**9))

        async def use() -> None:
            attempt = SecretUse("default", "task", "node", 1, f"tok-{next(uses)}", "w1")
            await source.values_for(attempt, office.issue(attempt, ["A", "B", "C"]))

        async def issue() -> None:
            office.issue(SecretUse("default", "task", "node", 1, "tok", "w1"), ["A", "B", "C"])

        for name in "ABC":
            await secrets.set(name, f"the-value-of-{name}")
        print(f"{await each(lambda: secrets.set('D', 'another-value')):>9.0f} us   a secret set, and recorded")
        print(f"{await each(use):>9.0f} us   three secrets given to an attempt, and recorded")
        print(f"{await each(issue):>9.0f} us   a ticket issued")
        await backend.store.stop()


async def each(act: Callable[[], Awaitable[object]]) -> float:
    """Microseconds of one call."""
    started = time.perf_counter()
    for _ in range(CALLS):
        await act()
    return (time.perf_counter() - started) / CALLS * 1e6


if __name__ == "__main__":
    main()
