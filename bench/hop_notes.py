"""The places on the way of a chain from one of its nodes to the next, noted by the processes of `bench.beside`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.notes import Notes, Passed, before, replace
from flowkit.adapters import kafka_publisher
from flowkit.adapters.kafka_readers import KafkaMember, KafkaTail
from flowkit.coordinator.carrier import Carrier
from flowkit.coordinator.commits import CommitLog
from flowkit.coordinator.engine import Engine
from flowkit.coordinator.publisher import Publisher
from flowkit.core.facts import AttemptLeased, AttemptSucceeded
from flowkit.wire.messages import Job, Told
from flowkit.worker.outbox import Outbox
from flowkit.worker.slots import Slots

CHAIN = "n"
"""What the names of a chain's nodes begin with, and no name of a large graph's."""

PLACES = (
    ("began", 0, "", "its handler begins"),
    ("ended", 0, "worker", "the handler runs"),
    ("packed", 0, "worker", "its result is put into a message"),
    ("left", 0, "worker", "behind the batch before it"),
    ("came", 0, "coordinator", "Kafka; the coordinator's loop is busy"),
    ("taken", 0, "coordinator", "turns of the coordinator's loop"),
    ("heard", 0, "coordinator", "what came with it is read"),
    ("decided", 0, "coordinator", "what came with it is decided"),
    ("leased", 1, "coordinator", "the next node waits for room"),
    ("written", 1, "coordinator", "other commits are on their way"),
    ("kept", 1, "coordinator", "the store; the coordinator's loop is busy"),
    ("dispatched", 1, "coordinator", "effects of what was kept with it"),
    ("job packed", 1, "coordinator", "other jobs, until all are put into messages"),
    ("job left", 1, "coordinator", "behind the batch before it"),
    ("job came", 1, "worker", "Kafka; the worker's loop is busy"),
    ("job taken", 1, "worker", "turns of the worker's loop"),
    ("received", 1, "worker", "what came with it is read"),
    ("started", 1, "worker", "it waits for a slot"),
    ("began", 1, "worker", "turns of the worker's loop"),
)
"""Place, whose (0: this node's, 1: the next one's), in which process, and what the time since the place before is."""


def watch(folder: Path) -> None:
    """Note from now on what this process has to do with the nodes of chains."""
    notes = Notes(folder)
    for owner, name, see in (
        (Slots, "_arm", lambda slots, attempt: _of(attempt.job, "began")),
        (Slots, "_conclude", lambda slots, attempt, *_: _of(attempt.job, "ended")),
        (CommitLog, "append", lambda log, flight: _decided(flight)),
        (Engine, "_acknowledged", lambda engine, flight: _leased(flight, "kept")),
        (Carrier, "carry_out", lambda carrier, cell, effect: _named(cell.task_id, effect, "dispatched")),
        (Slots, "receive", lambda slots, items: _jobs(items, "received")),
        (Slots, "_start", lambda slots, attempt: _of(attempt.job, "started")),
    ):
        before(owner, name, see, notes)
    _note_batches(notes)
    _note_letters(notes)
    _note_arrivals(notes)


def key_of(task_id: str, node: str) -> str:
    return f"{task_id}/{node}"


def _of(job: Job, place: str) -> list[Passed]:
    return [(key_of(job.task_id, job.node), place)] if job.node.startswith(CHAIN) else []


def _named(task_id: str, effect: Any, place: str) -> list[Passed]:
    return [(key_of(task_id, effect.name), place)] if getattr(effect, "name", "").startswith(CHAIN) else []


def _jobs(items: Iterable[Any], place: str) -> list[Passed]:
    return [passed for item in items if isinstance(item, Job) for passed in _of(item, place)]


def _about(flight: Any, kind: Any, place: str) -> list[Passed]:
    """For the first facts of a chain only: a large graph's decision has a thousand."""
    if not any(getattr(fact, "node", CHAIN).startswith(CHAIN) for fact in flight.facts[:2]):
        return []
    return [(key_of(flight.cell.task_id, fact.node), place) for fact in flight.facts if isinstance(fact, kind)]


def _decided(flight: Any) -> list[Passed]:
    return [*_about(flight, AttemptSucceeded, "decided"), *_leased(flight, "leased")]


def _leased(flight: Any, place: str) -> list[Passed]:
    return _about(flight, AttemptLeased, place)


def _note_batches(notes: Notes) -> None:
    """When a commit is among those that go to the store."""
    take = CommitLog._take

    def taken(log: CommitLog) -> Any:
        batch = take(log)
        for flight in batch:
            for key, place in _leased(flight, "written"):
                notes.note(key, place)
        return batch

    replace(CommitLog, "_take", taken)


def _note_letters(notes: Notes) -> None:
    """When a result or a job is put into a message, and when that leaves in a batch."""
    inside: dict[int, tuple[Any, list[str]]] = {}
    pack_results, pack_jobs, fill = Outbox._pack, Publisher._pack, kafka_publisher._fill

    def put(record: Any, keys: list[str], place: str) -> None:
        if keys:
            inside[id(record)] = (record, keys)  # the record is held, so nothing else has its id
        for key in keys:
            notes.note(key, place)

    def results(outbox: Outbox, letters: Any) -> Any:
        parcels = pack_results(outbox, letters)
        for record, packed in parcels:
            told: Sequence[Told] = [letter.told for letter in packed]
            nodes = [(one.task_id, getattr(one.report, "node", "")) for one in told]
            put(record, [key_of(*node) for node in nodes if node[1].startswith(CHAIN)], "packed")
        return parcels

    def jobs(publisher: Publisher, worker: str, incarnation: str, items: Any) -> None:
        there = len(publisher._queue)
        pack_jobs(publisher, worker, incarnation, items)
        if len(publisher._queue) == there + 1:  # else there were too many for one, and these were packed again
            put(publisher._queue[-1].record, [key for key, _ in _jobs(items, "")], "job packed")

    def filled(producer: Any, lane: Any) -> Any:
        records = [entry[0] for entry in lane.waiting]
        batch, taken = fill(producer, lane)
        for record in records[: len(taken)]:
            for key in inside.pop(id(record), (None, []))[1]:
                notes.note(key, "job left" if lane.topic.endswith("work.v1") else "left")
        return batch, taken

    replace(Outbox, "_pack", results)
    replace(Publisher, "_pack", jobs)
    replace(kafka_publisher, "_fill", filled)


def _note_arrivals(notes: Notes) -> None:
    """When what Kafka answered had come, and when it was taken: told for all that is read next in this process."""
    from aiokafka.consumer.fetcher import Fetcher

    answered: dict[int, float] = {}
    times = [0.0, 0.0]
    inner_fetch = Fetcher._proc_fetch_request

    async def fetched(fetcher: Any, *args: Any) -> Any:
        answer = await inner_fetch(fetcher, *args)
        answered[id(fetcher)] = time.monotonic()
        return answer

    def remembering(kind: Any, topic: str) -> None:
        inner: Callable[..., Any] = kind.fetch

        async def fetch(reader: Any, timeout: float) -> Any:
            records = await inner(reader, timeout)
            if records and records[0].topic.endswith(topic) and reader._source.consumer is not None:
                times[:] = answered.get(id(reader._source.consumer._fetcher), 0.0), time.monotonic()
            return records

        kind.fetch = fetch

    feed, receive = Engine.feed, Slots.receive

    def fed(engine: Engine, cell: Any, item: Any) -> None:
        notes.tick()
        node = getattr(item.report, "node", "")
        if node.startswith(CHAIN):
            key = key_of(cell.task_id, node)
            for place, at in zip(("came", "taken"), times, strict=True):
                notes.note(key, place, at)
            notes.note(key, "heard")
        feed(engine, cell, item)

    def received(slots: Slots, items: Any) -> None:
        for key, _ in _jobs(items, ""):
            for place, at in zip(("job came", "job taken"), times, strict=True):
                notes.note(key, place, at)
        receive(slots, items)

    replace(Fetcher, "_proc_fetch_request", fetched)
    remembering(KafkaMember, "facts.v1")
    remembering(KafkaTail, "work.v1")
    replace(Engine, "feed", fed)
    replace(Slots, "receive", received)
