"""Accepts tasks: what `create` returns survives any crash."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flowkit.coordinator.admission import (
    Admission,
    Finding,
    check_options,
    checked_labels,
    checked_moment,
    checked_params,
    checked_traceparent,
)
from flowkit.coordinator.choices import Choices, Chosen
from flowkit.coordinator.creation import Creation
from flowkit.coordinator.deletion import Deletion
from flowkit.coordinator.engine import Engine
from flowkit.coordinator.flows import Flows
from flowkit.coordinator.graphs import Graphs
from flowkit.coordinator.ids import id_of_key, new_id
from flowkit.coordinator.lives import Lives
from flowkit.core import deadlines
from flowkit.core.graph import Graph
from flowkit.core.problems import Problems
from flowkit.errors import IdempotencyConflict, StoreUnavailable
from flowkit.ports import DELETED, Bus, Clock, Head, Outcome, Record, Store
from flowkit.service import Supervisor
from flowkit.wire.codec import dumps
from flowkit.wire.messages import Knock, encode_facts_batch
from flowkit.wire.topics import Topics, partition_of

INSERT_TRIES = 8
INSERT_AT_ONCE = 250
"""Of many tasks that are created together, the first begin while the others are being inserted."""


class Acceptance:
    """For one tenant's principal. `engine` is None in a process that coordinates nothing."""

    def __init__(self, *, store: Store, bus: Bus, clock: Clock, topics: Topics, graphs: Graphs, flows: Flows,
                 admission: Admission, deletion: Deletion, supervisor: Supervisor, tenant: str, principal: str,
                 engine: Engine | None = None) -> None:  # fmt: skip
        self._store = store
        self._bus = bus
        self._clock = clock
        self._topics = topics
        self._graphs = graphs
        self._flows = flows
        self._admission = admission
        self._deletion = deletion
        self._lives = Lives(store, clock)
        self._supervisor = supervisor
        self._tenant = tenant
        self._principal = principal
        self._engine = engine

    async def create(self, creations: Sequence[Creation]) -> list[str]:
        """Accept tasks; what this returns survives any crash. Raises `GraphError`, `FlowNotFound`,
        `IdempotencyConflict`, `StoreUnavailable` (then the tasks may exist all the same: use an idempotency key to ask
        again)."""
        choices = Choices(self._graphs, self._flows)
        findings: dict[str, Finding] = {}
        heads: list[Head] = []
        graphs: list[Graph] = []
        for creation in creations:
            chosen = choices.known(creation.graph, creation.flow)
            if chosen is None:
                chosen = await choices.of(creation.graph, creation.flow)
                findings[chosen.ref] = await self._admission.finding(chosen.ref, chosen.graph)
                await self._admission.check_code(chosen.ref, chosen.graph, self._tenant, chosen.flow)
            graph = chosen.graph
            params, text = checked_params(creation.params)
            self._admission.check_with(findings[chosen.ref], graph, params, creation.targets)
            head = self._head(creation, chosen, text)
            if creation.deadline is not None or graph.deadline is not None or graph.deadlines:
                await self._check_deadlines(creation, graph, params, head)
            heads.append(head)
            graphs.append(graph)
        ids: list[str] = []
        for start in range(0, len(heads), INSERT_AT_ONCE):
            ids += await self._accept(heads[start : start + INSERT_AT_ONCE], graphs[start : start + INSERT_AT_ONCE])
        return ids

    async def _check_deadlines(self, creation: Creation, graph: Graph, params: dict[str, Any], head: Head) -> None:
        """Raise `GraphError` for deadlines that have passed, unless the task was accepted before they did."""
        problems = Problems()
        if creation.deadline is not None:
            deadlines.check_given(creation.deadline, head.created_at, problems)
        deadlines.check(graph, params, head.created_at, problems)
        if problems and not (creation.idempotency_key and await self._store.read_heads([head.task_id])):
            problems.raise_any()

    def _head(self, creation: Creation, chosen: Chosen, params: str) -> Head:
        labels = checked_labels(creation.labels)
        check_options(creation.priority, creation.timeout)
        deadline = None if creation.deadline is None else checked_moment(creation.deadline)
        now, fingerprint = self._clock.wall(), ""
        if creation.idempotency_key is None:
            task_id = new_id(now)
        else:
            task_id = id_of_key(self._tenant, creation.idempotency_key)
            # Of a flow, what was asked for and not what it meant: who asks again after a tag has moved means this task.
            what = chosen.ref if creation.flow is None else {"flow": creation.flow}
            asked = [what, params, creation.priority, sorted(labels.items()), creation.timeout, creation.targets]
            asked += [] if deadline is None else [deadline]
            fingerprint = hashlib.sha256(dumps(asked)).hexdigest()
        return Head(
            task_id=task_id,
            partition=partition_of(task_id, self._topics.partitions),
            graph_ref=chosen.ref,
            params=params,
            tenant=self._tenant,
            principal=self._principal,
            name=chosen.graph.name,
            labels=labels,
            priority=creation.priority,
            targets=tuple(creation.targets),
            timeout_sec=creation.timeout,
            fingerprint=fingerprint,
            created_at=now,
            deadline=deadline,
            flow=chosen.flow,
            next_wake=now,
            updated_at=now,
            traceparent=checked_traceparent(creation.traceparent),
        )

    async def _accept(self, heads: list[Head], graphs: Sequence[Graph]) -> list[str]:
        """Insert the heads; the ids of their tasks, which are others where a key begins anew."""
        first_ids = [head.task_id for head in heads]
        todo = list(range(len(heads)))
        fresh: list[int] = []
        for attempt in range(INSERT_TRIES):
            outcomes = await self._store.insert_heads([heads[i] for i in todo])
            unclear = [i for i, outcome in zip(todo, outcomes, strict=True) if outcome is Outcome.UNKNOWN]
            fresh += [i for i, outcome in zip(todo, outcomes, strict=True) if outcome is Outcome.OK]
            doubles = [i for i, outcome in zip(todo, outcomes, strict=True) if outcome is Outcome.DUPLICATE]
            if doubles:
                unclear += await self._confirm(heads, first_ids, doubles)
            todo = unclear
            if not todo:
                break
            await asyncio.sleep(min(1.0, 0.1 * 2**attempt))
        self._ring([(heads[i], graphs[i]) for i in fresh])
        if todo:
            raise StoreUnavailable(
                f"{len(todo)} of {len(heads)} tasks could not be confirmed; ask again with an idempotency key"
            )
        return [head.task_id for head in heads]

    async def _confirm(self, heads: list[Head], first_ids: Sequence[str], places: Sequence[int]) -> list[int]:
        """A duplicate is one's own earlier try, or the same key used before: only a majority read of the same body is
        a yes. Gives the places of those that are to be inserted again; where the key's task was deleted, as another."""
        asked = [heads[place].task_id for place in places]
        stored = {head.task_id: head for head in await self._store.read_heads(asked)}
        unseen = []
        for place in places:
            head = heads[place]
            found = stored.get(head.task_id)
            if found is None:
                unseen.append(place)
            elif found.status != DELETED and await self._deletion.was_begun(found):
                await self._deletion.finish(found)
                unseen.append(place)
            elif found.status == DELETED:
                task_id = await self._lives.id_now(first_ids[place])
                heads[place] = replace(head, task_id=task_id, partition=partition_of(task_id, self._topics.partitions))
                unseen.append(place)
            elif found.fingerprint != head.fingerprint or found.tenant != head.tenant:
                raise IdempotencyConflict(
                    f"task {head.task_id} was created with this idempotency key before, with another graph, "
                    "other params or other options: use a new key, or ask for exactly the same"
                )
        return unseen

    def _ring(self, accepted: Sequence[tuple[Head, Graph]]) -> None:
        """Tell the owners. Where the owner is this process, nothing needs to travel."""
        away: dict[int, list[Head]] = {}
        for head, graph in accepted:
            if self._engine is not None and head.partition in self._engine.owned:
                self._engine.adopt(head, graph)
            else:
                away.setdefault(head.partition, []).append(head)
        if self._engine is not None:
            self._engine.pump_dirty()
        records = [
            self._knock(partition, [Knock(h.task_id, h.tenant, "new") for h in heads[start : start + 500]])
            for partition, heads in away.items()
            for start in range(0, len(heads), 500)
        ]
        if records:
            self._supervisor.spawn(self._publish(records), "knock")

    def _knock(self, partition: int, items: Sequence[Knock]) -> Record:
        value = encode_facts_batch(self._principal, "", -1, items)
        return Record(self._topics.facts, partition, value, items[0].task_id.encode())

    async def _publish(self, records: Sequence[Record]) -> None:
        await self._bus.publish(records)  # a lost doorbell is the sweeper's business
