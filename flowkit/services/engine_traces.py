"""What the engine has recorded of tasks, as traces by the names of the predecessors: one for each attempt of a node."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Final

from flowkit.backend import Backend
from flowkit.coordinator.graphs import Graphs
from flowkit.coordinator.history import History
from flowkit.core.graph import Graph
from flowkit.errors import TaskNotFound
from flowkit.npu_control import DONE, ERROR
from flowkit.ports import Clock, Head, HeadFilter
from flowkit.services import codes, fcb
from flowkit.slices import in_slices
from flowkit.telemetry import Telemetry
from flowkit.trace.log_reader import LogReader
from flowkit.trace.task_trace import AttemptTrace, Recorded, TaskTrace, Values, read_trace, read_values_of
from flowkit.wire.logs import LogLine

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
            attempts = list(task.attempts())
            rows += await self._rows(flow_id, count + 1, task, attempts[: max(0, most - len(rows))])
            count += len(attempts)
        for row in rows:
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
                name = task.steps.get(attempt.record.base, {}).get("name", attempt.record.base)
                state = states.setdefault(name, {"state": "", "runs": 0})
                state["state"] = STATUS.get(attempt.record.outcome, attempt.record.outcome)
                state["runs"] += 1
        return states

    async def find(self, runner_id: str) -> dict[str, Any] | None:
        """The trace of a run, where it is of one of the newest hundred flows, or was shown lately."""
        flows = [head.task_id for head in await self.flows(LOOKED_AT)]
        known = self._flow_of.get(runner_id)
        for flow_id in [known, *flows] if known else flows:
            try:
                if found := await self._find_in(flow_id, runner_id):
                    return found
            except TaskNotFound:
                continue  # it was deleted meanwhile
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
            pending = task.children(again=again) + pending

    async def _load(self, task_id: str) -> _Task:
        past = (await self._history.load([task_id], whole=True)).get(task_id)
        if past is None or past.task is None or past.first is None or past.head.tenant != self._tenant:
            raise TaskNotFound(f"there is no flow {task_id!r}")
        recorded = Recorded(past.head, past.first, await self._history.editions(past.commits), past.commits)
        return _Task(recorded, await in_slices(read_trace(recorded)))

    async def _find_in(self, flow_id: str, runner_id: str) -> dict[str, Any] | None:
        count = 0
        async for task in self._tasks(flow_id):
            for attempt in task.attempts():
                count += 1
                if runner_id_of(attempt) == runner_id:
                    return (await self._rows(flow_id, count, task, [attempt]))[0]
        return None

    async def _rows(
        self, flow_id: str, first: int, task: _Task, attempts: Sequence[AttemptTrace]
    ) -> list[dict[str, Any]]:
        if not attempts:
            return []
        keys = [(attempt.node, attempt.attempt) for attempt in attempts]
        values = await in_slices(read_values_of(task.recorded, keys))
        lines = await self._lines(task.trace.task_id)
        return [
            {**_row(flow_id, number, task, attempt, values.get(key, Values())), "logs": lines.get(key, [])}
            for number, (key, attempt) in enumerate(zip(keys, attempts, strict=True), first)
        ]

    async def _lines(self, task_id: str) -> dict[tuple[str, int], list[str]]:
        page = await self._logs.page(task_id, limit=MOST_LINES)
        lines: dict[tuple[str, int], list[str]] = {}
        for line in page.lines:
            lines.setdefault((line.node_id, line.attempt), []).append(_said(line))
        if page.cursor is not None:
            last = page.lines[-1]
            more = f"[...] there are more lines: flowkit tasks logs {task_id}"
            lines[last.node_id, last.attempt].append(more)
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

    def attempts(self, *, again: bool = True) -> Iterator[AttemptTrace]:
        """Those of its own nodes; without `again`, those since it was last restarted."""
        for attempt in self._all(again):
            if not attempt.child and attempt.record.base not in HIDDEN:
                yield attempt

    def children(self, *, again: bool) -> list[str]:
        """The tasks that its attempts were."""
        return [attempt.child for attempt in self._all(again) if attempt.child]

    def _all(self, again: bool) -> Iterator[AttemptTrace]:
        for attempt in self.trace.attempts:
            if again or attempt.record.generation == self.trace.generation:
                yield attempt


def _said(line: LogLine) -> str:
    """A line with its level, which those that units pass on have already."""
    return (
        line.message
        if line.message.startswith(f"[{line.level.upper()}][")
        else f"[{line.level.upper()}] {line.message}"
    )


def runner_id_of(attempt: AttemptTrace) -> str:
    """The id of a run, as its program is told it."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{attempt.record.task_id}/{attempt.node}/{attempt.attempt}"))


def _row(flow_id: str, sequence: int, task: _Task, attempt: AttemptTrace, values: Values) -> dict[str, Any]:
    step = task.steps.get(attempt.record.base, {})
    runner_id = runner_id_of(attempt)
    source, inputs = _code_of(task.recorded.graph, attempt.record.base, values)
    status = STATUS.get(attempt.record.outcome, attempt.record.outcome)
    return {
        "trace_id": runner_id, "flow_id": flow_id, "flow_lvl": step.get("flow_lvl"), "sequence": sequence,
        "node_name": step.get("name", attempt.node), "runner_id": runner_id, "code_base64": codes.encode(source),
        "status": status, "inputs": inputs, "outputs": _outputs(attempt, values, status), "error": attempt.error,
        "usage": _times_of(attempt),
    }  # fmt: skip


def _times_of(attempt: AttemptTrace) -> dict[str, Any]:
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
