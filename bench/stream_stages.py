"""Where the time goes between a first batch and the handler that reads it: the processes of `bench.streams` note when
they pass each place on the way, by the machine's monotonic clock, which they share."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from flowkit.coordinator.carrier import Carrier
from flowkit.coordinator.commits import CommitLog
from flowkit.coordinator.engine import Engine
from flowkit.core.effects import Dispatch
from flowkit.core.facts import StreamBegun
from flowkit.core.reports import Streams
from flowkit.wire.messages import Job
from flowkit.worker.slots import Slots
from flowkit.worker.stream import Stream
from flowkit.worker.stream_flow import StreamFlow
from flowkit.worker.stream_hub import StreamHub
from flowkit.worker.stream_log import StreamLog
from flowkit.worker.stream_reader import StreamReader

MAKER, READER = "s0", "s1"

PLACES = (
    ("made", "the maker yields the batch"),
    ("writing", "its block is about to be written"),
    ("reported", "the coordinator is told that the stream has begun"),
    ("kept", "the store has the block"),
    ("heard", "the coordinator hears of it"),
    ("decided", "it hands the commit with the reader's lease to the store"),
    ("committed", "the commit is acknowledged, the job leaves"),
    ("accepted", "the reader's worker has the job"),
    ("opened", "the reader knows where it begins"),
    ("fetched", "the block has come to the reader"),
    ("given", "the reader's handler has the batch"),
)


class Notes:
    """One line per place and task, the first time that it is passed."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / f"{os.getpid()}.notes").open("a", buffering=1)
        self._seen: set[tuple[str, str]] = set()

    def note(self, task_id: str, place: str) -> None:
        if (task_id, place) not in self._seen:
            self._seen.add((task_id, place))
            self._file.write(json.dumps([task_id, place, time.monotonic()]) + "\n")


def watch(folder: Path) -> None:
    """Note from now on what this process has to do with first batches."""
    notes = Notes(folder)
    for owner, name, where, see in (
        (StreamFlow, "put", _before, lambda flow, *_, **__: _of(flow.job, MAKER, "made")),
        (StreamLog, "append", _before, lambda log, *_: _log(log, "writing")),
        (StreamHub, "report", _before, _reported),
        (StreamLog, "append", _after, lambda log, *_: _log(log, "kept")),
        (Engine, "feed", _before, _heard),
        (CommitLog, "append", _before, _decided),
        (Carrier, "carry_out", _before, _carried),
        (Slots, "receive", _before, lambda slots, items: _jobs(items)),
        (StreamFlow, "open", _after, lambda flow, **_: _of(flow.job, READER, "opened")),
        (StreamReader, "_take_in", _before, lambda reader, block: [(reader._stream.task_id, "fetched")]),
        (Stream, "next_row", _after, lambda stream: _of(stream._flow.job, READER, "given")),
    ):
        where(owner, name, see, notes)


See = Callable[..., Iterable[tuple[str, str]]]


def _before(owner: Any, name: str, see: See, notes: Notes) -> None:
    inner = getattr(owner, name)

    def noted(*args: Any, **kwargs: Any) -> Any:
        for task_id, place in see(*args, **kwargs):
            notes.note(task_id, place)
        return inner(*args, **kwargs)

    setattr(owner, name, noted)


def _after(owner: Any, name: str, see: See, notes: Notes) -> None:
    inner = getattr(owner, name)

    async def noted(*args: Any, **kwargs: Any) -> Any:
        result = await inner(*args, **kwargs)
        for task_id, place in see(*args, **kwargs):
            notes.note(task_id, place)
        return result

    setattr(owner, name, noted)


def _of(job: Job, node: str, place: str) -> list[tuple[str, str]]:
    return [(job.task_id, place)] if job.node == node else []


def _log(log: StreamLog, place: str) -> list[tuple[str, str]]:
    return [(log.stream.task_id, place)] if log.stream.node == MAKER else []


def _reported(hub: StreamHub, job: Job, *, begun: bool) -> list[tuple[str, str]]:
    return _of(job, MAKER, "reported") if begun else []


def _heard(engine: Engine, cell: Any, item: Any) -> list[tuple[str, str]]:
    begun = isinstance(item.report, Streams) and item.report.begun and item.report.node == MAKER
    return [(cell.task_id, "heard")] if begun else []


def _decided(commits: CommitLog, flight: Any) -> list[tuple[str, str]]:
    begun = any(isinstance(fact, StreamBegun) for fact in flight.facts)
    return [(flight.cell.task_id, "decided")] if begun else []


def _carried(carrier: Carrier, cell: Any, effect: Any) -> list[tuple[str, str]]:
    reader = isinstance(effect, Dispatch) and effect.name == READER
    return [(cell.task_id, "committed")] if reader else []


def _jobs(items: Iterable[Any]) -> list[tuple[str, str]]:
    return [(item.task_id, "accepted") for item in items if isinstance(item, Job) and item.node == READER]


# ---------------------------------------------------------------------------------------------- what was noted


def read(folder: Path) -> dict[str, dict[str, float]]:
    """When each task passed each place."""
    found: dict[str, dict[str, float]] = {}
    for file in folder.glob("*.notes"):
        for line in file.read_text().splitlines():
            task_id, place, at = json.loads(line)
            found.setdefault(task_id, {}).setdefault(place, at)
    return found


def table(tasks: Iterable[Mapping[str, float]]) -> list[str]:
    """How long after the batch was made each place was passed."""
    lines = [f"{'ms after the batch was made':64}{'p50':>8}{'p90':>8}{'p99':>8}"]
    seen = [task for task in tasks if "made" in task]
    for place, what in PLACES[1:]:
        late = sorted(1000 * (task[place] - task["made"]) for task in seen if place in task)
        if len(late) < 2:
            raise SystemExit(f"the measurement failed: nobody has seen that {what}")
        cuts = statistics.quantiles(late, n=100, method="inclusive")
        lines.append(f"{what:64}{cuts[49]:8.1f}{cuts[89]:8.1f}{cuts[98]:8.1f}")
    return lines
