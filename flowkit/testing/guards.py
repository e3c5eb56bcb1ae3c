"""The protocol's guards, by rule, and how each is taken out of the real code: to see that somebody notices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from flowkit.testing import removals as r

Instead = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Guard:
    """One guard. `target` is `module:Class.attribute` (or `module:attribute`); `instead` makes what stands there
    without the guard from what stands there with it. No target: the simulated store leaves it out."""

    name: str
    rule: int
    about: str
    target: str = ""
    instead: Instead = r.unchanged

    @property
    def mode(self) -> str:
        """The worlds in which its absence shows best."""
        return {"renew_in_store": "outage", "revoke": "calm"}.get(self.name, "chaos")

    @property
    def directed(self) -> tuple[str, ...]:
        """The faults that look for its absence, where random chaos hardly does."""
        return LOOKED_FOR.get(self.name, ())

    @property
    def seconds(self) -> tuple[str, ...]:
        """The guards that do the same work: its absence shows only where they are gone as well."""
        return SECONDS.get(self.name, ())


ENGINE = "flowkit.coordinator.engine:Engine"
EXPIRY = "flowkit.coordinator.expiry:Expiry"
HEADS = "flowkit.coordinator.heads:Heads"
C, W, CORE = "flowkit.coordinator", "flowkit.worker", "flowkit.core"
STORE = "flowkit.testing.store:FaultyStore"

# fmt: off
ROWS = (
    Guard("one_in_flight", 1, "one commit of a task in flight", f"{ENGINE}.pump", r.pump_in_spite_of_a_flight),
    Guard("heard_in_flight", 1, "heartbeats count while a commit is out",
          f"{C}.leases:Leases.heard", r.deaf_in_flight),
    Guard("unique", 1, "(task, seq) is unique in the store"),
    Guard("majority", 2, "a write is acknowledged once a majority holds it"),
    Guard("unknown_no_yes", 2, "an unknown outcome is not a yes", f"{ENGINE}.outcome", r.unknown_is_yes),
    Guard("duplicate_no_yes", 2, "a duplicate key is not a yes", f"{ENGINE}.outcome", r.duplicate_is_yes),
    Guard("confirm_task", 2, "a duplicate head is a yes once a majority has it",
          f"{C}.acceptance:Acceptance._confirm", r.nothing_found),
    Guard("keep_reports", 2, "reports of a lost commit are decided again", f"{ENGINE}.reload", r.forget_reports),
    Guard("no_redispatch", 2, "leases found on loading are not sent again", f"{ENGINE}.loaded", r.dispatch_on_load),
    Guard("publish_after", 3, "nothing leaves before its commit is acknowledged", f"{ENGINE}._fly", r.publish_before),
    Guard("due_from_lease", 3, "the accept deadline counts from the lease",
          f"{ENGINE}._acknowledged", r.due_when_sent),
    Guard("accept_deadline", 3, "a late dispatch is declined", f"{W}.slots:Slots._take", r.accept_late),
    Guard("token", 4, "a result counts for its own token", f"{CORE}.attempts:Attempts.attempt", r.any_token),
    Guard("dedupe", 4, "a worker runs a token once", f"{W}.tokens:Tokens.add", r.always(True)),
    Guard("incarnation", 4, "work is for one incarnation", f"{W}.intake:Intake._read", r.read_for_all),
    Guard("ahead", 4, "what is ahead of the state makes it load again", f"{C}.engine:MOST_AHEADS", r.zero),
    Guard("revoke_known", 4, "only known attempts are revoked", f"{C}.ears:Ears._unwatched", r.revoke_any),
    Guard("revoke", 4, "a holder of what is over is told", f"{C}.carrier:Carrier.revoke_unknown", r.always(None)),
    Guard("held_until_ack", 5, "held until the result is acknowledged", f"{W}.heart:Heart._parts", r.only_running),
    Guard("resend", 5, "results are sent until acknowledged", f"{W}.outbox:Outbox._again", r.never_again),
    Guard("exp_beacon", 6, "a beacon comes back before an expiry", f"{EXPIRY}.road_works", r.surely),
    Guard("beacon_fresh", 6, "it is sent after the deadline", f"{EXPIRY}.road_works", r.any_beacon),
    Guard("beacon_part", 6, "it goes through the worker's partition", f"{C}.expiry:partition_of", r.always(0)),
    Guard("exp_workers", 6, "renewals in the store are looked at", f"{EXPIRY}.note_renewals", r.surely),
    Guard("first_seen", 6, "a count not seen before is a renewal", f"{EXPIRY}.note_renewals", r.first_count_is_old),
    Guard("exp_facts", 6, "results are read up to now before an expiry", f"{EXPIRY}.results_read", r.surely),
    Guard("exp_queue", 6, "an expiry waits behind what was read", f"{ENGINE}.feed", r.expiry_first),
    Guard("missed_late", 6, "only after its accept deadline may a worker not name what it was sent",
          f"{C}.leases:Leases.all_named", r.missed_at_once),
    Guard("renew_in_store", 6, "a worker renews in the store too", f"{W}.heart:Heart._renew_in_store", r.surely),
    Guard("self_kill", 7, "a worker that cannot renew stops", f"{W}.heart:Heart._guard", r.always(None)),
    Guard("full_ttl", 8, "a lease found on loading gets a full TTL", f"{C}.leases:Leases.sync", r.no_ttl),
    Guard("republish", 8, "unpublished events go out on loading", f"{ENGINE}.loaded", r.no_republish),
    Guard("load_active", 8, "a new owner loads what is active", f"{C}.takeover:Takeover._load_active", r.surely),
    Guard("let_go", 8, "a revoked owner stops", f"{C}.takeover:Takeover.end", r.surely),
    Guard("head_guard", 9, "a head never goes back", f"{STORE}.update_heads", r.unguarded_heads),
    Guard("head_published", 9, "at the same seq the head with more published wins",
          f"{STORE}.update_heads", r.heads_by_seq_alone),
    Guard("head_confirm", 9, "no match is confirmed by a read", f"{HEADS}._ask_why", r.no_match_is_yes),
    Guard("evict_head", 9, "a task leaves memory after its head", f"{HEADS}.step", r.evict_before_head),
    Guard("confirm_request", 10, "a duplicate request is another's, till one's own is read",
          f"{C}.asking:Asking._insert", r.any_request_is_mine),
    Guard("flag_head", 10, "a request is marked after the head", f"{HEADS}.step", r.mark_before_head),
    Guard("requests_scan", 10, "the sweeper finds requests", f"{STORE}.open_requests", r.nothing_found),
    Guard("request_order", 10, "requests are read in order", f"{STORE}.read_requests", r.backwards),
    Guard("offsets_last", 11, "offsets follow commits", f"{C}.offsets:OffsetTracker.to_commit", r.offsets_at_once),
    Guard("sweeper", 12, "tasks without a message are found", f"{C}.sweeper:Sweeper.step", r.no_sweep),
    Guard("sweep_unpublished", 12, "unpublished heads are due",
          "flowkit.adapters.memory_store:unpublished_or_wake", r.wake_alone),
    Guard("open_until_published", 12, "open until the last event is out", f"{C}.heads:update_of", r.closed_at_once),
    Guard("look_at_children", 12, "a child that was not asked to go on is asked again",
          f"{C}.children:was_not_asked", r.always(False)),
    Guard("generation", 13, "a timer carries its generation", f"{CORE}.model:Task.timer_live", r.any_generation),
    Guard("end_of_attempt", 13, "a child's end counts for the attempt that it was for",
          f"{CORE}.attempts:Attempts.child_ended", r.any_end),
    Guard("timers_cleared", 13, "a restart forgets the timers", f"{CORE}.model:Task.__init__", r.timers_kept),
    Guard("attempts_grow", 13, "attempt numbers never repeat", f"{CORE}.model:NodeRun.reset", r.attempts_anew),
)
# fmt: on

LOOKED_FOR = {
    "confirm_task": ("accept_then_roll_back",),
    "no_redispatch": ("lost_work_then_new_owner",),
    "due_from_lease": ("freeze_before_answer",),
    "accept_deadline": ("late_work",),
    "incarnation": ("late_work", "workers_restart"),
    "ahead": ("stale_loads",),
    "revoke_known": ("stale_loads",),
    "revoke": ("lost_stops",),
    "held_until_ack": ("facts_down",),
    "exp_beacon": ("fleet_stall",),
    "beacon_fresh": ("stall_and_death",),
    "beacon_part": ("fleet_partition_stall",),
    "exp_workers": ("worker_without_kafka",),
    "first_seen": ("worker_without_kafka",),
    "exp_facts": ("result_then_stall",),
    "exp_queue": ("result_then_slow",),
    "heard_in_flight": ("slow_then_fail_over",),
    "self_kill": ("worker_without_anything",),
    "head_guard": ("late_heads",),
    "head_confirm": ("restart_then_roll_back",),
    "flag_head": ("restart_then_crash",),
    "offsets_last": ("slow_then_crash",),
    "sweep_unpublished": ("lost_doorbells",),
    "look_at_children": ("continue_then_crash",),
    "end_of_attempt": ("late_child_ends",),
    "generation": ("restart_before_timeout",),
    "timers_cleared": ("restart_before_timeout",),
}

SECONDS = {
    "generation": ("timers_cleared",),
    "timers_cleared": ("generation",),
    "sweep_unpublished": ("load_active",),
    "load_active": ("sweep_unpublished",),
}

# They save work or time; the promises stand without them.
HARMLESS = {
    "let_go": "two owners at once are waste, never harm: the unique key and the tokens see to that",
}

GUARDS: dict[str, Guard] = {guard.name: guard for guard in ROWS}


@contextmanager
def removed(names: Iterable[str]) -> Iterator[frozenset[str]]:
    """Take guards out of the real code; gives the names of those that the simulated store must leave out."""
    undo: list[tuple[Any, str, Any]] = []
    in_store = set()
    try:
        for name in names:
            guard = find(name)
            if not guard.target:
                in_store.add(name)
                continue
            owner, attribute = place_of(guard)
            # As it stands in the class: a static method must not come back as a plain function.
            original = vars(owner)[attribute]
            undo.append((owner, attribute, original))
            setattr(owner, attribute, guard.instead(original))
        yield frozenset(in_store)
    finally:
        for owner, attribute, original in reversed(undo):
            setattr(owner, attribute, original)


def find(name: str) -> Guard:
    if name not in GUARDS:
        raise ValueError(f"no guard {name!r}; there are {', '.join(sorted(GUARDS))}")
    return GUARDS[name]


def place_of(guard: Guard) -> tuple[Any, str]:
    """The module or class that holds a guard's target, and the attribute's name."""
    module, _, path = guard.target.partition(":")
    owner: Any = import_module(module)
    *outer, attribute = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    return owner, attribute
