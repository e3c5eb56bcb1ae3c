"""Runs tests while one of their processes after the other is stopped for seconds, as busy machines do to them:

    python -m tests.stalls tests/cli                          # a test file, a folder, any words for pytest
    python -m tests.stalls --seed 7 --servers tests/integration

A test that fails only so rests on how long something takes. Each stop is told on stderr; the same seed stops at the
same moments, not the same processes: those are as the machine starts them.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

SERVERS = ("mongod", "java", "bao")
STOPS_SEC = (1.0, 4.0)
BETWEEN_SEC = (2.0, 6.0)


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the table of processes; `began` tells it from a later one of the same number."""

    pid: int
    name: str
    state: str
    parent: int
    began: str


def read(pid: int) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    head, _, tail = text.rpartition(")")
    words = tail.split()
    return Process(pid, head.partition("(")[2], words[0], int(words[1]), words[19])


def descendants(root: int) -> list[Process]:
    """Of a process, with itself, all that can be stopped: those that a test has stopped are left to it."""
    table = [found for entry in os.listdir("/proc") if entry.isdigit() and (found := read(int(entry)))]
    family = {root}
    while more := {one.pid for one in table if one.parent in family} - family:
        family |= more
    return [one for one in table if one.pid in family and one.state not in "TtZX"]


def stop(process: Process, seconds: float) -> None:
    """Stop it, and let it go on: unless it has ended, and its number is another's."""
    try:
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(seconds)
    except ProcessLookupError:
        return
    finally:
        if (now := read(process.pid)) is not None and now.began == process.began:
            os.kill(process.pid, signal.SIGCONT)


def disturb(tests: subprocess.Popen[bytes], dice: random.Random, *, servers: bool) -> int:
    """Until the tests end. The tests' own process is stopped as often as all others together."""
    began, stops = time.monotonic(), 0
    while True:
        try:
            return tests.wait(dice.uniform(*BETWEEN_SEC))
        except subprocess.TimeoutExpired:
            seconds, own = dice.uniform(*STOPS_SEC), dice.random() < 0.5
        able = [one for one in descendants(tests.pid) if servers or one.name not in SERVERS]
        if chosen := [one for one in able if (one.pid == tests.pid) is own] or able:
            process, stops = dice.choice(chosen), stops + 1
            at = time.monotonic() - began
            print(f"{at:7.1f} s  {process.name} ({process.pid}) stops for {seconds:.1f} s", file=sys.stderr)
            stop(process, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.stalls", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--servers", action="store_true", help="stop mongod, Kafka and OpenBao as well")
    args, words = parser.parse_known_args()
    tests = subprocess.Popen([sys.executable, "-m", "pytest", *words])
    try:
        return disturb(tests, random.Random(args.seed), servers=args.servers)
    finally:
        tests.terminate()
        tests.wait()


if __name__ == "__main__":
    sys.exit(main())
