"""Who listens to a task is told of its steps, in the order in which they came to listen."""

from __future__ import annotations

from flowkit.coordinator.hub import Hub, Listener
from flowkit.wire.messages import Event


def test_listeners_are_told_in_the_order_in_which_they_came() -> None:
    hub, told = Hub(), list[Listener]()
    listeners = [hub.listen("t") for _ in range(50)]
    for listener in listeners:
        listener._wake.set = lambda listener=listener: told.append(listener)  # type: ignore[method-assign, misc]

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
