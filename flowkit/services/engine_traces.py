"""What the engine has recorded of tasks, as traces by the names of the predecessors: one for each attempt of a node."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

from flowkit.backend import Backend
from flowkit.coordinator.graphs import Graphs
from flowkit.coordinator.history import History
from flowkit.core.graph import Graph
from flowkit.errors import TaskNotFound
from flowkit.npu_control import DONE, ERROR
from flowkit.ports import Clock, Head, HeadFilter
from flowkit.services import codes, fcb
from flowkit.telemetry import Telemetry
from flowkit.trace.log_reader import LogReader
from flowkit.trace.task_trace import AttemptTrace, Recorded, TaskTrace, Values, read_trace, read_values
from flowkit.trace.traces import in_slices

STATUS: Final = {"succeeded": DONE, "failed": ERROR, "lost": ERROR, "cancelled": "CANCELLED", "running": "RUNNING"}
MOST_LINES: Final = 1000
MOST_ROWS: Final = 1000
LOOKED_AT: Final = 100
REMEMBERED: Final = 10_000
HIDDEN: Final = frozenset({fcb.ROUTE})


class EngineTraces:
    """Reads a started backend's store. Raises `StoreUnavailable`."""

    def __init__(self, backend: Backend, clock: Clock, telemetry: Telemetry, *, tenant: str = "default") -> None:
        self._store = backend.store
        self._tenant = tenant
        self._history = History(backend.store, Graphs(backend.store, clock), telemetry)
        self._logs = LogReader(backend.store, backend.logs, clock, tenant=tenant)
        self._flow_of: OrderedDict[str, str] = OrderedDict()

    async def flows(self, limit: int) -> list[Head]:
        """The newest tasks that are nobody's children; they may lag by a second."""
        return await self._store.list_heads(HeadFilter(self._tenant, parent=""), limit=limit)

    async def rows(self, flow_id: str, *, most: int = MOST_ROWS) -> tuple[list[dict[str, Any]], int]:
        """The traces of a flow, the first `most` of them, and how many there are. Raises `TaskNotFound`."""
        rows: list[dict[str, Any]] = []
        count = 0
        async for task in self._tasks(flow_id):
            attempts = [one for one in task.trace.attempts if not one.child and one.record.base not in HIDDEN]
            count += len(attempts)
            lines = await self._lines(task.trace.task_id) if attempts and len(rows) < most else {}
            for attempt in attempts[: most - len(rows)]:
                row = await self._row(flow_id, len(rows) + 1, task, attempt)
                rows.append({**row, "logs": lines.get((attempt.node, attempt.attempt), [])})
                self._remember(row["runner_id"], flow_id)
        return rows, count

    async def states(self, flow_id: str) -> dict[str, dict[str, Any]]:
        """How each node of a flow is: the state of its last run, and how many it had since the flow was (re)started.
        Raises `TaskNotFound`."""
        states: dict[str, dict[str, Any]] = {}
        async for task in self._tasks(flow_id, again=False):
            for step in task.steps.values():
                states.setdefault(step["name"], {"state": "pending", "runs": 0})
            for attempt in task.attempts(again=False):
                base = attempt.record.base
                if not attempt.child and base not in HIDDEN:
                    state = states.setdefault(task.steps.get(base, {}).get("name", base), {"state": "", "runs": 0})
                    state["state"] = STATUS.get(attempt.record.outcome, attempt.record.outcome)
                    state["runs"] += 1
        return states

    async def find(self, runner_id: str) -> dict[str, Any] | None:
        """The trace of a run, where it is of one of the newest hundred flows, or was shown lately."""
        flows = [head.task_id for head in await self.flows(LOOKED_AT)]
        known = self._flow_of.get(runner_id)
        for flow_id in [known, *flows] if known else flows:
            try:
                rows, _ = await self.rows(flow_id)
            except TaskNotFound:
                continue  # it was deleted meanwhile
            for row in rows:
                if row["runner_id"] == runner_id:
                    return row
        return None

    # ------------------------------------------------------------------------------------------ how

    async def _tasks(self, flow_id: str, *, again: bool = True) -> AsyncIterator[_Task]:
        """The task, and those that its attempts were, in the order in which they began; `again`: those from before a
        restart too."""
        pending = [flow_id]
        while pending:
            task_id = pending.pop(0)
            try:
                task = await self._load(task_id)
            except TaskNotFound:
                if task_id == flow_id:
                    raise
                continue  # a child is announced before it is there, and may be deleted by itself
            yield task
            pending = [attempt.child for attempt in task.attempts(again=again) if attempt.child] + pending

    async def _load(self, task_id: str) -> _Task:
        past = (await self._history.load([task_id], whole=True)).get(task_id)
        if past is None or past.task is None or past.first is None or past.head.tenant != self._tenant:
            raise TaskNotFound(f"there is no flow {task_id!r}")
        recorded = Recorded(past.head, past.first, await self._history.editions(past.commits), past.commits)
        return _Task(recorded, await in_slices(read_trace(recorded)))

    async def _row(self, flow_id: str, sequence: int, task: _Task, attempt: AttemptTrace) -> dict[str, Any]:
        record = attempt.record
        found = await in_slices(read_values(task.recorded, attempt.node, attempt.attempt))
        values = found.get((attempt.node, attempt.attempt), Values())
        step = task.steps.get(record.base, {})
        name = f"{record.task_id}/{attempt.node}/{attempt.attempt}"
        runner_id = str(uuid.uuid5(uuid.NAMESPACE_OID, name))
        source, inputs = _code_of(task.recorded.graph, record.base, values)
        status = STATUS.get(record.outcome, record.outcome)
        return {
            "trace_id": runner_id, "flow_id": flow_id, "flow_lvl": step.get("flow_lvl"), "sequence": sequence,
            "node_name": step.get("name", attempt.node), "runner_id": runner_id, "code_base64": codes.encode(source),
            "status": status, "inputs": inputs, "outputs": _outputs(attempt, values, status),
            "error": attempt.error, "usage": record_times(attempt),
        }  # fmt: skip

    async def _lines(self, task_id: str) -> dict[tuple[str, int], list[str]]:
        page = await self._logs.page(task_id, limit=MOST_LINES)
        lines: dict[tuple[str, int], list[str]] = {}
        for line in page.lines:
            lines.setdefault((line.node_id, line.attempt), []).append(f"[{line.level.upper()}] {line.message}")
        return lines

    def _remember(self, runner_id: str, flow_id: str) -> None:
        self._flow_of[runner_id] = flow_id
        while len(self._flow_of) > REMEMBERED:
            self._flow_of.popitem(last=False)


class _Task:
    """A task as it is recorded, and what is known of the nodes of a Flow Control Block in it."""

    def __init__(self, recorded: Recorded, trace: TaskTrace) -> None:
        self.recorded = recorded
        self.trace = trace
        steps = recorded.graph.meta.get(fcb.LABEL)
        self.steps: Mapping[str, dict[str, Any]] = steps if isinstance(steps, dict) else {}

    def attempts(self, *, again: bool) -> Iterator[AttemptTrace]:
        """All attempts, or those since it was last restarted."""
        for attempt in self.trace.attempts:
            if again or attempt.record.generation == self.trace.generation:
                yield attempt


def record_times(attempt: AttemptTrace) -> dict[str, Any]:
    """When it was, and how long it waited, was queued and ran (seconds)."""
    record = attempt.record
    return {
        "ready_at": record.ready_at, "started_at": record.leased_at,
        "ended_at": record.ended_at if attempt.ended else None, "waited_sec": round(record.waited_sec, 6),
        "queued_sec": round(record.queued_sec, 6), "run_sec": round(record.run_sec, 6), "attempt": record.attempt,
        "worker": record.worker,
    }  # fmt: skip


def _code_of(graph: Graph, base: str, values: Values) -> tuple[str, Any]:
    """The text of a node's code, and its inputs."""
    node = graph.nodes.get(base)
    inputs = values.inputs
    if node is None:
        return "", inputs
    if node.type == fcb.RUN and isinstance(inputs, dict):
        return str(inputs.get("code", "")), inputs.get("inputs")
    code = node.code or (node.body.code if node.body is not None else None)
    return (code.source if code is not None else ""), inputs


def _outputs(attempt: AttemptTrace, values: Values, status: str) -> dict[str, Any]:
    output = values.output
    whole = isinstance(output, dict) and output.keys() == {"nodes", "outputs", "message"}
    said = dict(output) if whole else {"nodes": list(attempt.next or ()), "outputs": output, "message": ""}
    if attempt.error is not None:
        said |= {"nodes": [], "outputs": {}, "message": str(attempt.error.get("message", ""))}
    return {**said, "status": status}
