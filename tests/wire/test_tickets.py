"""A ticket is good for one attempt and a while, and only from whoever has the key."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit.clock import ManualClock
from flowkit.errors import TicketRefused
from flowkit.ports import SecretUse
from flowkit.wire.tickets import MOST_NAMES, TicketOffice, check_use, read_ticket

KEYS = {"a": b"A" * 32, "b": b"B" * 32}
USE = SecretUse("acme", "task-1", "each[3]", 2, "tok", "w1", "etl")
NOW = 1_700_000_000.0


def office(*ids: str, **options: float) -> TicketOffice:
    return TicketOffice({id: KEYS[id] for id in ids or ("a",)}, ManualClock(NOW), **options)


def test_a_ticket_says_whose_it_is_and_what_for() -> None:
    ticket = read_ticket(office().issue(USE, ["KEY", "OTHER@2"]), KEYS, NOW)
    assert ticket.use == USE
    assert ticket.names == ("KEY", "OTHER@2")
    assert (ticket.issued_at, ticket.good_until) == (NOW, NOW + 120)
    check_use(ticket, replace(USE))
    check_use(ticket, replace(USE, flow=""))  # the worker need not know it


def test_the_first_key_seals_and_each_opens() -> None:
    assert office("b", "a").issue(USE, []).startswith("fk1.b.")
    for id in KEYS:
        assert read_ticket(office(id).issue(USE, ["K"]), KEYS, NOW).use == USE
    with pytest.raises(TicketRefused, match="knows the keys a; give the coordinators"):
        read_ticket(office("b").issue(USE, ["K"]), {"a": KEYS["a"]}, NOW)


@pytest.mark.parametrize("field", ["tenant", "task_id", "node", "attempt", "token", "worker"])
def test_a_ticket_is_for_no_other_attempt(field: str) -> None:
    ticket = read_ticket(office().issue(USE, ["K"]), KEYS, NOW)
    other = replace(USE, **{field: 3 if field == "attempt" else "other"})
    with pytest.raises(TicketRefused, match=f"another attempt: {field} differ"):
        check_use(ticket, other)


def test_its_time_is_bounded_with_leeway_for_clocks() -> None:
    text = office(good_sec=10.0).issue(USE, ["K"])
    read_ticket(text, KEYS, NOW + 69)
    read_ticket(text, KEYS, NOW - 59)
    with pytest.raises(TicketRefused, match="over since 62 s: ask within 10 s"):
        read_ticket(text, KEYS, NOW + 72)
    with pytest.raises(TicketRefused, match="61 s in the future"):
        read_ticket(text, KEYS, NOW - 61)
    with pytest.raises(TicketRefused, match="over"):
        read_ticket(text, KEYS, NOW + 11, leeway_sec=0.0)


@given(st.integers(0, 10_000), st.sampled_from("abcXYZ019-_.="))
def test_no_character_of_it_can_be_changed(place: int, char: str) -> None:
    text = office().issue(USE, ["KEY"])
    at = place % len(text)
    forged = text[:at] + char + text[at + 1 :]
    if forged != text:
        with pytest.raises(TicketRefused):
            read_ticket(forged, KEYS, NOW)


@given(st.text(max_size=200))
def test_what_is_no_ticket_is_refused(text: str) -> None:
    with pytest.raises(TicketRefused):
        read_ticket(text, KEYS, NOW)


def test_names_cannot_be_added_without_the_key() -> None:
    form, key_id, body, mac = office().issue(USE, ["KEY"]).split(".")
    said = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    said[3].append("MORE")
    more = base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode()
    with pytest.raises(TicketRefused, match="forged"):
        read_ticket(f"{form}.{key_id}.{more}.{mac}", KEYS, NOW)


def test_a_ticket_is_bounded() -> None:
    with pytest.raises(ValueError, match=f"at most {MOST_NAMES}"):
        office().issue(USE, [f"K{n}" for n in range(MOST_NAMES + 1)])
    with pytest.raises(ValueError, match="shorter names"):
        office().issue(replace(USE, node="n" * 40_000), ["K"])
    with pytest.raises(TicketRefused, match="no coordinator issues such"):
        read_ticket("x" * 100_000, KEYS, NOW)
