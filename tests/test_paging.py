"""Who asks for more rows than a page holds, or for none, is told so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowkit import Embedded
from flowkit.paging import LARGEST_PAGE, checked_limit


@pytest.mark.parametrize("limit", [1, LARGEST_PAGE])
def test_what_a_page_can_hold_is_taken(limit: int) -> None:
    assert checked_limit(limit) == limit


@pytest.mark.parametrize("limit", [0, -1, LARGEST_PAGE + 1, True, "10", 2.5, None])
def test_what_it_cannot_is_not_cut_to_fit(limit: Any) -> None:
    with pytest.raises(ValueError, match=r"limit is a whole number from 1 to 1,000, not "):
        checked_limit(limit)


async def test_lists_do_not_answer_with_fewer_rows_than_were_asked_for(tmp_path: Path) -> None:
    async with Embedded(tmp_path / "flow.db") as engine:
        lists = (
            engine.coordinator.list_tasks, engine.coordinator.list_flows, engine.coordinator.secrets.list,
            engine.coordinator.secrets.audit,
        )  # fmt: skip
        for of_many in lists:
            with pytest.raises(ValueError, match="limit is a whole number"):
                await of_many(limit=LARGEST_PAGE + 1)
