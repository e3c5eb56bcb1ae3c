"""A ticket's values go to whoever it is for, once it is shown, and to nobody who copied it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from flowkit.errors import SecretNotFound, SecretRefused, TicketRefused
from flowkit.ports import SecretUse
from flowkit.secrets import desk as desks
from flowkit.secrets.desk import Desk, OwnDesk
from flowkit.wire.tickets import TicketOffice
from tests.secrets.room import Room, attempt

KEYS = {"t1": b"T" * 32}


class Counter:
    def __init__(self) -> None:
        self.room = Room()
        self.office = TicketOffice(KEYS, self.room.clock)
        self.desk = Desk(self.room.manager, KEYS, self.room.clock)

    def ticket(self, *names: str, use: SecretUse | None = None) -> str:
        return self.office.issue(use if use is not None else attempt(), names)

    async def outcomes(self) -> Sequence[str]:
        return [row.outcome for row in await self.room.rows() if row.action == "use"]


@pytest.fixture
async def counter() -> Counter:
    counter = Counter()
    await counter.room.secrets.set("KEY", "some-value")
    return counter


async def test_whoever_shows_a_ticket_gets_what_it_names(counter: Counter) -> None:
    assert await counter.desk.values_for(attempt(), counter.ticket("KEY"), "me") == {"KEY": "some-value"}
    assert await OwnDesk(counter.desk).values_for(
        attempt(token="tok-2"), counter.ticket("KEY@1", use=attempt(token="tok-2"))
    ) == {"KEY@1": "some-value"}
    assert await counter.outcomes() == ["ok", "ok"]


async def test_it_may_ask_again_for_an_answer_may_be_lost(counter: Counter) -> None:
    ticket = counter.ticket("KEY")
    for _ in range(3):
        assert await counter.desk.values_for(attempt(), ticket, "me")
    assert await counter.outcomes() == ["ok"] * 3


async def test_once_the_values_have_arrived_it_is_good_for_nothing(counter: Counter) -> None:
    """Not in the same hands either: whoever took over the worker after the attempt has ended gets nothing."""
    ticket = counter.ticket("KEY")
    await counter.desk.values_for(attempt(), ticket, "me")
    counter.desk.arrived(attempt().token, "thief")  # who has not shown it cannot use it up
    counter.desk.arrived("another token", "me")
    assert await counter.desk.values_for(attempt(), ticket, "me")
    counter.desk.arrived(attempt().token, "me")
    for _ in range(2):
        with pytest.raises(TicketRefused, match="the ticket was used: its values have arrived"):
            await counter.desk.values_for(attempt(), ticket, "me")

    own = OwnDesk(counter.desk)
    mine = attempt(token="tok-own")
    await own.values_for(mine, counter.ticket("KEY", use=mine))
    with pytest.raises(TicketRefused, match="was used"):
        await own.values_for(mine, counter.ticket("KEY", use=mine))
    assert await counter.outcomes() == ["ok", "ok", "E_TICKET", "E_TICKET", "ok", "E_TICKET"]


async def test_it_may_be_asked_again_for_a_minute_and_no_longer(counter: Counter) -> None:
    """Nothing was said of the values: they, or the worker, are gone."""
    ticket = counter.ticket("KEY")
    await counter.desk.values_for(attempt(), ticket, "me")
    counter.room.clock.advance(59)
    assert await counter.desk.values_for(attempt(), ticket, "me")
    counter.room.clock.advance(2)
    with pytest.raises(TicketRefused, match="was first shown 61 s ago: an attempt asks once"):
        await counter.desk.values_for(attempt(), ticket, "me")
    assert await counter.outcomes() == ["ok", "ok", "E_TICKET"]


async def test_a_copy_in_other_hands_is_refused_and_recorded(counter: Counter) -> None:
    ticket = counter.ticket("KEY")
    await counter.desk.values_for(attempt(), ticket, "me")
    with pytest.raises(TicketRefused, match="was shown by another before"):
        await counter.desk.values_for(attempt(), ticket, "thief")
    assert await counter.outcomes() == ["ok", "E_TICKET"]
    assert await counter.desk.values_for(attempt(), ticket, "me")


@pytest.mark.parametrize(
    "other",
    [
        attempt(task_id="task-2"), attempt(node="other"), attempt(attempt=2), attempt(token="tok-9"),
        attempt(worker="w2"), attempt("globex"),
    ],
    ids=lambda use: f"{use.tenant}-{use.task_id}-{use.node}-{use.attempt}-{use.worker}-{use.flow}",
)  # fmt: skip
async def test_a_ticket_of_another_attempt_is_refused_and_recorded(counter: Counter, other: SecretUse) -> None:
    with pytest.raises(TicketRefused, match="is for another attempt"):
        await counter.desk.values_for(other, counter.ticket("KEY"), "me")
    rows = await counter.room.rows(other.tenant)
    assert (rows[-1].outcome, rows[-1].task_id, rows[-1].node) == ("E_TICKET", other.task_id, other.node)
    assert rows[-1].note.startswith("as it said itself: the ticket is for another attempt")


async def test_of_which_flow_it_is_the_ticket_says_and_not_the_worker(counter: Counter) -> None:
    await counter.room.secrets.allow("KEY", flows=["etl"])
    assert await counter.desk.values_for(attempt(flow=""), counter.ticket("KEY"), "me")
    web = attempt(flow="web", token="tok-2")
    with pytest.raises(SecretRefused, match="flow 'web' may not use it"):
        await counter.desk.values_for(attempt(flow="etl", token="tok-2"), counter.ticket("KEY", use=web), "me")
    assert (await counter.room.rows())[-1].flow == "web"


async def test_time_runs_out(counter: Counter) -> None:
    ticket = counter.ticket("KEY")
    await counter.desk.values_for(attempt(), ticket, "me")
    counter.room.clock.advance(181)
    with pytest.raises(TicketRefused, match="time is over"):
        await counter.desk.values_for(attempt(), ticket, "me")


async def test_a_forged_ticket_is_refused(counter: Counter) -> None:
    forged = TicketOffice({"t1": b"X" * 32}, counter.room.clock).issue(attempt(), ["KEY"])
    with pytest.raises(TicketRefused, match="forged"):
        await counter.desk.values_for(attempt(), forged, "me")


async def test_a_genuine_ticket_opens_no_more_than_the_secret_allows(counter: Counter) -> None:
    await counter.room.secrets.allow("KEY", nodes=["send"])
    with pytest.raises(SecretRefused, match="node 'load' may not use it"):
        await counter.desk.values_for(attempt(), counter.ticket("KEY"), "me")
    with pytest.raises(SecretNotFound):
        await counter.desk.values_for(attempt(token="x"), counter.ticket("NONE", use=attempt(token="x")), "me")


async def test_of_a_flood_of_wrong_tickets_some_are_recorded_and_how_many_more(counter: Counter) -> None:
    for _ in range(500):
        with pytest.raises(TicketRefused):
            await counter.desk.values_for(attempt(), "no ticket", "me")
    rows = await counter.room.rows()
    assert len(rows) == 1 + desks.RECORDED_AT_ONCE

    counter.room.clock.advance(10)
    with pytest.raises(TicketRefused):
        await counter.desk.values_for(attempt(), "no ticket", "me")
    assert "(480 more before this one were refused, and not recorded)" in (await counter.room.rows())[-1].note


async def test_what_is_remembered_of_tickets_is_bounded(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "REMEMBERED", 10)
    for n in range(50):
        use = replace(attempt(), token=f"tok-{n}")
        await counter.desk.values_for(use, counter.ticket("KEY", use=use), "me")
    assert len(counter.desk._shown) <= 10
    counter.room.clock.advance(1000)
    await counter.desk.values_for(attempt(), counter.ticket("KEY"), "me")
    assert len(counter.desk._shown) == 1
