"""Keeps what is too large for an output, under the hash of its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from flowkit.ports import Store
from flowkit.wire.codec import loads
from flowkit.worker.covering import Covered
from flowkit.worker.inputs import patiently
from flowkit.worker.outputs import to_json


class Artifacts:
    """The artifacts of one attempt. References are plain objects, so they may stand in an output."""

    def __init__(self, store: Store, task_id: str, node_id: str, covered: Covered | None = None) -> None:
        """`covered`, where the attempt holds secrets, makes of a value one that may be kept."""
        self._store = store
        self._task_id = task_id
        self._node_id = node_id
        self._covered = covered
        self.partials: dict[str, Any] = {}

    async def put_bytes(self, data: bytes) -> dict[str, Any]:
        """Keep bytes; the answer is their reference."""
        return await self._put(bytes(data if self._covered is None else await self._covered(data)), "bytes")

    async def put_json(self, value: Any) -> dict[str, Any]:
        """Keep a JSON value; the answer is its reference."""
        return await self._put(to_json(value if self._covered is None else await self._covered(value)), "json")

    async def get(self, reference: str | Mapping[str, Any]) -> Any:
        """What was put: bytes, or the JSON value. A bare hash gives bytes. Raises `KeyError` if it is not there."""
        if isinstance(reference, str):
            reference = {"ref": reference, "kind": "bytes"}
        ref, kind = str(reference["ref"]), reference.get("kind")
        blob = await patiently(lambda: self._store.get_blob(ref, kind="artifact"))
        return loads(blob) if kind == "json" else blob

    async def upsert_partial(self, batch_uid: str, meta: Mapping[str, Any]) -> dict[str, str]:
        """Note a batch as done; the answer names it."""
        self.partials[batch_uid] = dict(meta)
        return {"task_id": self._task_id, "node_id": self._node_id, "batch_uid": batch_uid}

    async def mark_complete(self, meta: Mapping[str, Any], artifacts_ref: Any = None) -> dict[str, str]:
        """Note the node as done; the answer names it."""
        return {"task_id": self._task_id, "node_id": self._node_id}

    async def _put(self, blob: bytes, kind: str) -> dict[str, Any]:
        ref = hashlib.sha256(blob).hexdigest()
        await patiently(lambda: self._store.put_blob(ref, blob, kind="artifact", for_task=self._task_id))
        return {"ref": ref, "size": len(blob), "kind": kind}
