"""Runs the attempts that the worker holds, so many at a time, each token once (rules 4 and 7)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from flowkit.core.reports import AttemptReport, Declined, Failed, Released, Started, Succeeded
from flowkit.observations import ReportSent, RunBegan, RunEnded
from flowkit.service import Supervisor
from flowkit.telemetry import AttemptKilled, Telemetry
from flowkit.wire.messages import Job, Over, Stop, WorkItem
from flowkit.wire.topics import Topics
from flowkit.worker.attempt import UNWIND_SEC, Attempt, Cause, Order, Phase
from flowkit.worker.context import Kit
from flowkit.worker.outbox import Letter, letter
from flowkit.worker.performer import Performer
from flowkit.worker.registry import Registry
from flowkit.worker.tokens import Tokens
from flowkit.worker.turns import Turns

PREFETCH = 512
ACCEPT_SEC = 5.0
LOOK_SEC = 0.25
SPARE_SHARE = 8
KILLED_FOR = {Cause.TIME: "timeout", Cause.DRAIN: "drain", Cause.STOP: "revoked", Cause.LOST: "no_renewal"}


class Slots:
    """`held` are the attempts, by token, that heartbeats must name: queued, running, or with a result that is not
    acknowledged yet. `send` takes the reports."""

    def __init__(self, *, kit: Kit, registry: Registry, performer: Performer, supervisor: Supervisor, slots: int,
                 started_after_sec: float, defence_sec: float, send: Callable[[Letter], None],
                 topics: Topics | None = None) -> None:  # fmt: skip
        self.held: dict[str, Attempt] = {}
        self.draining = False
        self._worker_id = kit.worker_id
        self._clock = kit.clock
        self._telemetry: Telemetry = kit.telemetry
        self._registry = registry
        self._performer = performer
        self._supervisor = supervisor
        self._slots = slots
        self._started_after_sec = started_after_sec
        self._defence_sec = defence_sec
        self._send = send
        self._topics = topics if topics is not None else Topics()
        self._tokens = Tokens()
        self._queue = Turns()
        self._queued = 0
        self._running: dict[str, Attempt] = {}
        # Roles whose attempts take turns: who waits while one of them runs.
        self._lanes: dict[str, deque[Attempt]] = {}
        self._busy = asyncio.Event()
        self._idle: asyncio.Future[None] | None = None
        self._parked: dict[str, Attempt] = {}
        performer.on_parked = self.park
        performer.on_lost = self.lose
        self.on_spare: Callable[[], None] = lambda: None

    @property
    def spare(self) -> int:
        """How many attempts may run beyond the slots, because as many only wait for their streams: else those that wait
        for one another could take up all there are. Any thread may ask."""
        return min(len(self._parked), SPARE_SHARE * self._slots)

    @property
    def load(self) -> int:
        """How many attempts are queued or running."""
        return self._queued + len(self._running)

    @property
    def running(self) -> list[Attempt]:
        return list(self._running.values())

    # ------------------------------------------------------------------------------------------ what comes in

    def receive(self, items: Iterable[WorkItem]) -> None:
        for item in items:
            match item:
                case Job():
                    self._take(item)
                case Stop():
                    self._stop(item)
                case Over(token=token, nodes=nodes):
                    attempt = self.held.get(token)
                    if attempt is not None and attempt.flow is not None:
                        attempt.flow.over(nodes)
        self._fill()
        if self.load:
            self._busy.set()

    def acknowledged(self, attempt: Attempt) -> None:
        """The attempt's result got through: it is held no longer."""
        if self.held.get(attempt.token) is attempt:
            del self.held[attempt.token]
        if attempt.concluded_at:
            now = self._clock.wall()
            self._telemetry.told(ReportSent(attempt.job, self._topics.facts, attempt.concluded_at, now))

    def lose(self, attempt: Attempt) -> None:
        """Its lease was not renewed in time: end it, and say nothing."""
        self._order(attempt, Order(Cause.LOST, "its lease could not be renewed", 0.0))
        self._fill()

    def park(self, attempt: Attempt, parked: bool) -> None:
        """An attempt waits for its streams, or goes on."""
        if parked and attempt.phase is Phase.RUNNING:
            self._parked[attempt.token] = attempt
            self._fill()
            self.on_spare()
        else:
            self._parked.pop(attempt.token, None)

    def _take(self, job: Job) -> None:
        if not self._tokens.add(job.token):
            self._telemetry.count("duplicate_jobs")
            return
        role = self._registry.get(job.role)
        if role is None:
            self._decline(job, f"this worker does not serve {job.role!r}")
        elif self.draining:
            self._decline(job, "draining")
        elif self.load >= self._slots + PREFETCH:
            self._decline(job, "full")
        else:
            now = self._clock.mono()
            # The lease began when it was granted: before this message came, but not earlier than it may have been sent.
            base = min(now, max(job.accept_by, now) - ACCEPT_SEC)
            attempt = Attempt(job, role, base, now, self._defence_sec)
            self.held[job.token] = attempt
            self._queued += 1
            self._queue.put(attempt)

    def _stop(self, stop: Stop) -> None:
        attempt = self.held.get(stop.token)
        if attempt is None:
            self._tokens.add(stop.token)  # should its job come later, it is over already
        else:
            self._order(attempt, Order(Cause.STOP, stop.reason or "revoked", max(0.0, stop.grace_sec)))

    def _decline(self, job: Job, why: str) -> None:
        self._telemetry.count("declined")
        self._send(letter(job, Declined(job.node, job.attempt, job.token, why)))

    # ------------------------------------------------------------------------------------------ running

    def _fill(self) -> None:
        """Start what is queued, task by task in turn, while there are slots."""
        most = self._slots + self.spare
        while self._queue and len(self._running) < most:
            attempt = self._queue.take()
            if attempt.phase is not Phase.QUEUED:
                continue
            if self._clock.mono() > attempt.job.accept_by:
                self._drop(attempt, "too late")
            elif not attempt.role.in_turn:
                self._start(attempt)
            elif attempt.role.name in self._lanes:
                self._lanes[attempt.role.name].append(attempt)
            else:
                self._lanes[attempt.role.name] = deque()
                self._start(attempt)

    def _start(self, attempt: Attempt) -> None:
        self._queued -= 1
        attempt.phase = Phase.RUNNING
        attempt.started_at = self._clock.mono()
        self._running[attempt.token] = attempt
        attempt.task = self._supervisor.spawn(self._run(attempt), "attempt")

    async def _run(self, attempt: Attempt) -> None:
        if attempt.phase is Phase.DONE:
            return
        attempt.begun = True
        if self._telemetry.observers:
            self._tell_begun(attempt)
        report: AttemptReport | None = None
        size = 0
        try:
            report, size = await self._performer.perform(attempt, self._arm)
        except Exception as error:  # a fault of FlowKit's own: it must count, or it would be tried for ever
            job = attempt.job
            info = {"code": "internal_error", "message": f"{type(error).__name__}: {error}"[:1000]}
            report = Failed(job.node, job.attempt, job.token, info)
            raise
        finally:
            self._conclude(attempt, report, size)

    def _arm(self, attempt: Attempt) -> None:
        """The handler begins: its time runs."""
        now = self._clock.mono()
        job = attempt.job
        limit = job.run_sec if job.run_sec is not None else attempt.role.said.timeout_sec
        if limit is None and job.heartbeat_sec is None and job.deadline_sec is None:
            return
        ends: list[float] = []
        if limit is not None:
            ends.append(now + limit)
            attempt.set_limit("run", limit, partial(self._out_of_time, attempt, f"it ran longer than {limit:g} s"))
        if job.deadline_sec is not None:
            ends.append(attempt.received_at + job.deadline_sec)
            late = partial(self._out_of_time, attempt, "its deadline has passed", "deadline")
            attempt.set_limit("deadline", ends[-1] - now, late)
        attempt.stop_by = min(ends, default=None)
        if job.heartbeat_sec is not None:
            attempt.progress_at = now
            attempt.set_limit("progress", job.heartbeat_sec, partial(self._check_progress, attempt, job.heartbeat_sec))

    def _check_progress(self, attempt: Attempt, every_sec: float) -> None:
        left = attempt.progress_at + every_sec - self._clock.mono()
        if left > 0:
            attempt.set_limit("progress", left, partial(self._check_progress, attempt, every_sec))
        else:
            why = f"it reported no progress for {every_sec:g} s"
            self._order(attempt, Order(Cause.TIME, why, UNWIND_SEC, "heartbeat_timeout"))

    def _out_of_time(self, attempt: Attempt, why: str, code: str = "timeout") -> None:
        self._order(attempt, Order(Cause.TIME, why, UNWIND_SEC, code))

    # ------------------------------------------------------------------------------------------ ending

    def _order(self, attempt: Attempt, order: Order) -> None:
        """Tell an attempt to end. It is over when its task is, or when its time to do so is."""
        if attempt.phase is Phase.DONE or (attempt.order is not None and attempt.order.cause >= order.cause):
            return
        attempt.order = order
        if not attempt.begun:
            self._drop(attempt, order.why, silently=order.cause is Cause.LOST)
            return

        self._telemetry.emit(AttemptKilled(self._worker_id, attempt.token, KILLED_FOR[order.cause]))
        patience = _patience(attempt, order)
        attempt.stop_by = self._clock.mono() + patience
        attempt.clear_limits()
        if attempt.context is not None:
            attempt.context.cancel_flag.set()
        if attempt.groups is not None:
            attempt.groups.terminate()
        if not attempt.threaded and attempt.task is not None:
            attempt.task.cancel()
        if attempt.abandon is not None:
            attempt.abandon.cancel()
        attempt.abandon = asyncio.get_running_loop().call_later(patience, self._give_up, attempt)

    def _give_up(self, attempt: Attempt) -> None:
        """Nobody waits for it any more, though its code may still run."""
        attempt.kill_processes()
        if attempt.phase is Phase.DONE:
            return
        self._telemetry.count("attempts_abandoned")
        attempt.run_sec = self._clock.mono() - attempt.started_at
        self._conclude(attempt, None)
        if attempt.task is not None:
            attempt.task.cancel()

    def _drop(self, attempt: Attempt, why: str, *, silently: bool = False) -> None:
        """It never began, and never will."""
        if attempt.phase is Phase.QUEUED:
            self._queued -= 1
        attempt.phase = Phase.DONE
        del self.held[attempt.token]
        if not silently:
            self._decline(attempt.job, why)
        self._leave(attempt)

    def _conclude(self, attempt: Attempt, report: AttemptReport | None, size: int = 0) -> None:
        """The attempt is over: say what came of it, and give its slot to the next."""
        if attempt.phase is Phase.DONE:
            return
        attempt.phase = Phase.DONE
        attempt.clear_limits()
        if attempt.lines is not None:
            attempt.lines.close()
        if attempt.abandon is not None:
            attempt.abandon.cancel()
        job = attempt.job
        if attempt.order is not None or attempt.lost:
            report = None if attempt.lost else attempt.ordered_report()
        elif report is None:
            report = Released(job.node, job.attempt, job.token, "the worker stopped")
        if isinstance(report, Failed) and attempt.role.said.retry_policy is not None:
            report = replace(report, policy=dict(attempt.role.said.retry_policy))
        if self._telemetry.observers and attempt.begun:
            self._tell_ended(attempt, report)
        if report is None:
            del self.held[attempt.token]
        else:
            self._send(letter(job, report, output_size=size, attempt=attempt))
        self._leave(attempt)
        self._fill()

    def _tell_begun(self, attempt: Attempt) -> None:
        now = self._clock.wall()
        received_at = now - (self._clock.mono() - attempt.received_at)
        self._telemetry.told(RunBegan(attempt.job, self._topics.work, self._worker_id, received_at, now))

    def _tell_ended(self, attempt: Attempt, report: AttemptReport | None) -> None:
        now = self._clock.wall()
        began_at = now - (self._clock.mono() - attempt.started_at)
        ended = RunEnded(attempt.job, self._worker_id, *_ending(report), began_at, now, attempt.run_sec)
        self._telemetry.told(ended)
        if report is not None:
            attempt.concluded_at = now

    def _leave(self, attempt: Attempt) -> None:
        if self._running.pop(attempt.token, None) is None:
            return
        if self._parked:
            self._parked.pop(attempt.token, None)
        if attempt.role.in_turn:
            self._queue.put_back(self._lanes.pop(attempt.role.name, ()))
        if not self._running and self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    # ------------------------------------------------------------------------------------------ looking after

    async def step(self) -> None:
        """Announce what runs for long, and decline what waited too long to begin."""
        if not self.load:
            self._busy.clear()
            await self._busy.wait()
        now = self._clock.mono()
        for attempt in self._running.values():
            if attempt.begun and not attempt.announced and now - attempt.started_at >= self._started_after_sec:
                attempt.announced = True
                job = attempt.job
                self._send(letter(job, Started(job.node, job.attempt, job.token), attempt=attempt))
        late = [a for a in self.held.values() if a.phase is Phase.QUEUED and now > a.job.accept_by]
        for attempt in late:
            self._drop(attempt, "too late")
        if late:
            self._queue.keep(_waits)
            for line in self._lanes.values():
                kept = [attempt for attempt in line if _waits(attempt)]
                line.clear()
                line.extend(kept)

    # ------------------------------------------------------------------------------------------ draining

    def close(self, why: str) -> None:
        """Take nothing any more, and hand back what has not begun."""
        self.draining = True
        for attempt in list(self.held.values()):
            if attempt.phase is Phase.QUEUED:
                self._drop(attempt, why)
        self._queue.clear()

    async def finished(self, timeout: float) -> bool:
        """Wait until nothing runs, `timeout` seconds at most; False if something still does."""
        if self._running and timeout > 0:
            if self._idle is None or self._idle.done():  # several may wait: a stop overtakes a drain
                self._idle = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._idle}, timeout=timeout)
        return not self._running

    def stop_waiting(self) -> None:
        """Nobody waits any more until nothing runs: the worker has left."""
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def end_all(self, why: str, grace_sec: float) -> None:
        """Tell everything that runs to end."""
        for attempt in self.running:
            self._order(attempt, Order(Cause.DRAIN, why, grace_sec))


def _ending(report: AttemptReport | None) -> tuple[str, str]:
    """The outcome and the code of what is said of an attempt."""
    match report:
        case Succeeded():
            return "succeeded", ""
        case Failed(error=error):
            return "failed", str(error.get("code", ""))
        case Released():
            return "released", ""
    return "lost", "no_renewal"


def _waits(attempt: Attempt) -> bool:
    return attempt.phase is Phase.QUEUED


def _patience(attempt: Attempt, order: Order) -> float:
    """How long to wait for an attempt that was told to end."""
    if attempt.threaded:  # it notices only if it looks, and one that ran out of time has had its time
        return 0.0 if order.cause in (Cause.LOST, Cause.TIME) else order.grace_sec
    return max(order.grace_sec, 1.0)
