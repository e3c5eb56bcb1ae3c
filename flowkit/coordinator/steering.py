"""What users ask of tasks that there are: requests, durable once they are asked, answered by whoever coordinates."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Unpack

from flowkit.coordinator.admission import (
    Admission,
    checked_grace,
    checked_moment,
    checked_params,
    checked_payload,
    plain_reason,
)
from flowkit.coordinator.asking import Asking
from flowkit.coordinator.child_plans import ChildPlans
from flowkit.coordinator.graphs import Graphs
from flowkit.coordinator.hub import Hub
from flowkit.coordinator.schemas import check_signal
from flowkit.coordinator.states import States
from flowkit.core.graph import Graph
from flowkit.core.problems import shown
from flowkit.core.replan import RestartOptions, RestartPlan, in_time, plan_restart
from flowkit.errors import GraphError, Problem, RequestRefused, TaskNotFound, did_you_mean
from flowkit.ports import DELETED, Clock, Request, Store
from flowkit.wire.codec import dumps

ANSWER_SEC = 10.0


class Steering:
    """For one tenant's principal. `listen` begins to hear of a task that another coordinator owns."""

    def __init__(self, *, store: Store, clock: Clock, graphs: Graphs, admission: Admission, states: States, hub: Hub,
                 asking: Asking, child_plans: ChildPlans, listen: Callable[[str], Awaitable[None]],
                 cancel_grace_sec: float, tenant: str, principal: str) -> None:  # fmt: skip
        self._store = store
        self._clock = clock
        self._graphs = graphs
        self._admission = admission
        self._states = states
        self._hub = hub
        self._asking = asking
        self._child_plans = child_plans
        self._listen = listen
        self._cancel_grace_sec = cancel_grace_sec
        self.tenant = tenant
        self._principal = principal

    async def cancel(self, task_id: str, *, node_id: str | None = None, reason: str = "user_request",
                     grace_sec: float | None = None) -> bool:  # fmt: skip
        """Ask to cancel a task, or one node of it. Returns once the request is durable; False for an unknown task."""
        args = {
            "node_id": node_id,
            "reason": plain_reason(reason),
            "grace_sec": self._cancel_grace_sec if grace_sec is None else checked_grace(grace_sec),
        }
        try:
            await self._request(task_id, "cancel", args)
        except TaskNotFound:
            return False
        return True

    async def pause(self, task_id: str, *, node_id: str | None = None, reason: str = "") -> bool:
        """Place no more nodes of this task, or do not start this one; what runs goes on. True once it is applied; False
        where no coordinator answered in time: the request is durable, and will be. Raises `RequestRefused`."""
        args = {"reason": plain_reason(reason), "node_id": node_id}
        return await self._request_and_wait(task_id, "pause", args)

    async def resume(self, task_id: str, *, node_id: str | None = None) -> bool:
        """Undo `pause`. Answers as it does."""
        return await self._request_and_wait(task_id, "resume", {"node_id": node_id})

    async def signal(self, task_id: str, name: str, payload: Any = None) -> bool:
        """Give a signal to the node that waits for it, or will. Answers as `pause` does. Raises `RequestRefused` where
        no node can take it any more, `GraphError` for a payload that is not JSON or does not fit the node's schema."""
        checked = checked_payload(payload)
        _, task, _ = await self._states.state(task_id)
        check_signal(task, name, checked)
        return await self._request_and_wait(task_id, "signal", {"name": name, "payload": checked})

    async def restart(self, task_id: str, **options: Unpack[RestartOptions]) -> bool:
        """Run an ended task again. Answers as `pause` does. Raises `GraphError` for what is wrong with the options."""
        args, _ = await self._restart_args(task_id, options, for_task=task_id)
        return await self._request_and_wait(task_id, "restart", args)

    async def plan_restart(self, task_id: str, **options: Unpack[RestartOptions]) -> RestartPlan:
        """What `restart` with the same options would do; nothing is done."""
        args, edited = await self._restart_args(task_id, options)
        _, task, _ = await self._states.state(task_id)
        plan = in_time(task, plan_restart(task, args, edited), args, edited, self._clock.wall())
        return await self._child_plans.add(task, plan)

    async def _restart_args(
        self, task_id: str, options: RestartOptions, *, for_task: str = ""
    ) -> tuple[dict[str, Any], Graph | None]:
        _check_options(options)
        args: dict[str, Any] = {
            "from_node": options.get("from_node"),
            "failed_only": bool(options.get("failed_only")),
        }
        graph, params, inputs = options.get("graph"), options.get("params"), options.get("inputs")
        edited: Graph | None = None
        if options.get("deadline") is not None:
            args["deadline"] = checked_moment(options["deadline"])
        if params is not None:
            args["params"], _ = checked_params(params)
        if inputs:
            graph = await self._with_inputs(task_id, graph, inputs)
        if graph is not None:
            args["graph_ref"], edited = await self._graphs.take(graph, for_task=for_task)
            head, _, _ = await self._states.state(task_id)
            await self._admission.check_code(args["graph_ref"], edited, self.tenant, head.flow)
        return args, edited

    async def _with_inputs(self, task_id: str, graph: Any, inputs: Mapping[str, Any]) -> Any:
        """The graph, the task's own if none is given, with other inputs of some nodes. Raises `GraphError`."""
        if graph is None:
            head, task, _ = await self._states.state(task_id)
            graph = await self._graphs.written(task.edition or head.graph_ref)
        if not isinstance(inputs, Mapping):
            raise GraphError([Problem("E_TYPE", "inputs", f"expected inputs by node id, found {shown(inputs)}")])
        if not isinstance(graph, Mapping):
            raise GraphError([Problem("E_TYPE", "graph", f"a graph is an object with `nodes`; found {shown(graph)}")])
        nodes = [dict(node) for node in graph.get("nodes", ()) if isinstance(node, Mapping)]
        known = {node.get("node_id"): node for node in nodes}
        problems = [
            Problem("E_NODE_UNKNOWN", f"inputs[{name!r}]", f"no node {name!r}{did_you_mean(name, map(str, known))}")
            for name in inputs
            if name not in known
        ]
        if problems:
            raise GraphError(problems)
        for name, value in inputs.items():
            known[name]["inputs"] = value
        return {**graph, "nodes": nodes}

    async def _request_and_wait(self, task_id: str, kind: str, args: dict[str, Any]) -> bool:
        await self._listen(task_id)
        listener = self._hub.listen(task_id)
        try:
            request = await self._request(task_id, kind, args)
            deadline = self._clock.mono() + ANSWER_SEC
            while (left := deadline - self._clock.mono()) > 0:
                _, task, _ = await self._states.state(task_id)
                if task.applied >= request.n:
                    break
                await listener.next(min(left, 1.0))
            else:
                return False
        finally:
            listener.close()
        why = task.refusals.get(request.n)
        if why is not None:
            raise RequestRefused(f"task {task_id} cannot be {_PAST[kind]}: {why}")
        return True

    async def _request(self, task_id: str, kind: str, args: dict[str, Any]) -> Request:
        """Write a request down behind those there are, and ring. Raises `TaskNotFound`, `StoreUnavailable`."""
        heads = [head for head in await self._store.read_heads([task_id]) if head.status != DELETED]
        self._states.check_tenant(heads[0] if heads else None, task_id)
        return await self._asking.ask(
            Request(
                task_id,
                1,
                uuid.uuid4().hex,
                kind,
                dumps(args).decode(),
                heads[0].partition,
                self.tenant,
                self._principal,
                self._clock.wall(),
            )
        )


_PAST = {
    "pause": "paused", "resume": "resumed", "restart": "restarted", "cancel": "cancelled", "signal": "signalled",
}  # fmt: skip


def _check_options(options: Mapping[str, Any]) -> None:
    """Raises `TypeError` for an option that there is none of, as for any misspelt argument: the whole task would run
    again. Raises `GraphError` where two contradict each other."""
    known = RestartOptions.__annotations__
    for name in options:
        if name not in known:
            hint = did_you_mean(name, known)
            raise TypeError(f"a restart has no option {name!r}{hint}; there are {', '.join(sorted(known))}")
    if options.get("from_node") is not None and options.get("failed_only"):
        say = "give a node to start from, or failed_only, not both"
        raise GraphError([Problem("E_KEY_CONFLICT", "from_node", say)])
