"""A pytest plugin: `flowkit_world` makes simulated clusters, `manual_clock` is a clock that a test moves.

pytest finds it wherever FlowKit is installed, also where nobody asks for a fixture of it: so it imports nothing at
the top that is not there anyway.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from flowkit.clock import ManualClock
    from flowkit.testing.world import World


class MakeWorld(Protocol):
    """Makes a `World`; see there."""

    def __call__(
        self,
        seed: int = 0,
        *,
        mode: str = "calm",
        coordinators: int = 2,
        workers: int = 3,
        apis: int = 2,
        handlers: Mapping[str, Callable[..., Awaitable[Any]]] | None = None,
        without: Collection[str] = (),
        trace: bool = True,
    ) -> World: ...


@pytest.fixture
def flowkit_world() -> MakeWorld:
    """A factory of simulated clusters, for plain (not async) tests: `flowkit_world(handlers={...}).run(play)`.

    `play(world)` is a coroutine function that asks as a user would: `await world.ask(lambda api: api.create([...]))`.
    `run` gives a `Report`, whose `violations` should be empty.
    """
    from flowkit.testing.world import World

    def make(seed: int = 0, *, trace: bool = True, **options: Any) -> World:
        return World(seed, trace=trace, **options)

    return make


@pytest.fixture
def manual_clock() -> ManualClock:
    """A clock that stands still until the test moves it."""
    from flowkit.clock import ManualClock

    return ManualClock(1_700_000_000.0)
