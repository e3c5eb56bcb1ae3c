"""A handle asks what the verbs are asked, of its own task."""

from __future__ import annotations

from typing import Any

from flowkit.coordinator.handle import TaskHandle


class Noting:
    """Stands for the verbs, and notes how they were asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    async def cancel(self, task_id: str, **said: Any) -> bool:
        self.asked.append(("cancel", task_id, said))
        return True


async def test_how_long_a_cancelled_attempt_may_take_can_be_said_on_a_handle_too() -> None:
    verbs = Noting()
    handle = TaskHandle(verbs, "t")  # type: ignore[arg-type]

    assert await handle.cancel(reason="enough", grace_sec=0.5)
    assert await handle.cancel(node_id="a")

    assert verbs.asked == [
        ("cancel", "t", {"node_id": None, "reason": "enough", "grace_sec": 0.5}),
        ("cancel", "t", {"node_id": "a", "reason": "user_request", "grace_sec": None}),
    ]
