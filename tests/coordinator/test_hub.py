"""Who listens to a task is told of its steps, in the order in which they came to listen."""

from __future__ import annotations

import asyncio

import pytest

from flowkit.coordinator.hub import Hub, Listener
from flowkit.wire.events import Event


def test_listeners_are_told_in_the_order_in_which_they_came(monkeypatch: pytest.MonkeyPatch) -> None:
    hub, told = Hub(), list[Listener]()
    listeners = [hub.listen("t") for _ in range(50)]
    monkeypatch.setattr(Listener, "_wake", lambda listener: told.append(listener))

    hub.heard(Event("t", "default", 1, 0.0, "c1", "running", None))
    hub.something_changed()

    assert told == listeners * 2


def test_a_listener_that_has_left_is_told_nothing() -> None:
    hub = Hub()
    first, second = hub.listen("t"), hub.listen("t")

    first.close()
    first.close()
    assert hub.wanted("t")

    second.close()
    assert not hub.wanted("t")


async def test_who_waits_is_woken_by_what_it_listens_for_and_by_nothing_else() -> None:
    hub = Hub()
    listener = hub.listen("t", ends_only=True)
    waiting = asyncio.ensure_future(listener.next(30.0))
    await asyncio.sleep(0)
    hub.heard(Event("t", "default", 1, 0.0, "c1", "running", None))
    hub.heard(Event("u", "default", 1, 0.0, "c1", "finished", None))
    await asyncio.sleep(0)
    assert not waiting.done()

    end = Event("t", "default", 2, 0.0, "c2", "finished", None)
    hub.heard(end)
    hub.something_changed()

    assert await waiting == end
    assert listener.missed
    assert await listener.next(30.0) is None, "what was missed is a reason to look at once"
    listener.missed = False
    assert await listener.next(0.001) is None


async def test_who_gives_up_waiting_leaves_nothing_behind() -> None:
    listener = Hub().listen("t")
    waiting = asyncio.ensure_future(listener.next(30.0))
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.wait([waiting])
    listener.poke()

    assert await listener.next(30.0) is None
