"""Puts back the values that were too large to travel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flowkit.core.effects import Fetch
from flowkit.core.filling import follow, lack
from flowkit.core.graph import MISSING
from flowkit.core.inputs import task_output
from flowkit.core.model import Task
from flowkit.core.payload import Artifact, lift_artifacts, put_at
from flowkit.core.scope import Unanswered
from flowkit.errors import Corrupt
from flowkit.ports import Store
from flowkit.wire.codec import loads

T = TypeVar("T")


async def materialise(store: Store, value: Any) -> Any:
    """The value with every `Artifact` in it replaced by what it stands for. Raises `Corrupt` if one is gone."""
    bare, found = lift_artifacts(value)
    for place, artifact in found:
        content = await read_artifact(store, artifact)
        bare = put_at(bare, place, content)
    return bare


async def read_artifact(store: Store, artifact: Artifact) -> Any:
    """The JSON value (or the part that the path leads to), or the bytes."""
    try:
        data = await store.get_blob(artifact.ref, kind="artifact")
    except KeyError as error:
        raise Corrupt(f"artifact {artifact.ref} is not in the store") from error
    if artifact.kind == "bytes":
        return data
    whole = loads(data)
    value = follow(whole, artifact.path)
    if value is MISSING:
        raise Corrupt(f"artifact {artifact.ref} has {lack(whole, artifact.path)}")
    return value


async def output_of_ended(store: Store, task: Task) -> Any:
    """The output of a task that finished; may hold `Artifact`s. Raises `InputError`, `ExprError`, `Corrupt`."""
    return await answered(store, task, lambda: task_output(task))


async def answered(store: Store, task: Task, make: Callable[[], T]) -> T:
    """What `make` makes of a task, outside of a decision: what must be read of its large outputs first is read. Raises
    what `make` raises, and `StoreUnavailable`."""
    try:
        while True:
            try:
                return make()
            except Unanswered as unanswered:
                if not isinstance(unanswered.question, Fetch):
                    raise
                ref = unanswered.question.ref
                try:
                    value, error = loads(await store.get_blob(ref, kind="artifact")), ""
                except (KeyError, Corrupt) as why:
                    value, error = None, str(why)
                task.fetched("values")[ref] = (value, error)
    finally:
        if task.memo:
            task.memo.pop("values", None)
