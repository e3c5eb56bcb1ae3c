"""Who lives, what they serve, and who may be given work."""

from __future__ import annotations

from flowkit.core.signature import BY_NAME, Signature
from flowkit.telemetry import LeaseTimesDiffer
from flowkit.wire.messages import Goodbye, Heartbeat, Hello
from tests.coordinator.stand import FRESH, TTL, Stand


def names(stand: Stand, role: str = "work") -> set[str]:
    return {view.worker for view in stand.fleet.of_role(role)}


def test_a_hello_makes_a_worker_known_by_its_roles() -> None:
    stand = Stand()

    view = stand.worker("w", 4, "a", "b", mono=12.5)

    assert (view.slots, view.mono, view.heard_at) == (4, 12.5, 100.0)
    assert (names(stand, "a"), names(stand, "b"), names(stand, "c")) == ({"w"}, {"w"}, set())
    assert stand.fleet.roles == {"a", "b"}
    assert stand.seen == [("w", "hello")]


def test_a_heartbeat_does_as_well_as_a_hello() -> None:
    stand = Stand()

    view = stand.fleet.heard(Heartbeat("w", "i", ["a"], 2, 5.0, cpu=0.5, memory_mb=10.0, labels={"zone": "eu"}))

    assert view is not None
    assert names(stand, "a") == {"w"}
    assert (view.cpu, view.memory_mb, view.labels) == (0.5, 10.0, {"zone": "eu"})


def test_a_worker_not_heard_of_lately_is_given_nothing() -> None:
    stand = Stand()
    stand.worker("w")

    stand.clock.advance(FRESH)
    assert names(stand) == {"w"}
    stand.clock.advance(0.1)

    assert names(stand) == set()
    assert stand.fleet.roles == set()
    assert "w" in stand.fleet.workers


def test_a_worker_that_is_heard_of_again_may_be_given_work_again() -> None:
    stand = Stand()
    stand.worker("w")
    stand.clock.advance(FRESH + 1)

    stand.worker("w")

    assert names(stand) == {"w"}
    assert stand.seen == [("w", "hello")]


def test_a_silent_worker_is_forgotten_after_three_times_the_ttl() -> None:
    stand = Stand()
    stand.worker("w")
    stand.clock.advance(3 * TTL)
    stand.fleet.forget_silent()
    assert "w" in stand.fleet.workers

    stand.clock.advance(0.1)
    stand.fleet.forget_silent()

    assert stand.fleet.workers == {}
    assert stand.seen[-1] == ("w", "silent")


def test_a_silent_worker_with_attempts_of_ours_is_not_forgotten() -> None:
    stand = Stand()
    stand.worker("w").mine = 1
    stand.clock.advance(4 * TTL)

    stand.fleet.forget_silent()

    assert "w" in stand.fleet.workers


def test_a_draining_worker_is_given_nothing() -> None:
    stand = Stand()
    stand.worker("w")

    stand.worker("w", draining=True)
    stand.worker("w", draining=True)

    assert names(stand) == set()
    assert stand.seen == [("w", "hello"), ("w", "draining")]


def test_a_goodbye_ends_a_worker() -> None:
    stand = Stand()
    stand.worker("w")

    view = stand.fleet.left(Goodbye("w", "i"))

    assert view is not None
    assert names(stand) == set()
    assert stand.fleet.workers == {}
    assert stand.seen[-1] == ("w", "goodbye")


def test_the_goodbye_of_an_earlier_incarnation_ends_nobody() -> None:
    stand = Stand()
    stand.worker("w", incarnation="old")
    stand.worker("w", incarnation="new")

    assert stand.fleet.left(Goodbye("w", "old")) is None
    assert stand.fleet.left(Goodbye("nobody", "i")) is None
    assert names(stand) == {"w"}


def test_a_new_incarnation_replaces_the_old_one_and_holds_nothing() -> None:
    stand = Stand()
    old = stand.worker("w", 1, "a", incarnation="old")
    old.mine = 1

    new = stand.worker("w", 2, "b", incarnation="new")

    assert (new.mine, new.slots) == (0, 2)
    assert (names(stand, "a"), names(stand, "b")) == (set(), {"w"})


def test_a_worker_may_change_its_roles_and_slots() -> None:
    stand = Stand()
    stand.worker("w", 1, "a", "b").mine = 1

    view = stand.worker("w", 5, "b", "c")

    assert (names(stand, "a"), names(stand, "b"), names(stand, "c")) == (set(), {"w"}, {"w"})
    assert (view.mine, view.slots) == (1, 5)


def test_a_workers_monotonic_clock_goes_on_since_it_was_heard() -> None:
    stand = Stand()
    view = stand.worker("w", mono=5000.0)

    stand.clock.advance(3)

    assert stand.fleet.mono_of(view) == 5003.0


def test_what_others_placed_is_what_a_worker_holds_beyond_ours() -> None:
    view = Stand().worker("w", 8)
    view.mine = 3

    view.note_held(5)
    assert view.others == 2
    view.note_held(1)

    assert view.others == 0


def test_a_worker_may_come_and_go_under_the_same_roles_as_others() -> None:
    stand = Stand()
    stand.worker("one", 1, "a")
    stand.worker("two", 1, "a")

    stand.fleet.left(Goodbye("one", "i"))
    stand.fleet.heard(Hello("two", "i", [], 1, 0.0))

    assert names(stand, "a") == set()
    assert stand.fleet.roles == set()


def test_what_a_role_takes_is_what_its_living_workers_say() -> None:
    stand = Stand()
    schema = {"required": ["n"], "additionalProperties": False, BY_NAME: {"n": "integer"}}
    stand.fleet.heard(Hello("v", "i", ["work"], 1, 0.0, schemas={"work": schema, "odd": "nonsense"}))
    assert stand.fleet.signatures_of("work") == [Signature({"n": "integer"}, ("n",))]

    stand.fleet.heard(Heartbeat("v", "i", ["work"], 1, 1.0))
    stand.fleet.heard(Heartbeat("w", "i", ["work"], 1, 1.0))

    assert stand.fleet.signatures_of("work") == [Signature({"n": "integer"}, ("n",)), None]
    assert stand.fleet.signatures_of("other") == []


def test_a_process_that_thaws_after_its_successor_said_hello_does_not_take_its_place() -> None:
    stand = Stand()
    stand.worker("w", incarnation="old")
    new = stand.worker("w", incarnation="new")
    new.mine = 3

    for _ in range(3):
        stand.clock.advance(2)
        assert stand.fleet.heard(Heartbeat("w", "old", ["work"], 9, 1.0)) is None
        assert stand.fleet.heard(Heartbeat("w", "new", ["work"], 1, 1.0)) is new

    assert (new.mine, new.slots) == (3, 1)
    assert stand.seen == [("w", "hello"), ("w", "hello")]


def test_it_is_heard_again_once_its_successor_is_not() -> None:
    stand = Stand()
    stand.worker("w", incarnation="old")
    stand.worker("w", incarnation="new")

    stand.clock.advance(FRESH + 0.1)
    assert stand.worker("w", incarnation="old").incarnation == "old"
    stand.fleet.left(Goodbye("w", "old"))

    assert stand.worker("w", incarnation="new").incarnation == "new"


def hello(**times: float) -> Hello:
    return Hello("w", "i", ["work"], 1, 5.0, **times)


def test_a_worker_whose_times_put_leases_in_danger_is_told_of_once() -> None:
    stand = Stand()
    told: list[LeaseTimesDiffer] = []
    stand.telemetry.subscribe(lambda one: told.append(one) if isinstance(one, LeaseTimesDiffer) else None)

    stand.fleet.heard(hello())
    stand.fleet.heard(hello(lease_ttl_sec=TTL, heartbeat_sec=FRESH))
    stand.fleet.heard(hello(lease_ttl_sec=TTL / 2, heartbeat_sec=0.1))
    assert told == []

    for _ in range(2):
        stand.fleet.heard(hello(lease_ttl_sec=30, heartbeat_sec=6))
    assert [one.code for one in told] == ["lease_ttl_differs", "heartbeat_differs"]
    assert "has lease_ttl_sec 30 and this coordinator 10" in told[0].why
    assert "runs on for 24 s" in told[0].why
    assert "give both the same lease_ttl_sec" in told[0].why
    assert "has heartbeat_sec 6 and this coordinator 3.8" in told[1].why
