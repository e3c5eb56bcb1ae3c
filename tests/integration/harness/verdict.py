"""Judges a run: by the commits in the store, the events on the bus, the ledger, and what the faults were."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from operator import attrgetter
from typing import Any

from flowkit.adapters.mongo import MongoStore
from flowkit.core import facts as f
from flowkit.core.dialect import parse_graph
from flowkit.core.graph import Graph
from flowkit.core.model import ENDED_TASK
from flowkit.ports import Commit, Head, HeadFilter
from flowkit.testing import Evidence, Frozen, Violation, check_history
from flowkit.wire.codec import loads
from flowkit.wire.facts import decode_facts
from tests.integration.harness.ledger import Ledger, Run
from tests.integration.harness.permits import most_held
from tests.integration.site import Site, until

PAGE = 500
# A handler that ended so short before a kill may have had its result still on its way to Kafka: on a busy machine, too.
ON_ITS_WAY_SEC = 1.0
AT_ONCE_SEC = 0.25


@dataclass(slots=True)
class Fault:
    """One fault: `kind` (`worker_kill`, ...), whom it hit, when, and until when if it was not for good."""

    kind: str
    victim: str
    at: float
    until: float = 0.0

    @property
    def frozen(self) -> bool:
        return self.kind.endswith("_stop")

    def struck(self, run: Run) -> bool:
        """Whether the run ran on its victim then. A process dies some moments after it is told to: what it began in
        between never ended. Its name is nobody's afterwards."""
        dying = self.kind == "worker_kill" and run.began > self.at and run.ended is None
        return run.worker == self.victim and (dying or run.running_at(self.at))


@dataclass(slots=True)
class Facts:
    """Everything that a quiet cluster has written down."""

    heads: dict[str, Head]
    graphs: dict[str, Graph]
    commits: dict[str, list[Commit]]
    events: set[tuple[str, int, str]] | None = None

    @property
    def all_commits(self) -> list[Commit]:
        return [commit for commits in self.commits.values() for commit in commits]


async def read_everything(store: MongoStore) -> Facts:
    heads: dict[str, Head] = {}
    graphs: dict[str, Graph] = {}
    commits: dict[str, list[Commit]] = defaultdict(list)
    after: tuple[float, str] | None = None
    while page := await store.list_heads(HeadFilter(), limit=PAGE, after=after):
        heads |= {head.task_id: head for head in page}
        after = (page[-1].created_at, page[-1].task_id)
        for commit in await store.read_commits([head.task_id for head in page]):
            commits[commit.task_id].append(commit)
        for head in page:
            if head.graph_ref not in graphs:
                graphs[head.graph_ref] = parse_graph(loads(await store.get_blob(head.graph_ref, kind="graph")))
    return Facts(heads, graphs, dict(commits))


async def heads_closed(store: MongoStore, timeout: float) -> None:
    """Heads follow their commits within a second; wait until no task is open any more."""

    async def closed() -> bool:
        after: tuple[float, str] | None = None
        while page := await store.list_heads(HeadFilter(), limit=PAGE, after=after):
            if any(head.active for head in page):
                return False
            after = (page[-1].created_at, page[-1].task_id)
        return True

    await until("every head says that its task is over", closed, timeout=timeout, every=0.5)


async def read_events(site: Site, topic: str) -> set[tuple[str, int, str]]:
    """Every event that Kafka holds, as a stranger with a plain consumer reads them."""
    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(bootstrap_servers=site.kafka, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    seen: set[tuple[str, int, str]] = set()
    try:
        parts = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()] or [
            TopicPartition(topic, p) for p in range(4)
        ]
        consumer.assign(parts)
        ends = await consumer.end_offsets(parts)
        await consumer.seek_to_beginning()
        while any([await consumer.position(part) < ends[part] for part in parts]):
            for messages in (await consumer.getmany(timeout_ms=500, max_records=5000)).values():
                for message in messages:
                    event = json.loads(message.value)
                    if not event.get("streams"):  # how far they are is no commit's affair
                        seen.add((event["task_id"], event["seq"], event["commit_id"]))
    finally:
        await consumer.stop()
    return seen


@dataclass(slots=True)
class Recovery:
    """Seconds from a fault until those whom it concerned went on."""

    seconds: list[float] = field(default_factory=list)

    def at(self, share: float) -> float:
        ranked = sorted(self.seconds)
        return ranked[max(0, math.ceil(share * len(ranked)) - 1)] if ranked else math.nan

    def row(self) -> dict[str, Any]:
        if not self.seconds:
            return {"n": 0}
        return {
            "n": len(self.seconds),
            "p50": round(self.at(0.5), 2),
            "p99": round(self.at(0.99), 2),
            "max": round(max(self.seconds), 2),
        }


@dataclass
class Verdict:
    """What a run comes to. `wrong` says which tasks ended otherwise than they must, `complaints` what failed by
    itself."""

    faults: Sequence[Fault]
    ledger: Ledger
    facts: Facts
    accepted: Iterable[str]
    ttl_sec: float = 10.0
    wrong: Sequence[str] = ()
    complaints: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.ledger.look()
        self.leases = _leases(self.facts)
        self.keys = self.ledger.by_key()
        self.by_partition = _by_partition(self.facts)
        self.begun = {(run.task_id, run.node, run.attempt) for run in self.ledger.runs}

    # ------------------------------------------------------------------------------------------ right or wrong

    def violations(self) -> list[Violation]:
        """What the independent checker finds in commits, ledger and events."""
        frozen = [Frozen(fault.victim, fault.at, fault.until) for fault in self.faults if fault.frozen]
        evidence = Evidence(
            heads=self.facts.heads, graphs=self.facts.graphs, accepted=list(self.accepted), events=self.facts.events,
            frozen=frozen, ttl_sec=self.ttl_sec,
        )  # fmt: skip
        return check_history(self.facts.all_commits, [run.as_start() for run in self.ledger.runs], evidence)

    def lost(self) -> list[str]:
        """Accepted tasks of which there is no end."""
        return [
            task_id
            for task_id in self.accepted
            if task_id not in self.facts.heads or self.facts.heads[task_id].status not in ENDED_TASK
        ]

    def applied_twice(self) -> list[str]:
        """Nodes with two results in one generation: counted here by hand, beside the checker."""
        results: Counter[tuple[str, int, str]] = Counter()
        for task_id, commits in self.facts.commits.items():
            generation = 0
            for commit in commits:
                for fact in decode_facts(commit.body):
                    if isinstance(fact, f.TaskRestarted):
                        generation = fact.generation
                    elif isinstance(fact, f.AttemptSucceeded):
                        results[task_id, generation, fact.node] += 1
        return [f"{task_id} {node} in generation {g}" for (task_id, g, node), n in results.items() if n > 1]

    def held(self) -> dict[str, tuple[int, int]]:
        """Of each limit how much was in use at its worst moment, by the ledger, and how much may be."""
        stale = self.stood_still()
        heads, graphs = self.facts.heads, self.facts.graphs
        return most_held(
            (head, graph, run.node, run.began, self._over_at(run))
            for run in self.ledger.runs
            if id(run) not in stale
            and (head := heads.get(run.task_id)) is not None
            and (graph := graphs.get(head.graph_ref)) is not None
        )

    def _over_at(self, run: Run) -> float:
        """When a run was over, as far as limits go. Whoever was killed holds no more; nor does who stood still: its
        lease may have ended meanwhile."""
        hits = [max(fault.at, run.began) for fault in self.faults if fault.struck(run)]
        return min([*hits, run.ended if run.ended is not None else math.inf])

    def from_cache(self) -> int:
        """How many nodes finished without a run, with an output that was kept."""
        return sum(
            isinstance(fact, f.NodeFinished) and fact.cached
            for commit in self.facts.all_commits
            for fact in decode_facts(commit.body)
        )

    # ------------------------------------------------------------------------------------------ executions

    def kinds(self) -> Counter[str]:
        return Counter(fault.kind for fault in self.faults)

    def fewest_running(self) -> int:
        """At the fault that found the fewest attempts running on living workers; by the ledger, as it is known now."""
        return min((len(self.running_at(fault.at)) for fault in self.faults), default=0)

    def running_at(self, at: float) -> list[Run]:
        gone = {f.victim for f in self.faults if f.at < at and (f.kind == "worker_kill" or (f.frozen and at < f.until))}
        return [run for run in self.ledger.runs if run.running_at(at) and run.worker not in gone]

    def running_on(self, fault: Fault) -> list[Run]:
        """The attempts that ran on a worker when it was killed or frozen."""
        if not fault.kind.startswith("worker"):
            return []
        return [run for run in self.ledger.runs if fault.struck(run)]

    def just_done_on(self, fault: Fault) -> list[Run]:
        """Those whose handler had just returned there, and whose result never came."""
        if not fault.kind.startswith("worker"):
            return []
        return [
            run
            for run in self.ledger.runs
            if run.worker == fault.victim
            and run.running_at(fault.at, ON_ITS_WAY_SEC)
            and not fault.struck(run)
            and self._undelivered(run)
        ]

    def hit(self) -> set[int]:
        """The runs (by id) that ran at a kill or a freeze of their worker: the ledger alone says so."""
        return {id(run) for fault in self.faults for run in self.running_on(fault)}

    def on_its_way(self) -> set[int]:
        return {id(run) for fault in self.faults for run in self.just_done_on(fault)} - self.hit()

    def stood_still(self) -> set[int]:
        """Of each freeze of a worker at most one run, which began as soon as it was thawed, of a lease from before: it
        was frozen between the last look at the clock and the first line of the handler, which nothing can make one."""
        found = set()
        for fault in self.faults:
            if not (fault.kind.startswith("worker") and fault.frozen):
                continue
            thawed = (
                run
                for run in self.ledger.runs
                if run.worker == fault.victim
                and fault.until <= run.began < fault.until + AT_ONCE_SEC
                and (lease := self.leases.get((run.task_id, run.node, run.attempt))) is not None
                and lease.at < fault.at
            )
            found |= {id(run) for run in islice(thawed, 1)}
        return found

    def reruns(self) -> list[Run]:
        """Every start beyond the first of its key."""
        return [run for runs in self.keys.values() for run in runs[1:]]

    def unexcused(self) -> list[str]:
        """Starts again of nodes whose attempt before was hit by no fault."""
        hit, stood_still = self.hit() | self.on_its_way(), self.stood_still()
        said = []
        for key, runs in self.keys.items():
            for earlier, later in pairwise(runs):
                if id(earlier) not in hit and id(later) not in stood_still:
                    said.append(
                        f"{key}: attempt {earlier.attempt} on {earlier.worker} began {earlier.began:.2f}, ended "
                        f"{earlier.ended or 0:.2f} ({earlier.how or 'never'}); attempt {later.attempt} on "
                        f"{later.worker} began {later.began:.2f}"
                    )
        return said

    def _undelivered(self, run: Run) -> bool:
        lease = self.leases.get((run.task_id, run.node, run.attempt))
        return lease is None or lease.how != "succeeded"

    # ------------------------------------------------------------------------------------------ recovery

    def of_workers(self, kind: str) -> tuple[Recovery, Recovery]:
        """From the kill of a worker to the next start of what it ran; and to the next lease of what it was leased
        without beginning it, before the kill or even after. What the next worker never began, because it was itself
        killed or frozen, counts up to its lease."""
        running, leased = Recovery(), Recovery()
        for fault in self.faults:
            if fault.kind != kind:
                continue
            for run in self.running_on(fault):
                if self._undelivered(run):
                    running.seconds.append(self._again(run) - fault.at)
            for (task_id, node, attempt), lease in self.leases.items():
                during = lease.at < (fault.until or math.inf) and lease.ended > fault.at
                lost = during and lease.how not in ("succeeded", "declined")
                if lease.worker == fault.victim and lost and (task_id, node, attempt) not in self.begun:
                    again = self.leases.get((task_id, node, attempt + 1))
                    leased.seconds.append((again.at if again is not None else math.inf) - fault.at)
        return running, leased

    def _again(self, run: Run) -> float:
        """When a node ran again that was hit: or was placed again, with a worker that was hit before it began."""
        lease = self.leases.get((run.task_id, run.node, run.attempt + 1))
        if lease is not None and (run.task_id, run.node, run.attempt + 1) not in self.begun and self._struck(lease):
            return lease.at
        return min((other.began for other in self.keys[run.key] if other.attempt > run.attempt), default=math.inf)

    def _struck(self, lease: Lease) -> bool:
        return any(fault.victim == lease.worker and fault.at < lease.ended for fault in self.faults)

    def of_coordinators(self, kind: str) -> tuple[Recovery, Recovery]:
        """From the kill of a coordinator to the first commit of each of its partitions; and to the next of each task
        that it had under way, or that was created while nobody had the partition."""
        partitions, tasks = Recovery(), Recovery()
        for fault in self.faults:
            for partition, commits in self.by_partition.items() if fault.kind == kind else ():
                place = bisect_right(commits, fault.at, key=attrgetter("at"))
                if place == 0 or not commits[place - 1].by.startswith(f"{fault.victim}-"):
                    continue  # it was another's
                later = (commit.at for commit in commits[place:] if not commit.by.startswith(f"{fault.victim}-"))
                resumed = next(later, math.inf)
                partitions.seconds.append(resumed - fault.at)
                tasks.seconds += [at - fault.at for at in self._next_commits(partition, fault.at, resumed)]
        return partitions, tasks

    def _next_commits(self, partition: int, since: float, until: float) -> Iterator[float]:
        """When each task of a partition went on that was open at `since` or created before `until`."""
        for task_id, history in self.facts.commits.items():
            head = self.facts.heads[task_id]
            if head.partition == partition and head.created_at < until and history[-1].at > since:
                yield next(commit.at for commit in history if commit.at > since)

    def of_services(self, kind: str) -> tuple[Recovery, Recovery]:
        """From the moment that a service was back to the next commit of each task that was open then; and how long the
        outage was."""
        back, away = Recovery(), Recovery()
        for fault in self.faults:
            if fault.kind == kind:
                away.seconds.append(fault.until - fault.at)
                for partition in self.by_partition:
                    later = self._next_commits(partition, fault.until, fault.until)
                    back.seconds += [at - fault.until for at in later]
        return back, away

    # ------------------------------------------------------------------------------------------ all of it

    def figures(self) -> dict[str, Any]:
        """All that a run has to show, as plain values."""
        recovery: dict[str, Any] = {}
        for kind in self.kinds():
            if kind.startswith("worker"):
                running, leased = self.of_workers(kind)
                recovery[kind] = {"running": running.row(), "leased": leased.row()}
            elif kind.startswith("coordinator"):
                partitions, tasks = self.of_coordinators(kind)
                recovery[kind] = {"partitions": partitions.row(), "tasks": tasks.row()}
            else:
                back, away = self.of_services(kind)
                recovery[kind] = {"back": back.row(), "away": away.row()}
        return {
            "tasks": len(self.facts.heads),
            "runs": len(self.ledger.runs),
            "commits": len(self.facts.all_commits),
            "recovery_sec": recovery,
            "limits": {key: f"{used} of {most}" for key, (used, most) in self.held().items()},
            "from_the_cache": self.from_cache(),
        }


@dataclass(slots=True)
class Lease:
    worker: str
    generation: int
    at: float
    ended: float = math.inf
    how: str = ""


def _leases(facts: Facts) -> dict[tuple[str, str, int], Lease]:
    found: dict[tuple[str, str, int], Lease] = {}
    for task_id, commits in facts.commits.items():
        generation = 0
        for commit in commits:
            for fact in decode_facts(commit.body):
                match fact:
                    case f.TaskRestarted():
                        generation = fact.generation
                    case f.AttemptLeased():
                        found[task_id, fact.node, fact.attempt] = Lease(fact.worker, generation, commit.at)
                    case f.AttemptSucceeded() | f.AttemptFailed() | f.LeaseLost():
                        lease = found.get((task_id, fact.node, fact.attempt))
                        if lease is not None:  # nobody has a lease for a task inside a task
                            lease.ended = commit.at
                            lease.how = fact.why if isinstance(fact, f.LeaseLost) else "succeeded"
    return found


def _by_partition(facts: Facts) -> Mapping[int, list[Commit]]:
    found: defaultdict[int, list[Commit]] = defaultdict(list)
    for task_id, commits in facts.commits.items():
        found[facts.heads[task_id].partition] += commits
    for commits in found.values():
        commits.sort(key=attrgetter("at"))
    return found
