"""What the real code does without each of its guards: functions that take the original and give its stand-in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from flowkit.coordinator.cell import settle
from flowkit.ports import Head, HeadUpdate, Outcome, Request


def unchanged(original: Any) -> Any:
    return original


def zero(original: Any) -> Any:
    return 0


def always(answer: Any) -> Any:
    """Whatever it was asked, this is the answer."""
    return lambda original: lambda *args, **more: answer


def surely(original: Any) -> Any:
    """The same for a coroutine: yes, it is done."""

    async def done(*args: Any, **more: Any) -> bool:
        return True

    return done


# ---------------------------------------------------------------------------------------------- deciding, committing


def pump_in_spite_of_a_flight(original: Any) -> Any:
    def pump(engine: Any, cell: Any) -> None:
        flight, cell.flight = cell.flight, None
        original(engine, cell)
        if cell.flight is None and not cell.dead:
            cell.flight = flight
        elif flight is not None:
            engine._unused(flight.reserved)  # nobody looks at it any more

    return pump


def unknown_is_yes(original: Any) -> Any:
    def outcome(engine: Any, flight: Any, said: Outcome) -> None:
        original(engine, flight, Outcome.OK if said is Outcome.UNKNOWN else said)

    return outcome


def duplicate_is_yes(original: Any) -> Any:
    def outcome(engine: Any, flight: Any, said: Outcome) -> None:
        original(engine, flight, Outcome.OK if said is Outcome.DUPLICATE else said)

    return outcome


def any_end(original: Any) -> Any:
    def child_ended(attempts: Any, report: Any) -> None:
        run = attempts.task.runs.get(report.node)
        original(attempts, replace(report, attempt=run.attempt if run is not None else 0))

    return child_ended


def forget_reports(original: Any) -> Any:
    def reload(engine: Any, cell: Any, why: str, after_sec: float) -> Any:
        if cell.flight is not None:
            settle(cell.flight.items)
            cell.flight.items.clear()
        return original(engine, cell, why, after_sec)

    return reload


def dispatch_on_load(original: Any) -> Any:
    def loaded(engine: Any, cell: Any, past: Any) -> None:
        from flowkit.core.effects import Dispatch
        from flowkit.core.inputs import node_inputs

        original(engine, cell, past)
        if cell.dead or cell.task is None:
            return
        for name in cell.task.leased:
            run, node = cell.task.runs[name], cell.task.node(name)
            lease, inputs = run.lease, node_inputs(cell.task, name)
            again = Dispatch(
                name, node, run.attempt, lease.token, lease.worker, lease.incarnation, lease.accept_by, inputs
            )
            engine.carrier.carry_out(cell, _due_anew(engine, again))

    return loaded


def due_when_sent(original: Any) -> Any:
    def acknowledged(engine: Any, flight: Any) -> None:
        flight.effects = [_due_anew(engine, effect) for effect in flight.effects]
        original(engine, flight)

    return acknowledged


def _due_anew(engine: Any, effect: Any) -> Any:
    """A dispatch that may be accepted from now on, instead of from its lease on."""
    from flowkit.core.effects import Dispatch

    fleet = engine.dispatcher._fleet
    if not isinstance(effect, Dispatch) or (view := fleet.workers.get(effect.worker)) is None:
        return effect
    return replace(effect, accept_by=fleet.mono_of(view) + 5.0)


def publish_before(original: Any) -> Any:
    def fly(engine: Any, cell: Any, opened: Any, placed: Any) -> None:
        original(engine, cell, opened, placed)
        for effect in opened.flight.effects:
            engine.carrier.carry_out(cell, effect)

    return fly


def no_republish(original: Any) -> Any:
    def loaded(engine: Any, cell: Any, past: Any) -> None:
        if past is not None:
            past = replace(past, head=replace(past.head, published_seq=past.seq))
        original(engine, cell, past)

    return loaded


def any_token(original: Any) -> Any:
    def attempt(decider: Any, report: Any) -> None:
        run = decider.task.runs.get(report.node)
        if run is not None and run.lease is not None and report.attempt <= run.attempt:
            report = replace(report, attempt=run.attempt, token=run.lease.token)
        original(decider, report)

    return attempt


def any_generation(original: Any) -> Any:
    def timer_live(task: Any, timer: tuple[float, int, str, str]) -> Any:
        at, _, kind, node = timer
        return original(task, (at, task.generation, kind, node))

    return timer_live


class _Kept(list[Any]):
    def clear(self) -> None:
        """It keeps what it has."""


def timers_kept(original: Any) -> Any:
    def init(task: Any, **options: Any) -> None:
        original(task, **options)
        task.timers = _Kept(task.timers)

    return init


def attempts_anew(original: Any) -> Any:
    def reset(run: Any, undecided: int, unread: int) -> None:
        original(run, undecided, unread)
        run.attempt = 0

    return reset


# ---------------------------------------------------------------------------------------------- leases


def no_ttl(original: Any) -> Any:
    def sync(leases: Any, cell: Any, node: str, run: Any, *, found: bool = False) -> Any:
        freed = original(leases, cell, node, run, found=found)
        if found and run.lease is not None and (watch := leases.watches.get(run.lease.token)) is not None:
            watch.heard -= 1e6
        return freed

    return sync


def deaf_in_flight(original: Any) -> Any:
    def heard(leases: Any, token: str) -> Any:
        watch = leases.watches.get(token)
        return True if watch is not None and watch.cell.flight is not None else original(leases, token)

    return heard


def missed_at_once(original: Any) -> Any:
    def all_named(leases: Any, worker: str, incarnation: str, mono: float) -> None:
        original(leases, worker, incarnation, mono + 3600.0)

    return all_named


def expiry_first(original: Any) -> Any:
    def feed(engine: Any, cell: Any, item: Any) -> None:
        from flowkit.core.reports import Expired

        original(engine, cell, item)
        if isinstance(item.report, Expired) and cell.queue and cell.queue[-1] is item:
            cell.queue.appendleft(cell.queue.pop())

    return feed


def any_beacon(original: Any) -> Any:
    """One that came back lately is enough, whenever it was sent."""

    async def road_works(expiry: Any, worker: str) -> bool:
        now = expiry._engine.clock.mono()
        back = getattr(expiry, "back_at", None)
        if back is not None and now - back < 3.0:
            return True
        if not await original(expiry, worker):
            return False
        expiry.back_at = expiry._engine.clock.mono()
        return True

    return road_works


def first_count_is_old(original: Any) -> Any:
    async def note_renewals(expiry: Any, worker: str) -> None:
        renewal = await expiry._store.read_renewal(worker)
        for token in renewal.tokens if renewal is not None else ():
            if token in expiry._leases.watches and token not in expiry._renewals:
                expiry._renewals[token] = (renewal.incarnation, renewal.count)
        await original(expiry, worker)

    return note_renewals


def revoke_any(original: Any) -> Any:
    def unwatched(ears: Any, message: Any, held: Any) -> None:
        from flowkit.wire.messages import Stop

        cell = ears._engine.get(held.task_id, held.partition)
        if cell.task is not None and cell.live and cell.flight is None:
            stop = Stop(held.token, held.task_id, held.node, held.attempt, "the lease is over", 0.0)
            ears._carrier.revoke_unknown(message.worker, message.incarnation, stop)

    return unwatched


# ---------------------------------------------------------------------------------------------- what is asked for


def any_request_is_mine(original: Any) -> Any:
    async def insert(asking: Any, request: Request) -> Request | None:
        there = await asking._store.read_requests(request.task_id)
        request = replace(request, n=max((old.n for old in there), default=0) + 1)
        outcome = await asking._store.insert_request(request)
        return None if outcome is Outcome.UNKNOWN else request

    return insert


# ---------------------------------------------------------------------------------------------- workers


def accept_late(original: Any) -> Any:
    def take(slots: Any, job: Any) -> None:
        soon = slots._clock.mono() + 5.0
        original(slots, msgspec.structs.replace(job, accept_by=max(job.accept_by, soon)))

    return take


def read_for_all(original: Any) -> Any:
    def read(intake: Any, record: Any) -> None:
        from flowkit.wire.messages import decode_work

        batch = decode_work(record.value)
        if batch.worker == intake._worker_id:
            intake._deliver(batch.items)

    return read


def only_running(original: Any) -> Any:
    def parts(heart: Any, attempts: Sequence[Any], message: Any) -> Any:
        from flowkit.worker.attempt import Phase

        return original(heart, [attempt for attempt in attempts if attempt.phase is not Phase.DONE], message)

    return parts


def never_again(original: Any) -> Any:
    return lambda outbox, late: original(outbox, ())


# ---------------------------------------------------------------------------------------------- heads, requests, sweeps


def unguarded_heads(original: Any) -> Any:
    def fits(update: HeadUpdate, head: Head) -> bool:
        return True

    return _heads_if(fits)


def heads_by_seq_alone(original: Any) -> Any:
    def fits(update: HeadUpdate, head: Head) -> bool:
        return head.seq < update.seq

    return _heads_if(fits)


def _heads_if(fits: Callable[[HeadUpdate, Head], bool]) -> Any:
    async def update_heads(store: Any, updates: Sequence[HeadUpdate]) -> list[Outcome]:
        return list(await store.write_heads(updates, fits))

    return update_heads


def no_match_is_yes(original: Any) -> Any:
    async def ask_why(heads: Any, updates: Any, outcomes: Sequence[Outcome]) -> list[Outcome]:
        return [Outcome.OK if outcome is Outcome.NO_MATCH else outcome for outcome in outcomes]

    return ask_why


def evict_before_head(original: Any) -> Any:
    async def step(heads: Any) -> None:
        evict = heads._on_stored
        for cell in list(heads._lagging.values()):
            stored, published = cell.stored, cell.published
            cell.stored, cell.published = (cell.acked, cell.acked), cell.acked
            evict(cell)
            cell.stored, cell.published = stored, published
        await original(heads)

    return step


def mark_before_head(original: Any) -> Any:
    async def step(heads: Any) -> None:
        await heads._mark([cell for cell in heads._lagging.values() if cell.to_mark and not cell.dead])
        await original(heads)

    return step


def nothing_found(original: Any) -> Any:
    async def found(*args: Any, **more: Any) -> list[Any]:
        return []

    return found


def backwards(original: Any) -> Any:
    async def read(*args: Any, **more: Any) -> list[Any]:
        return list(reversed(await original(*args, **more)))

    return read


def offsets_at_once(original: Any) -> Any:
    return lambda tracker: tracker.position or None


def no_sweep(original: Any) -> Any:
    async def step(sweeper: Any) -> int:
        return 0

    return step


def wake_alone(original: Any) -> Any:
    return lambda head: head.next_wake


def closed_at_once(original: Any) -> Any:
    def update_of(cell: Any, now: float) -> HeadUpdate:
        from flowkit.core.model import ENDED_TASK

        update: HeadUpdate = original(cell, now)
        return replace(update, active=update.status not in ENDED_TASK)

    return update_of
