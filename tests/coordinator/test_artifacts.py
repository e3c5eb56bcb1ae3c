"""A reference into a large value leads to what it would lead to if the value were small."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flowkit.adapters.memory import MemoryStore
from flowkit.coordinator.artifacts import materialise
from flowkit.core.payload import Artifact
from flowkit.errors import Corrupt


async def there(value: Any, *path: str | int) -> Any:
    store = MemoryStore()
    data = json.dumps(value).encode()
    await store.put_blob("ref", data, kind="artifact")
    found = await materialise(store, {"out": Artifact("ref", len(data), "json", tuple(path))})
    return found["out"]


async def test_a_path_leads_into_objects_and_lists() -> None:
    assert await there({"rows": [1, {"n": 2}]}, "rows", 1, "n") == 2
    assert await there([1, 2]) == [1, 2]


@pytest.mark.parametrize(
    ("value", "path", "says"),
    [
        ("text", (0,), "no 0; found a string"),
        ({"rows": "text"}, ("rows", 0), "no 0 in rows; found a string"),
        ([1], (1,), "no 1; found a list of 1"),
        ({"rows": 1}, ("row",), r"no 'row'; found an object with 'rows' \(did you mean 'rows'"),
    ],
)
async def test_a_path_that_leads_nowhere_says_where_it_ends(value: Any, path: tuple[Any, ...], says: str) -> None:
    with pytest.raises(Corrupt, match=says):
        await there(value, *path)
