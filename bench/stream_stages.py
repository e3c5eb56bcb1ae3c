"""Where the time goes between a first batch and the handler that reads it: the processes of `bench.streams` note when
they pass each place on the way, by the machine's monotonic clock, which they share."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.notes import Note, Notes, after, before
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


def watch(folder: Path) -> None:
    """Note from now on what this process has to do with first batches."""
    notes = Notes(folder)
    for owner, name, where, see in (
        (StreamFlow, "put", before, lambda flow, *_, **__: _of(flow.job, MAKER, "made")),
        (StreamLog, "append", before, lambda log, *_: _log(log, "writing")),
        (StreamHub, "report", before, _reported),
        (StreamLog, "append", after, lambda log, *_: _log(log, "kept")),
        (Engine, "feed", before, _heard),
        (CommitLog, "append", before, _decided),
        (Carrier, "carry_out", before, _carried),
        (Slots, "receive", before, lambda slots, items: _jobs(items)),
        (StreamFlow, "open", after, lambda flow, **_: _of(flow.job, READER, "opened")),
        (StreamReader, "_take_in", before, lambda reader, block: [(reader._stream.task_id, "fetched")]),
        (Stream, "next_row", after, lambda stream: _of(stream._flow.job, READER, "given")),
    ):
        where(owner, name, see, notes)


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


def table(tasks: Iterable[Mapping[str, Note]]) -> list[str]:
    """How long after the batch was made each place was passed."""
    lines = [f"{'ms after the batch was made':64}{'p50':>8}{'p90':>8}{'p99':>8}"]
    seen = [task for task in tasks if "made" in task]
    for place, what in PLACES[1:]:
        late = sorted(1000 * (task[place].at - task["made"].at) for task in seen if place in task)
        if len(late) < 2:
            raise SystemExit(f"the measurement failed: nobody has seen that {what}")
        cuts = statistics.quantiles(late, n=100, method="inclusive")
        lines.append(f"{what:64}{cuts[49]:8.1f}{cuts[89]:8.1f}{cuts[98]:8.1f}")
    return lines
