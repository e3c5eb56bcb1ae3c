"""Answers what decisions must ask the store before they can be made, and keeps outputs for those that come later."""

from __future__ import annotations

import asyncio
import hashlib
from base64 import b64decode, b64encode
from typing import Any

from flowkit.coordinator.artifacts import materialise
from flowkit.coordinator.cell import Cell, Item
from flowkit.coordinator.engine import Engine
from flowkit.core.effects import Keep, LookUp, Question
from flowkit.core.payload import Artifact, Payload
from flowkit.core.reports import Fetched, Looked
from flowkit.errors import Corrupt, StoreUnavailable
from flowkit.ports import Clock, Kept, Store
from flowkit.service import Supervisor
from flowkit.telemetry import Telemetry
from flowkit.wire.codec import dumps, loads

MOST_AT_ONCE = 16
RETRY_SEC = 0.5
LARGE_CHARS = 40 * 1024
MOST_CHARS = 1024 * 1024
"""An output that takes up more is not kept: it would be read, whole, for every node that comes with its key."""
BYTES = "bytes:"
"""So begins what is kept of an output that is bytes, in Base64; no JSON begins like that."""


class Answers:
    """Asks once for each question of a task, and again for as long as the store does not answer."""

    def __init__(self, store: Store, clock: Clock, engine: Engine, supervisor: Supervisor,
                 telemetry: Telemetry) -> None:  # fmt: skip
        self._store = store
        self._clock = clock
        self._telemetry = telemetry
        self._engine = engine
        self._supervisor = supervisor
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)
        self._asked: set[tuple[Cell, Question]] = set()
        engine.on_question = self.ask
        engine.on_output = self.keep

    def ask(self, cell: Cell, question: Question) -> None:
        if (cell, question) not in self._asked:
            self._asked.add((cell, question))
            self._supervisor.spawn(self._answer(cell, question), "answer")

    async def _answer(self, cell: Cell, question: Question) -> None:
        try:
            while not cell.dead:
                try:
                    async with self._slots:
                        report = await self._look(cell, question)
                except StoreUnavailable:
                    await asyncio.sleep(RETRY_SEC)
                    continue
                self._asked.discard((cell, question))
                if not cell.dead:
                    self._engine.feed(cell, Item(report))
                    self._engine.pump_dirty()
                return
        finally:
            self._asked.discard((cell, question))

    async def _look(self, cell: Cell, question: Question) -> Fetched | Looked:
        if isinstance(question, LookUp):
            return Looked(question.node, question.key, await self._kept(cell, question.key))
        if question.kind != "json":
            return Fetched(question.ref, error="it holds bytes, and no value that a decision can look at")
        value: Any = None
        try:
            value = loads(await self._store.get_blob(question.ref, kind="artifact"))
        except KeyError:
            return Fetched(question.ref, error="it is not in the store any more")
        except Corrupt as error:
            return Fetched(question.ref, error=str(error))
        return Fetched(question.ref, value)

    # ------------------------------------------------------------------------------------------ outputs that are kept

    async def _kept(self, cell: Cell, key: str) -> Payload | None:
        kept = await self._store.find_kept(key, self._clock.wall())
        if kept is None:
            return None
        if kept.body.startswith(BYTES):
            return await self._stored(cell, b64decode(kept.body[len(BYTES) :]), "bytes")
        if len(kept.body) <= LARGE_CHARS:
            return Payload(loads(kept.body))
        return await self._stored(cell, kept.body.encode(), "json")

    async def _stored(self, cell: Cell, data: bytes, kind: str) -> Payload:
        ref = hashlib.sha256(data).hexdigest()
        await self._store.put_blob(ref, data, kind="artifact", for_task=cell.task_id)
        return Payload(None, Artifact(ref, len(data), kind))

    def keep(self, effect: Keep) -> None:
        """Keep an output: in the background, and for nobody's harm if that fails."""
        self._supervisor.spawn(self._keep(effect), "keep-output")

    async def _keep(self, effect: Keep) -> None:
        try:
            value = await materialise(self._store, effect.output.get())
            body = BYTES + b64encode(value).decode() if isinstance(value, bytes) else dumps(value).decode()
            if len(body) <= MOST_CHARS:
                await self._store.keep(Kept(effect.key, body, self._clock.wall() + effect.ttl_sec))
            else:
                self._telemetry.count("outputs_too_large_to_keep")
        except (StoreUnavailable, Corrupt):
            self._telemetry.count("outputs_not_kept")
