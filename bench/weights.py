"""What FlowKit's messages and documents weigh, taken from its own encoders, so that the floor moves as much."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from flowkit.adapters.mongo_documents import commit_doc, head_doc
from flowkit.core import facts
from flowkit.core.payload import Payload
from flowkit.core.reports import Succeeded
from flowkit.ports import Commit, Head
from flowkit.wire.events import encode_event, event_headers
from flowkit.wire.facts import body_of, encode_facts
from flowkit.wire.messages import (
    Job,
    Told,
    encode_facts_batch,
    encode_work,
)

TASK = str(uuid.UUID(int=0))
TOKEN = "c-0123abcd.12345"
WORKER = "w-0123abcd"
OUTPUT = {"n": 12345, "at": 12345.123456789}


@dataclass(frozen=True, slots=True)
class Weights:
    """Bytes. `event` is what an event's value has beside the commit's body; `headers` are an event's."""

    job: int
    result: int
    created: int
    leased: int
    succeeded: int
    ended: int
    event: int
    headers: list[tuple[str, bytes]]
    head: dict[str, Any]
    commit: dict[str, Any]


def weigh() -> Weights:
    job = Job(TASK, "default", "local", 1, "n000", "hop", 1, TOKEN, 0, 12345.123456789, OUTPUT, [], {"n": 1})
    told = Told(TASK, "default", Succeeded("n000", 1, TOKEN, Payload(OUTPUT), None, 0.00012345))
    commit = Commit(TASK, 1, uuid.uuid4().hex, uuid.uuid4().hex, 1.7e9, "c-0123abcd", "")
    return Weights(
        job=len(encode_work(WORKER, "0123abcd", "c-0123abcd", [job, job]))
        - len(encode_work(WORKER, "0123abcd", "c-0123abcd", [job])),
        result=len(encode_facts_batch(WORKER, "0123abcd", 1, [told, told]))
        - len(encode_facts_batch(WORKER, "0123abcd", 1, [told])),
        created=_weight(facts.TaskCreated()),
        leased=_weight(facts.AttemptLeased("n000", 1, TOKEN, WORKER, "0123abcd", 12345.123456789)),
        succeeded=_weight(facts.AttemptSucceeded("n000", 1, TOKEN, Payload(OUTPUT), None, 0.00012345)),
        ended=_weight(facts.TaskEnded("finished")),
        event=len(encode_event(commit, "default", "running")),
        headers=list(event_headers(commit)),
        head=head_doc(Head(TASK, 1, uuid.uuid4().hex, '{"n":1}', fingerprint="0" * 64, created_at=1.7e9)),
        commit=commit_doc(commit),
    )


def _weight(fact: facts.Fact) -> int:
    return len(body_of(encode_facts([fact]))) - 1
