"""Puts a job's inputs together: what came with it, and what it refers to in the artifact store."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from flowkit.core.payload import Artifact, put_at
from flowkit.errors import Corrupt, InputError, StoreUnavailable
from flowkit.ports import Store
from flowkit.wire.codec import loads
from flowkit.wire.messages import Job, unpack_artifacts
from flowkit.worker.outcome import AttemptFailure

T = TypeVar("T")
RunSync = Callable[[Callable[[], Any]], Awaitable[Any]]
LARGE_BYTES = 256 * 1024
FETCHES = 8
KEPT_BYTES = 8 * 1024 * 1024
PATIENCE_SEC = 60.0
_FIRST_WAIT_SEC, _LONGEST_WAIT_SEC = 0.1, 5.0

Place = tuple[str | int, ...]


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask the store again while it is away: an attempt that is held may as well wait, for a minute. Raises
    `StoreUnavailable` after that."""
    wait, waited = _FIRST_WAIT_SEC, 0.0
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            if waited >= PATIENCE_SEC:
                raise
        await asyncio.sleep(wait)
        waited += wait
        wait = min(_LONGEST_WAIT_SEC, wait * 2)


class Inputs:
    def __init__(self, store: Store, run_sync: RunSync) -> None:
        self._store = store
        self._run_sync = run_sync
        self._texts: OrderedDict[str, bytes] = OrderedDict()

    async def gather(self, job: Job) -> tuple[Any, Any, Any, Any]:
        """The inputs, the params, as JSON text (bytes) where they are large, what the node's `io` has for its handler,
        and its code. Raises `InputError` where a path leads nowhere, `AttemptFailure` where an artifact is gone,
        `StoreUnavailable` where the store does not answer."""
        params = await self._params_text(job.task_id) if job.params_in_head else job.params
        if not job.body_ref:
            return await self._fill(job.inputs, job.artifacts), params, job.io, job.code
        body = await self._decode(await self._fetch(job.body_ref))
        if not isinstance(body, list) or not 3 <= len(body) <= 5:
            raise Corrupt(
                f"the body of the attempt, artifact {job.body_ref}, is not [inputs, artifacts, params, io, code]"
            )
        params = params if job.params_in_head else body[2]
        return await self._fill(body[0], body[1]), params, *(*body[3:], None, None)[:2]

    async def _params_text(self, task_id: str) -> bytes:
        """Kept for a while: most jobs of a task come to the same workers."""
        text = self._texts.get(task_id)
        if text is None:
            heads = await patiently(lambda: self._store.read_heads([task_id]))
            if not heads:
                raise AttemptFailure("task_missing", f"task {task_id} is not in the store any more", permanent=True)
            text = self._texts[task_id] = heads[0].params.encode()
            while len(self._texts) > 1 and sum(map(len, self._texts.values())) > KEPT_BYTES:
                self._texts.popitem(last=False)
        else:
            self._texts.move_to_end(task_id)
        return text

    async def _fill(self, inputs: Any, rows: Iterable[Any]) -> Any:
        wanted = unpack_artifacts(rows)
        blobs = await self._fetch_all({artifact.ref for _, artifact in wanted})
        for place, artifact in wanted:
            # Decoded once per place: two places must not share a list that the handler may change.
            value = await self._value(artifact, blobs[artifact.ref])
            try:
                inputs = put_at(inputs, place, value)
            except (LookupError, TypeError) as error:
                raise Corrupt(f"an artifact is to stand at {place!r}, where the inputs have no place") from error
        return inputs

    async def value_of(self, artifact: Artifact) -> Any:
        """The value that an artifact stands for. Raises as `gather`."""
        return await self._value(artifact, await self._fetch(artifact.ref))

    async def _value(self, artifact: Artifact, blob: bytes) -> Any:
        value: Any = blob if artifact.kind == "bytes" else await self._decode(blob)
        for step in artifact.path:
            value = _step(value, step, artifact.path)
        return value

    async def _fetch_all(self, refs: Iterable[str]) -> dict[str, bytes]:
        names = sorted(refs)
        blobs: dict[str, bytes] = {}
        for start in range(0, len(names), FETCHES):
            part = names[start : start + FETCHES]
            blobs |= zip(part, await asyncio.gather(*map(self._fetch, part)), strict=True)
        return blobs

    async def _fetch(self, ref: str) -> bytes:
        try:
            return await patiently(lambda: self._store.get_blob(ref, kind="artifact"))
        except KeyError:
            message = f"the artifact {ref} is not in the store: it was deleted, or its retention is over"
            raise AttemptFailure("artifact_missing", message, permanent=False) from None

    async def _decode(self, blob: bytes) -> Any:
        return loads(blob) if len(blob) <= LARGE_BYTES else await self._run_sync(lambda: loads(blob))


def _step(value: Any, step: str | int, path: Place) -> Any:
    if isinstance(value, dict) and step in value:
        return value[step]
    if isinstance(value, list) and isinstance(step, int) and -len(value) <= step < len(value):
        return value[step]
    shown = ".".join(map(str, path))
    raise InputError(f"the output that an input refers to has no {shown!r}: there is no {step!r} in it")
