"""Sub-graphs as tasks of their own: makes sure that each exists, steers it along with its parent, and tells the parent
how it ended.

All of it may be done twice, and what a crash leaves undone is found by looking at the children of a task that is
loaded, and now and then of those in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from flowkit.coordinator.admission import checked_params
from flowkit.coordinator.artifacts import answered, materialise, output_of_ended
from flowkit.coordinator.asking import Asking
from flowkit.coordinator.cell import Cell, Item
from flowkit.coordinator.engine import Engine
from flowkit.coordinator.flows import Flows
from flowkit.coordinator.going_on import UNMADE, GoingOn, goes_on, was_not_asked
from flowkit.coordinator.graphs import Graphs
from flowkit.coordinator.history import History, Past
from flowkit.core.code_policy import NOTHING_SAID, CodePolicies, inherited, own_rules
from flowkit.core.effects import Continue, Spawn, Steer
from flowkit.core.graph import Graph
from flowkit.core.lifecycle import told_to_end
from flowkit.core.model import ENDED_TASK, Task, TaskStatus, earlier
from flowkit.core.payload import Artifact, Payload, holds_artifacts
from flowkit.core.reports import ChildEnded, ChildGone
from flowkit.core.settling import continue_of, spawn_of
from flowkit.errors import Corrupt, ExprError, FlowKitError, FlowNotFound, GraphError, InputError, StoreUnavailable
from flowkit.ports import DELETED, Bus, Clock, Head, Outcome, Record, Store
from flowkit.service import Supervisor
from flowkit.wire.codec import dumps
from flowkit.wire.messages import Knock, Told, encode_facts_batch
from flowkit.wire.topics import Topics, partition_of

DEEPEST = 32
BATCH = 250
LARGE_BYTES = 40 * 1024
CHECK_EVERY_SEC = 60.0
HEADS_SEC = 3.0
"""So long after a task was loaded its children are checked once more: their heads may not have told the latest."""
TELL_TRIES = 240
RETRY_SEC = 0.5
EXISTS_TRIES = 20
MOST_MISSES = 4
"""So often a flow is looked for again that is not there: the one who is asked may not have seen yet that it was put."""


Chosen = tuple[str, tuple[str, Graph]]
"""A flow's version, or nothing; and the graph."""


@dataclass(frozen=True, slots=True)
class Born:
    """A child that is about to be, and whose it is."""

    cell: Cell
    spawn: Spawn
    head: Head
    graph: Graph


class Children:
    def __init__(
        self,
        *,
        store: Store,
        bus: Bus,
        clock: Clock,
        topics: Topics,
        graphs: Graphs,
        history: History,
        engine: Engine,
        asking: Asking,
        supervisor: Supervisor,
        flows: Flows,
        policies: CodePolicies = NOTHING_SAID,
    ) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._topics = topics
        self._graphs = graphs
        self._history = history
        self._engine = engine
        self._asking = asking
        self._supervisor = supervisor
        self._flows = flows
        self._policies = policies
        self._wanted: deque[tuple[Cell, Spawn | Continue]] = deque()
        self._wake = asyncio.Event()
        self._checked: dict[str, float] = {}
        self._misses: dict[str, int] = {}
        self._going_on = GoingOn(
            store=store, clock=clock, history=history, asking=asking, again=self._again, gone=self._feed
        )
        engine.on_child_effect = self.carry_out
        engine.on_child_end = self.tell_parent
        engine.on_parent_loaded = self._check_soon

    # ------------------------------------------------------------------------------------------ effects

    def carry_out(self, cell: Cell, effect: Spawn | Continue | Steer) -> None:
        if not isinstance(effect, Steer):
            self._wanted.append((cell, effect))
            cell.unborn += 1
            self._checked.setdefault(cell.task_id, self._clock.mono())
            self._wake.set()
        else:
            self._supervisor.spawn(self._steer(cell, effect), "steer-child")

    async def step(self) -> None:
        """Wait for children that are wanted, and bring a batch of them into being, or ask them to go on."""
        await self._wake.wait()
        batch = [self._wanted.popleft() for _ in range(min(BATCH, len(self._wanted)))]
        if not self._wanted:
            self._wake.clear()
        born: list[Born] = []
        asked: list[tuple[Cell, Continue]] = []
        known: dict[object, Chosen] = {}
        for cell, effect in batch:
            cell.unborn -= 1
            misses = self._misses.pop(effect.child, 0)
            if cell.dead or cell.head is None:
                continue  # whoever loads the task looks for its children
            if isinstance(effect, Continue):
                asked.append((cell, effect))
                continue
            try:
                born.append(Born(cell, effect, *await self._head(cell, cell.head, effect, known)))
            except StoreUnavailable:
                self._again(cell, effect)
            except FlowNotFound as error:
                if misses >= MOST_MISSES:
                    self._refused(cell, effect, error)
                else:
                    self._misses[effect.child] = misses + 1
                    self._again(cell, effect)
            except FlowKitError as error:
                self._refused(cell, effect, error)
        await self._insert(born)
        await self._going_on.ask_all(asked)

    async def _head(self, cell: Cell, parent: Head, spawn: Spawn, known: dict[object, Chosen]) -> tuple[Head, Graph]:
        """The head of a child. `known` are the graphs of those made together: most are of one. Raises what makes it
        impossible."""
        if parent.depth + 1 > DEEPEST:
            raise InputError(f"tasks stand more than {DEEPEST} deep inside each other", code="too_deep")
        what = spawn.node.flow if spawn.node.child is None else id(spawn.node.child)
        key = parent.tenant, parent.flow, what
        if key not in known:
            known[key] = await self._graph(cell, parent, spawn)
        flow, (ref, graph) = known[key]
        params = await materialise(self._store, spawn.inputs) if holds_artifacts(spawn.inputs) else spawn.inputs
        _, text = checked_params(params)
        now = self._clock.wall()
        head = Head(
            task_id=spawn.child, partition=partition_of(spawn.child, self._topics.partitions), graph_ref=ref,
            params=text, tenant=parent.tenant, principal=parent.principal, name=graph.name,
            labels=parent.labels, priority=parent.priority, created_at=now, next_wake=now, updated_at=now, flow=flow,
            parent=parent.task_id, parent_node=spawn.name, parent_attempt=spawn.attempt, depth=parent.depth + 1,
            deadline=spawn.deadline, traceparent=self._traceparent(parent, spawn),
            timeout_sec=earlier(spawn.node.timeouts.run_sec, graph.timeout_sec),
        )  # fmt: skip
        return head, graph

    def _traceparent(self, parent: Head, spawn: Spawn) -> str:
        """A child belongs to its parent's trace."""
        propagation = self._engine.telemetry.propagation
        return parent.traceparent if propagation is None else propagation.of_child(parent, spawn.name, spawn.attempt)

    async def _graph(self, cell: Cell, parent: Head, spawn: Spawn) -> Chosen:
        if spawn.node.child is not None:
            # What is said of a flow is said of the graphs in it; as tasks of their own they are of no flow.
            own = () if cell.task is None else own_rules(cell.task.graph.policy)
            rules = (*self._policies.of_flow(parent.flow), *own) if parent.flow else own
            return "", await self._graphs.take(inherited(spawn.node.child, rules), accepted=True)
        pinned = await self._flows.resolve(parent.tenant, spawn.node.flow)
        return str(pinned), (pinned.graph_ref, await self._graphs.get(pinned.graph_ref))

    async def _insert(self, born: Sequence[Born]) -> None:
        if not born:
            return
        outcomes = await self._store.insert_heads([one.head for one in born])
        away: dict[int, list[Head]] = {}
        for one, outcome in zip(born, outcomes, strict=True):
            if outcome is Outcome.UNKNOWN:
                self._again(one.cell, one.spawn)
            elif one.head.partition not in self._engine.owned:
                away.setdefault(one.head.partition, []).append(one.head)
            elif outcome is Outcome.OK:
                self._engine.adopt(one.head, one.graph)
            else:  # there since a try whose answer got lost: nobody may have been told
                self._engine.get(one.head.task_id, one.head.partition)
        self._engine.pump_dirty()
        for partition, heads in away.items():
            self._asking.knock(partition, [Knock(h.task_id, h.tenant, "new") for h in heads], heads[0].principal)

    def _again(self, cell: Cell, spawn: Spawn | Continue) -> None:
        """Try once more in a moment."""

        async def later() -> None:
            await asyncio.sleep(RETRY_SEC)
            if cell.dead:
                self._misses.pop(spawn.child, None)
            else:
                self.carry_out(cell, spawn)

        self._supervisor.spawn(later(), "spawn-again")

    def _refused(self, cell: Cell, spawn: Spawn, error: FlowKitError) -> None:
        code = error.code if not isinstance(error, GraphError) else "bad_graph"
        info = {"code": code, "message": str(error)[:1000]}
        self._feed(cell, ChildEnded(spawn.name, spawn.attempt, spawn.child, "failed", Payload(), info))

    async def _steer(self, cell: Cell, effect: Steer) -> None:
        """Ask a child what its parent was asked. That it has ended already, or does not exist yet, is found out by
        whoever looks after the children."""
        head = await self._existing(cell, effect.child)
        later = head is not None and head.parent_attempt != effect.attempt
        if head is None or head.status == DELETED or (head.status in ENDED_TASK and not later):
            return
        if later and not await self._going_on.was_asked(cell, effect, head):
            return  # whoever looks after the children asks for it
        args = {"reason": effect.reason} if effect.grace_sec is None else {
            "reason": effect.reason, "grace_sec": effect.grace_sec, "node_id": None,
        }  # fmt: skip
        # A cancel is the same however often it is asked; a pause and a resume belong to the commit that asked.
        once = effect.attempt if effect.kind == "cancel" else cell.acked
        request = self._going_on.request(head, f"{effect.kind}-{cell.task_id}-{once}", effect.kind, args)
        async with self._going_on.steering:
            await self._asking.ask(request)

    async def _existing(self, cell: Cell, child: str) -> Head | None:
        """The head of a child, which may be about to be made."""
        for _ in range(EXISTS_TRIES):
            async with self._going_on.steering:
                heads = await self._store.read_heads([child])
            if heads or cell.dead:
                return heads[0] if heads else None
            await asyncio.sleep(RETRY_SEC)
        return None

    # ------------------------------------------------------------------------------------------ ends

    def tell_parent(self, cell: Cell) -> None:
        """A child task ended: its parent is told until it has heard, or somebody else has to."""
        if cell.head is not None and cell.task is not None:
            self._supervisor.spawn(self._tell(cell, cell.head, cell.task, cell.untold), "tell-parent")

    async def _tell(self, cell: Cell, head: Head, task: Task, seq: int) -> None:
        for _ in range(TELL_TRIES):
            if not task.ended:
                break  # it was restarted, and ends anew
            try:
                told = await self._told(head, await self._ending(head, task))
            except StoreUnavailable:
                told = False
            if told:
                self._engine.told(cell, seq)
            if told or cell.dead:
                return
            await asyncio.sleep(RETRY_SEC)
        self._engine.told(cell, seq)  # the parent's owner looks after its children by itself

    async def _told(self, head: Head, report: ChildEnded) -> bool:
        partition = partition_of(head.parent, self._topics.partitions)
        if partition in self._engine.owned:
            self._engine.feed(self._engine.get(head.parent, partition), Item(report, None, head.tenant))
            self._engine.pump_dirty()
            return True
        value = encode_facts_batch(head.principal, "", -1, [Told(head.parent, head.tenant, report)])
        return all(await self._bus.publish([Record(self._topics.facts, partition, value, head.parent.encode())]))

    async def _ending(self, head: Head, task: Task) -> ChildEnded:
        """How a child ended, as its parent is told. Raises `StoreUnavailable`."""
        # At once: a child may go on for another attempt while its output is being read.
        status, attempt, output, error = str(task.status), task.for_attempt, Payload(), task.error
        if task.status is TaskStatus.FINISHED:
            try:
                output = await self._output(task)
            except (Corrupt, InputError, ExprError) as gone:
                status, error = "failed", {"code": gone.code, "message": str(gone)[:1000]}
        return ChildEnded(head.parent_node, attempt, head.task_id, status, output, error)

    async def _output(self, task: Task) -> Payload:
        value = await output_of_ended(self._store, task)
        if isinstance(value, Artifact):
            return Payload(None, value)
        if holds_artifacts(value):
            value = await materialise(self._store, value)
        data = dumps(value)
        if len(data) <= LARGE_BYTES:
            return Payload(value)
        ref = hashlib.sha256(data).hexdigest()
        await self._store.put_blob(ref, data, kind="artifact", for_task=task.task_id)
        return Payload(None, Artifact(ref, len(data), "json"))

    def _feed(self, cell: Cell, report: ChildEnded | ChildGone) -> None:
        if not cell.dead:
            self._engine.feed(cell, Item(report))
            self._engine.pump_dirty()

    # ------------------------------------------------------------------------------------------ looking after

    def _check_soon(self, cell: Cell) -> None:
        """A task was loaded whose children may lack something."""
        self._checked[cell.task_id] = self._clock.mono()
        cell.unborn += 1
        self._supervisor.spawn(self._check_twice(cell), "check-children")

    async def _check_twice(self, cell: Cell) -> None:
        """At once, and when their heads tell the latest; until then the task stays in memory, though nothing moves
        it."""
        try:
            with contextlib.suppress(StoreUnavailable):
                await self._check(cell)
            await asyncio.sleep(HEADS_SEC)
            if not cell.dead:
                await self._check(cell)
        finally:
            cell.unborn -= 1
            self._engine.heads.touch(cell)

    async def look(self) -> None:
        """Check the children of the tasks in memory that were not checked for a while."""
        limit = self._clock.mono() - CHECK_EVERY_SEC
        for task_id, at in list(self._checked.items()):
            cell = self._engine.cells.get(task_id)
            if cell is None or cell.task is None or cell.task.ended:
                del self._checked[task_id]
            elif at < limit and cell.live:
                self._checked[task_id] = self._clock.mono()
                await self._check(cell)
            else:
                self._engine.heads.touch(cell)  # it may leave memory after a while

    async def _check(self, cell: Cell) -> None:
        """Whatever a crash or a lost message left undone about a task's children is done."""
        while cell.live and cell.flight is not None:
            await asyncio.sleep(0.05)
        if not cell.live or cell.task is None:
            return
        children = {child: name for name, child in cell.task.children.items()}
        ids = list(children)
        for start in range(0, len(ids), BATCH):
            part = ids[start : start + BATCH]
            heads = {head.task_id: head for head in await self._store.read_heads(part)}
            over = [child for child in part if child in heads and heads[child].status in ENDED_TASK]
            pasts = await self._history.load(over) if over else {}
            for child in part:
                if cell.task.children.get(children[child]) == child and not cell.dead:
                    await self._look_at(cell, cell.task, children[child], heads.get(child), pasts.get(child))

    async def _look_at(self, cell: Cell, task: Task, name: str, head: Head | None, past: Past | None) -> None:
        run = task.runs[name]
        deleted = head is not None and head.status == DELETED
        if (deleted or goes_on(run)) and (why := await self._going_on.why_not(head, past)):
            self._feed(cell, ChildGone(name, run.attempt, run.child, why))
        elif head is None or (was_not_asked(run, past) and not told_to_end(run)):
            await self._make_again(cell, task, name)
        elif head.status in ENDED_TASK and not was_not_asked(run, past):
            if past is not None and past.task is not None and past.task.ended:
                self._feed(cell, await self._ending(past.head, past.task))
        elif told_to_end(run):
            self.carry_out(cell, Steer(name, run.attempt, head.task_id, "cancel", run.reason, None))
        elif (paused := task.paused or bool(task.held_by(name))) and head.status == TaskStatus.RUNNING:
            self.carry_out(cell, Steer(name, run.attempt, head.task_id, "pause", task.reason))
        elif not paused and head.status == TaskStatus.PAUSED and await self._paused_by(cell, head):
            self.carry_out(cell, Steer(name, run.attempt, head.task_id, "resume", ""))

    async def _make_again(self, cell: Cell, task: Task, name: str) -> None:
        """Make sure of a child once more, as it was when its node began."""
        run = task.runs[name]
        child = run.child

        def again() -> Spawn | Continue:
            return replace(continue_of(task, name), unheard=True) if goes_on(run) else spawn_of(task, name)

        try:
            effect = await answered(self._store, task, again)
            if not cell.dead and task.runs[name].child == child:
                self.carry_out(cell, effect)
        except UNMADE as error:
            info = {"code": "bad_input", "message": f"the child's params cannot be made again: {error}"}
            self._feed(cell, ChildEnded(name, run.attempt, run.child, "failed", Payload(), info))

    async def _paused_by(self, cell: Cell, child: Head) -> bool:
        """Whether a child was paused along with its parent, and not by somebody who meant it alone."""
        asked = [one for one in await self._store.read_requests(child.task_id) if one.kind == "pause"]
        return bool(asked) and asked[-1].id.startswith(f"pause-{cell.task_id}")
