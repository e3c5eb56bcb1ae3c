"""Hand-made histories: a task of a few nodes, its commits and its ledger, good until a test spoils them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from flowkit.core import facts as f
from flowkit.core.dialect import parse_graph
from flowkit.core.payload import Payload
from flowkit.ports import DELETED, Commit, Head
from flowkit.testing.evidence import Evidence, Start, Violation
from flowkit.testing.history import check_history
from flowkit.wire.facts import body_of, encode_facts
from flowkit.wire.tombstone import is_tombstone, tombstone

CHAIN = {
    "nodes": [
        {"node_id": "a", "type": "work"},
        {"node_id": "b", "type": "work", "depends_on": ["a"], "retry_policy": {"max": 2}},
    ]
}


@dataclass
class Story:
    """`then` adds a commit, `deleted` the last; `check` judges. Commit n is at second n."""

    graph: dict[str, Any] = field(default_factory=lambda: CHAIN)
    task_id: str = "t"
    commits: list[Commit] = field(default_factory=list)
    ledger: list[Start] = field(default_factory=list)
    evidence: Evidence = field(default_factory=Evidence)
    active: bool = False

    def then(self, *recorded: f.Fact, at: float | None = None) -> Story:
        seq = len(self.commits) + 1
        prev = self.commits[-1].id if self.commits else ""
        body = body_of(encode_facts(recorded))
        self.commits.append(
            Commit(self.task_id, seq, f"c{seq}", prev, at if at is not None else float(seq), "C0", body)
        )
        return self

    def deleted(self) -> Story:
        self.commits.append(tombstone(self.task_id, len(self.commits) + 1, at=99.0, by="me"))
        return self

    def run(self, node: str, attempt: int = 1, *, at: float, until: float, worker: str = "W0", **more: Any) -> Story:
        start = Start(self.task_id, node, attempt, f"{self.task_id}:0:{node}", worker, at, until)
        self.ledger.append(replace(start, **more))
        return self

    def spoil(self, seq: int, **changes: Any) -> Story:
        self.commits[seq - 1] = replace(self.commits[seq - 1], **changes)
        return self

    def check(self, **evidence: Any) -> list[Violation]:
        status, last = "queued", len(self.commits)
        for commit in self.commits:
            status = "finished" if '"ended","finished"' in commit.body else status
            status = "failed" if '"ended","failed"' in commit.body else status
            status = "cancelled" if '"ended","cancelled"' in commit.body else status
        status = DELETED if any(map(is_tombstone, self.commits)) else status
        head = Head(self.task_id, 0, "g", status=status, seq=last, published_seq=last, active=self.active)
        base: dict[str, Any] = {
            "heads": {self.task_id: head},
            "graphs": {"g": parse_graph(self.graph)},
            "accepted": [self.task_id],
        }
        return check_history(self.commits, self.ledger, Evidence(**(base | evidence)))

    def kinds(self, **evidence: Any) -> set[str]:
        return {violation.kind for violation in self.check(**evidence)}


def leased(node: str, attempt: int = 1, worker: str = "W0") -> f.AttemptLeased:
    return f.AttemptLeased(node, attempt, f"{node}.{attempt}", worker, "i", 99.0)


def done(node: str, attempt: int = 1, output: Any = 1) -> f.AttemptSucceeded:
    return f.AttemptSucceeded(node, attempt, f"{node}.{attempt}", Payload(output))


def failed(node: str, attempt: int = 1, retry_at: float | None = None) -> f.AttemptFailed:
    return f.AttemptFailed(node, attempt, f"{node}.{attempt}", {"code": "x", "message": "x"}, retry_at)


def lost(node: str, attempt: int = 1, why: str = "expired", retry_at: float | None = 0.0) -> f.LeaseLost:
    return f.LeaseLost(node, attempt, f"{node}.{attempt}", why, retry_at, why == "expired")


def asked(n: int, kind: str, *, accepted: bool = True) -> f.RequestApplied:
    return f.RequestApplied(n, f"r{n}", kind, accepted)


def cancelling() -> f.TaskCancelling:
    return f.TaskCancelling("user_request", "cancelled", 99.0)


def good() -> Story:
    """A chain of two that finishes at once."""
    story = (
        Story().then(f.TaskCreated(), leased("a")).then(done("a"), leased("b")).then(done("b"), f.TaskEnded("finished"))
    )
    return story.run("a", at=1.1, until=1.9, inputs={}).run("b", at=2.1, until=2.9, inputs=1)
