"""A task on a hostile bus: whatever is repeated, late, forged or lost, the state is the fold of the facts, says what
graph.md says, and ends once the hostility does."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from flowkit.core import facts as f
from flowkit.core import reports as r
from flowkit.core.decide import decide
from flowkit.core.desk import Decision
from flowkit.core.effects import Dispatch, Revoke
from flowkit.core.evolve import evolve
from flowkit.core.model import ENDED_TASK, Task
from flowkit.core.payload import Payload
from tests.core.builders import START, differences, new_task, replayed, through_snapshot
from tests.core.oracle import BEGUN, ENDED, SKIP, WAIT, Oracle
from tests.core.oracle import START as STARTS
from tests.core.random_graphs import graphs
from tests.thorough import NIGHTLY, at_night

picks = st.integers(0, 999)
OUTPUTS = st.sampled_from([None, 1, {"v": 2}, {"v": None}, "text", [1]])
CODES = st.sampled_from(["Oops", "Oops", "Rare"])
usual = rule(
    pick=picks, kind=st.sampled_from("sssf"), output=OUTPUTS, chosen=st.none() | picks, permanent=st.booleans()
)


class Hostile(RuleBasedStateMachine):
    """The coordinator is `decide` and what it recorded; `bus` holds every report ever sent, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.recorded: list[tuple[float, f.Fact]] = []
        self.last_count = 0
        self.bus: list[r.AttemptReport] = []
        self.dispatched: dict[str, Dispatch] = {}
        self.tokens = 0
        self.before: dict[str, Any] = {}
        self.bygone: set[str] = set()

    @initialize(raw=graphs(), wanted=st.none() | picks)
    def begin(self, raw: dict[str, Any], wanted: int | None) -> None:
        note(repr(raw))
        self.task = new_task(raw, params={"p": 1})
        names = list(self.task.runs)
        self.targets = () if wanted is None else (names[wanted % len(names)],)
        self.oracle = Oracle(self.task)
        self.hear(r.Accepted(self.targets))

    # ------------------------------------------------------------------------------------------ what happens

    @rule(pick=picks, many=st.booleans())
    def place(self, pick: int, many: bool) -> None:
        """The dispatcher offers workers: to ready nodes, and now and then to any node."""
        ready = self.ready_nodes()
        names = ready if many else [self.pick(ready or list(self.task.runs), pick)]
        for name in names:
            self.hear(self.placement(name))

    @precondition(lambda self: self.dispatched)
    @rule(pick=picks, kind=st.sampled_from("ssssffdrx"), output=OUTPUTS, code=CODES, chosen=st.none() | picks,
          retry_after=st.none() | st.sampled_from([0.0, 5.0, -1.0]), permanent=st.booleans())  # fmt: skip
    def work(self, pick: int, kind: str, output: Any, code: str, chosen: int | None, retry_after: float | None,
             permanent: bool) -> None:  # fmt: skip
        """A worker says something about an attempt it was once given; it arrives when it arrives."""
        job = self.pick(list(self.dispatched.values()), pick)
        self.bus.append(self.report(job, kind, output, code, chosen, retry_after, permanent))

    def go_on(self, pick: int, kind: str, output: Any, chosen: int | None, permanent: bool) -> None:
        """What usually happens: what is ready is placed, and a current attempt ends."""
        for name in self.ready_nodes() if self.task.status == "running" else []:
            self.hear(self.placement(name))
        current = [job for job in self.dispatched.values() if self.holds(job.node.node_id, job.token)]
        if current:
            self.bus.append(self.report(self.pick(current, pick), kind, output, "Oops", chosen, None, permanent))
            self.deliver_one(self.bus[-1])

    # Several times, for it must be likelier than all that may go wrong.
    go_on_1 = usual(go_on)
    go_on_2 = usual(go_on)
    go_on_3 = usual(go_on)
    go_on_4 = usual(go_on)
    go_on_5 = usual(go_on)

    @precondition(lambda self: self.bus)
    @rule(pick=picks)
    def deliver(self, pick: int) -> None:
        """Any report, in any order, any number of times."""
        self.deliver_one(self.pick(self.bus, pick))

    @precondition(lambda self: self.bus)
    @rule(several=st.lists(picks, min_size=2, max_size=4))
    def deliver_together(self, several: list[int]) -> None:
        self.hear(*[self.pick(self.bus, pick) for pick in several])

    @rule(
        pick=picks,
        kind=st.sampled_from("sfdrx"),
        shift=st.integers(-1, 2),
        token=st.sampled_from(["", "forged", "current"]),
    )
    def forge(self, pick: int, kind: str, shift: int, token: str) -> None:
        """A report with an attempt or a token that nobody was given."""
        name = self.pick(list(self.task.runs), pick)
        run = self.task.runs[name]
        if token == "current":
            token = run.lease.token if run.lease is not None and shift else "forged"
        self.deliver_one(self.made_up(name, run.attempt + shift, token, kind))

    @rule(pick=picks, unaccepted=st.booleans())
    def expire(self, pick: int, unaccepted: bool) -> None:
        """A worker falls silent; now and then a lease is judged that is over."""
        leased = list(self.task.leased) or list(self.task.runs)
        name = self.pick(leased, pick)
        run = self.task.runs[name]
        token = run.lease.token if run.lease is not None else "over"
        self.deliver_one(r.Expired(name, run.attempt, token, unaccepted))

    @rule(seconds=st.sampled_from([0.0, 0.5, 3.0, 31.0, -2.0]))
    def wait(self, seconds: float) -> None:
        """Time passes; where another coordinator takes over, its clock may be behind."""
        self.now += seconds
        self.hear(r.TimeReached())

    @rule(
        kind=st.sampled_from(["node", "node", "pause", "resume", "resume", "cancel"]), pick=picks, really=st.booleans()
    )
    def ask(self, kind: str, pick: int, really: bool) -> None:
        name = self.pick(list(self.task.runs), pick)
        match kind:
            case "node" if really:
                expected = str(self.task.runs[name].state) not in ENDED
                assert self.request("cancel", node_id=name) == expected
            case "pause" | "resume":
                expected = {"pause": "running", "resume": "paused"}[kind] == self.task.status
                assert self.request(kind) == expected
            case "cancel" if really and pick % 3 == 0:
                ended = self.task.ended
                assert self.request("cancel", reason="why not") != ended

    @precondition(lambda self: self.task.ended)
    @rule(pick=picks, how=st.sampled_from(["whole", "failed_only", "from_node"]))
    def restart(self, pick: int, how: str) -> None:
        left_out = {name for name, run in self.task.runs.items() if run.reason == "not_needed"}
        name = self.pick(list(self.task.runs), pick)
        again, args = set(self.task.runs) - left_out, {}
        if how == "failed_only":
            args = {"failed_only": True}
            again = self.following([n for n, run in self.task.runs.items() if self.unfinished(n)]) - left_out
        elif how == "from_node":
            args = {"from_node": name}
            can = self.oracle.verdict(name) == STARTS and name not in left_out
            again = self.following([name]) - left_out if can else set()
        others = {n: self.end_of(n) for n in self.task.runs if n not in again}
        # Before the request, which is checked as it is heard: these are no reason to fail fast in the new generation.
        self.bygone = {n for n in others if self.oracle.state(n) == "failed"}

        assert self.request("restart", **args) == bool(again)

        assert others == {n: self.end_of(n) for n in others}
        if again:
            assert self.task.ended or all(self.task.runs[n].attempt >= 0 for n in again)

    @rule(lost=st.booleans(), kept=st.integers(0, 3), early=st.none() | picks)
    def crash(self, lost: bool, kept: int, early: int | None) -> None:
        """The coordinator dies: with the last decision in the store, or with only some of its commits. The next one
        folds them all, or those after a snapshot of some earlier state."""
        if lost and self.last_count:
            cut = min(kept, self.last_count)
            self.recorded = self.recorded[: len(self.recorded) - self.last_count + cut]
            known = {fact.token for _, fact in self.recorded if isinstance(fact, f.AttemptLeased)}
            self.dispatched = {token: job for token, job in self.dispatched.items() if token in known}
            self.bus = [report for report in self.bus if report.token in known]
        self.before = {}
        whole = replayed(self.task, self.recorded, wired=True)
        if early is not None:
            self.task = replayed(self.task, self.recorded[: early % (len(self.recorded) + 1)], wired=True)
            self.task = through_snapshot(self.task)
            for at, fact in self.recorded[early % (len(self.recorded) + 1) :]:
                evolve(self.task, fact, at)
            assert differences(whole, self.task) == []
        else:
            self.task = whole
        self.oracle = Oracle(self.task)
        self.hear(r.TimeReached() if self.task.created else r.Accepted(self.targets))

    # ------------------------------------------------------------------------------------------ what must hold

    def check(self) -> None:
        """All that must hold after every decision."""
        self.the_fold_is_the_state()
        self.counters_say_what_the_graph_says()
        self.nodes_stand_where_the_graph_says()
        self.the_lists_are_the_states()
        self.what_has_ended_stays_so()
        self.fail_fast_does_not_wait()
        self.attempts_are_legal()

    def the_fold_is_the_state(self) -> None:
        """I1, for the facts as they are and as they were written down, and for what a snapshot keeps of their fold."""
        plain, wired = [replayed(self.task, self.recorded, wired=wired) for wired in (False, True)]
        for replica in (plain, through_snapshot(wired)):
            assert decide(replica, [], self.now) == Decision()
            assert differences(self.task, replica) == []

    def counters_say_what_the_graph_says(self) -> None:
        if self.task.status in ("running", "paused"):
            for name, run in self.task.runs.items():
                if str(run.state) not in ENDED:
                    counters = {slot: getattr(run, slot) for slot in ("undecided", "taken", "broken", "unread")}
                    assert counters == self.oracle.counters(name), name

    def nodes_stand_where_the_graph_says(self) -> None:
        for name, run in self.task.runs.items():
            verdict, state = self.oracle.verdict(name), str(run.state)
            if state == "pending":
                assert verdict == WAIT, name
            elif state in BEGUN:
                assert verdict == STARTS, name  # I7: what it depends on is done
            elif state == "skipped" and run.reason != "not_needed" and self.task.graph.nodes[name].fan_in.need is None:
                assert verdict == SKIP, name

    def the_lists_are_the_states(self) -> None:
        task = self.task
        states = {name: str(run.state) for name, run in task.runs.items()}
        assert task.open == sum(state not in ENDED for state in states.values())
        assert set(task.failed) == {name for name, state in states.items() if state == "failed"}
        assert set(task.leased) == {name for name, run in task.runs.items() if run.lease is not None}
        assert set(task.leased) == {name for name, state in states.items() if state == "running"}
        assert sorted(self.ready_nodes()) == sorted(name for name, state in states.items() if state == "ready")
        for role, names in task.ready.items():
            assert names
            assert all(task.graph.nodes[name].type == role for name in names)
        tokens = [run.lease.token for run in task.runs.values() if run.lease is not None]
        assert len(tokens) == len(set(tokens))  # I6
        if task.ended:
            assert task.open == 0
            assert task.next_wake() is None
            assert not task.paused
        elif task.created:
            assert task.open > 0
        assert task.paused == (task.status == "paused")

    def what_has_ended_stays_so(self) -> None:
        """I3: in the same generation, nothing that ended changes."""
        key = {name: self.end_of(name) for name, run in self.task.runs.items() if str(run.state) in ENDED}
        if self.before.get("generation") == self.task.generation:
            assert self.before["nodes"].items() <= key.items()
            if self.before["status"] in ENDED_TASK:
                assert self.task.status == self.before["status"]
        self.before = {"generation": self.task.generation, "nodes": key, "status": self.task.status}

    def fail_fast_does_not_wait(self) -> None:
        if self.task.graph.fail_fast and self.task.status in ("running", "paused"):
            # A failure of an earlier generation that was not asked to run again does not cancel what was.
            assert set(self.oracle.hopeless()) <= self.bygone

    def attempts_are_legal(self) -> None:
        """One lease at a time, numbers that never repeat, ends that fit the lease."""
        leases: dict[str, f.AttemptLeased] = {}
        attempts: dict[str, int] = {}
        for _, fact in self.recorded:
            match fact:
                case f.AttemptLeased(node=name):
                    assert name not in leases
                    assert fact.attempt == attempts.get(name, 0) + 1
                    leases[name], attempts[name] = fact, fact.attempt
                case f.AttemptStarted(node=name):
                    assert leases[name].token == fact.token
                case f.AttemptSucceeded(node=name) | f.AttemptFailed(node=name) | f.LeaseLost(node=name):
                    lease = leases.pop(name)
                    assert (lease.token, lease.attempt) == (fact.token, fact.attempt)
                case f.NodeFailed(node=name) | f.NodeCancelled(node=name):
                    leases.pop(name, None)
                case f.NodeSkipped(node=name):
                    assert name not in leases
                case f.TaskEnded() | f.TaskRestarted():
                    assert not leases

    def teardown(self) -> None:
        """Faults stop, and every report arrives: the task ends (I5), as the oracle says (see `hear`)."""
        if not hasattr(self, "task"):
            return
        for report in list(self.bus):
            self.hear(report)
        for _ in range(100):
            if self.task.ended:
                return
            self.one_good_round()
        pytest.fail(f"the task does not end: { {n: str(run.state) for n, run in self.task.runs.items()} }")

    def one_good_round(self) -> None:
        if self.task.status == "paused":
            assert self.request("resume")
        for name in self.ready_nodes():
            self.hear(self.placement(name))
        leased = [(name, run.lease.token) for name, run in self.task.runs.items() if run.lease is not None]
        for name, token in leased:
            if token in self.dispatched:
                dice = zlib.crc32(f"{token}/{len(self.recorded)}".encode())
                kind, chosen = "sssf"[dice % 4], (None, None, 0, 5)[dice // 4 % 4]
                self.hear(self.report(self.dispatched[token], kind, {"v": 1}, "Oops", chosen, None, dice & 16 > 0))
            else:
                self.hear(r.Expired(name, self.task.runs[name].attempt, token, unaccepted=True))
        wake = self.task.next_wake()
        if not leased and not self.ready_nodes() and not self.task.ended:
            assert wake is not None, "nothing runs and nothing wakes the task"
            self.now = max(self.now, wake)
            self.hear(r.TimeReached())

    # ------------------------------------------------------------------------------------------ how

    def hear(self, *reports: r.Report) -> Decision:
        first = len(self.recorded)
        decision = decide(self.task, reports, self.now)
        self.recorded += [(self.now, fact) for fact in decision.recorded]
        self.last_count = len(self.recorded) - first
        for effect in decision.effects:
            match effect:
                case Dispatch():
                    assert effect.token not in self.dispatched
                    assert effect.inputs == self.oracle.inputs(effect.node.node_id)
                    self.dispatched[effect.token] = effect
                case Revoke():
                    assert effect.token in {
                        fact.token for _, fact in self.recorded if isinstance(fact, f.AttemptLeased)
                    }
        for fact in decision.recorded:
            match fact:
                case f.NodeFailed(node=name, error={"code": "bad_input"}):
                    with pytest.raises(LookupError):
                        self.oracle.inputs(name)
                case f.NodeSkipped(node=name):
                    # Later a quorum may look as if it could have run: a source that it reads was undecided, and ends.
                    assert self.oracle.verdict(name) == SKIP, name
                    by_failure = self.oracle.skip_is_by_failure(name)
                    decided_early = self.task.graph.nodes[name].fan_in.need is not None and not fact.by_failure
                    assert fact.by_failure == by_failure or decided_early, name
                case f.TaskEnded():
                    assert fact is decision.recorded[-1]
                    assert fact.status == self.oracle.status(self.cancelled_as())
        self.check()
        return decision

    def deliver_one(self, report: r.AttemptReport) -> None:
        run = self.task.runs[report.node]
        stale = report.attempt <= run.attempt and not self.holds(report.node, report.token)
        ahead = report.attempt > run.attempt
        copy = replayed(self.task, self.recorded)
        decide(copy, [], self.now)

        decision = self.hear(report)

        if stale or ahead:  # I2
            assert decision == Decision(stale=int(stale), ahead=[report] if ahead else [])
            assert differences(copy, self.task) == []

    def request(self, kind: str, **args: Any) -> bool:
        """Whether it was accepted; asked twice, as a sweeper may."""
        n = self.task.applied + 1
        asked = r.Requested(n, f"r{n}", kind, args)
        answers = [fact for fact in self.hear(asked, asked).recorded if isinstance(fact, f.RequestApplied)]
        assert len(answers) == 1
        assert answers[0].accepted == (n not in self.task.refusals)
        assert answers[0].accepted != bool(answers[0].why)
        return answers[0].accepted

    def report(self, job: Dispatch, kind: str, output: Any, code: str, chosen: int | None, retry_after: float | None,
               permanent: bool) -> r.AttemptReport:  # fmt: skip
        name = job.node.node_id
        match kind:
            case "s":
                targets = [edge.target for edge in self.task.graph.outgoing[name]]
                some = None if chosen is None else tuple(t for place, t in enumerate(targets) if chosen >> place & 1)
                return r.Succeeded(name, job.attempt, job.token, Payload(output), some, 0.5)
            case "f":
                error = {"code": code, "message": "no"}
                return r.Failed(name, job.attempt, job.token, error, permanent, retry_after, 0.5)
        return self.made_up(name, job.attempt, job.token, kind)

    def made_up(self, name: str, attempt: int, token: str, kind: str) -> r.AttemptReport:
        match kind:
            case "s":
                return r.Succeeded(name, attempt, token, Payload("forged"))
            case "f":
                return r.Failed(name, attempt, token, {"code": "forged", "message": ""}, permanent=True)
            case "d":
                return r.Declined(name, attempt, token, "full")
            case "r":
                return r.Released(name, attempt, token, "drain")
        return r.Started(name, attempt, token)

    def placement(self, name: str) -> r.Placed:
        self.tokens += 1
        return r.Placed(name, f"k{self.tokens}", "w", "i", 10.0)

    def holds(self, name: str, token: str) -> bool:
        lease = self.task.runs[name].lease
        return lease is not None and lease.token == token

    def ready_nodes(self) -> list[str]:
        return [name for names in self.task.ready.values() for name in names]

    def end_of(self, name: str) -> tuple[Any, ...]:
        run = self.task.runs[name]
        return run.state, run.output, run.error, run.next, run.ended_at, run.attempt, run.reason, run.by_failure

    def unfinished(self, name: str) -> bool:
        run = self.task.runs[name]
        return (str(run.state) in ("failed", "cancelled") and not run.loser) or run.by_failure

    def following(self, names: list[str]) -> set[str]:
        """These and all that any edge or reference leads to from them."""
        found, graph = set(names), self.task.graph
        while True:
            more = {name for name in graph.nodes if {e.source for e in graph.incoming[name]} & found}
            more |= {name for name in graph.nodes if set(graph.reads[name]) & found}
            if more <= found:
                return found
            found |= more

    def cancelled_as(self) -> str:
        """As what the current generation is to end, if it is being cancelled."""
        for _, fact in reversed(self.recorded):
            if isinstance(fact, f.TaskRestarted):
                return ""
            if isinstance(fact, f.TaskCancelling):
                return fact.outcome
        return ""

    @staticmethod
    def pick(items: list[Any], pick: int) -> Any:
        return items[pick % len(items)]


HEALTH = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def examples(count: int) -> settings:
    return settings(max_examples=count, stateful_step_count=40, deadline=None, suppress_health_check=HEALTH)


class TestHostile(Hostile.TestCase):
    settings = examples(at_night(300))


@pytest.mark.slow
class TestHostileAllNight(Hostile.TestCase):
    settings = examples(20_000 if NIGHTLY else 3000)


def test_the_oracle_shares_nothing_with_the_state_it_judges() -> None:
    task: Task = new_task({"nodes": [{"node_id": "a", "type": "p"}]})
    before = replayed(task, [])

    Oracle(task).verdict("a")

    assert differences(task, before) == []
