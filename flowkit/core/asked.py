"""Answers what users ask of a task: each request is recorded as applied, or refused with the reason."""

from __future__ import annotations

from typing import Any, Final

from flowkit.core import facts as f
from flowkit.core import reports as r
from flowkit.core.desk import CANCEL_GRACE_SEC, Desk
from flowkit.core.effects import Steer
from flowkit.core.graph import Graph
from flowkit.core.lifecycle import all_of
from flowkit.core.model import TaskStatus
from flowkit.core.node_run import ENDED_NODE
from flowkit.core.payload import Payload
from flowkit.core.problems import Problems, shown
from flowkit.core.replan import RestartPlan, going_on, in_time, plan_restart, restarted
from flowkit.core.retry import LONGEST_WAIT_SEC
from flowkit.core.starts import may_be_called

MOST_REASON: Final = 1000
MOST_SIGNALS: Final = 1000


class Asked:
    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.task = desk.task
        self.now = desk.now
        self.decision = desk.decision

    def requested(self, request: r.Requested) -> None:
        task = self.task
        match request.kind:
            case "cancel" if "node_id" in request.args and request.args["node_id"] is not None:
                why = self.refuse_cancel_node(request.args["node_id"])
            case "cancel":
                why = "it has ended already" if task.ended else ""
            case "pause" if request.args.get("node_id") is not None:
                why = self.refuse_hold(request.args["node_id"])
            case "resume" if request.args.get("node_id") is not None:
                name = request.args["node_id"]
                why = "" if name in task.held else f"node {shown(name)} is not paused"
            case "pause":
                why = "" if task.status is TaskStatus.RUNNING else f"it is {task.status}, not running"
            case "resume":
                why = "" if task.status is TaskStatus.PAUSED else f"it is {task.status}, not paused"
            case "signal":
                why = self.refuse_signal(request.args)
            case "restart":
                plan = self.plan(request.args)
                why = plan.refused
            case "continue":
                why = self.refuse_continue(request.args)
            case _:
                why = f"nobody knows a request {request.kind!r}"

        self.desk.put(f.RequestApplied(request.n, request.id, request.kind, not why, why, request.principal))
        if why:
            return
        match request.kind:
            case "cancel":
                self.cancel(request.args)
            case "pause" | "resume":
                self.pause_or_resume(request)
            case "signal":
                self.signal(request.args)
            case "restart":
                self.restart(plan, request.args)
            case "continue":
                self.go_on(request.args)

    def pause_or_resume(self, request: r.Requested) -> None:
        task, name, reason = self.task, request.args.get("node_id"), _text(request.args.get("reason"))
        pause = request.kind == "pause"
        if name is not None:
            self.desk.put(f.NodeHeld(name, reason) if pause else f.NodeReleased(name))
            concerned = [one for one in all_of(task, name) if one in task.children] if pause or not task.paused else []
        else:
            self.desk.put(f.TaskPaused(reason) if pause else f.TaskResumed())
            concerned = list(task.children)
        self.decision.effects += [
            Steer(one, task.runs[one].attempt, task.children[one], request.kind, reason)
            for one in concerned
            if pause or not task.held_by(one)
        ]

    def refuse_hold(self, name: Any) -> str:
        run = self.desk.run_of(name)
        if run is None:
            return self.desk.no_node(name)
        if run.state in ENDED_NODE:
            return f"node {name!r} is {run.state} already"
        return f"node {name!r} is paused already" if name in self.task.held else ""

    def refuse_signal(self, args: dict[str, Any]) -> str:
        task, name = self.task, args.get("name")
        if task.ended:
            return "it has ended already"
        if not isinstance(name, str):
            return f"{shown(name)} is no name of a signal"
        if task.waiting.get(name):
            return ""
        unnamed = task.graph.signals.get("", ())
        able = [*task.graph.signals.get(name, ()), *(node for node in unnamed if may_be_called(task.node(node), name))]
        if not able:
            known = ", ".join(map(shown, filter(None, task.graph.signals))) or "none"
            hint = Problems().suggest(name, task.graph.signals)
            say = f"none of its nodes waits for a signal {shown(name)}{hint}; they wait for: {known}"
            child = next((node for node, said in task.graph.nodes.items() if said.type == "task"), "")
            return f"{say}; sub-graphs are tasks of their own: signal that of {child!r}, if it waits" if child else say
        able = [node for node in able if task.runs[node].state not in ENDED_NODE]
        kept = len(task.signals.get(name, ()))
        if not able:
            return f"no node waits for a signal {shown(name)} any more"
        if kept >= len(able) and all(task.node(node).body is None for node in able):
            return f"no node waits for another signal {shown(name)}: what came is enough for all that will"
        if kept >= MOST_SIGNALS:
            return f"{MOST_SIGNALS:,} signals {shown(name)} wait to be taken already"
        return ""

    def signal(self, args: dict[str, Any]) -> None:
        taker = next(iter(self.task.waiting.get(args["name"], ())), "")
        self.desk.put(f.SignalReceived(args["name"], Payload(args.get("payload")), taker))

    def refuse_cancel_node(self, name: Any) -> str:
        run = self.desk.run_of(name)
        if run is None:
            return self.desk.no_node(name)
        return f"node {name!r} is {run.state} already" if run.state in ENDED_NODE else ""

    def cancel(self, args: dict[str, Any]) -> None:
        reason = _text(args.get("reason")) or "user_request"
        grace = _grace(args.get("grace_sec"))
        if args.get("node_id") is not None:
            self.desk.cancel_node(args["node_id"], reason, grace)
            return
        self.desk.cancel_all(reason, "cancelled", grace, None)
        if self.task.again is not None:
            self.desk.put(f.ParentWaits(self.task.for_attempt))

    def plan(self, args: dict[str, Any]) -> RestartPlan:
        """What a restart would do. The edited graph, if there is one, was read by whoever handed the request over."""
        if not args.get("graph_ref"):
            return in_time(self.task, plan_restart(self.task, args), args, None, self.now)
        graph = args.get("graph")
        if not isinstance(graph, Graph):
            return RestartPlan(refused="its edited graph cannot be read")
        return in_time(self.task, plan_restart(self.task, args, graph), args, graph, self.now)

    def restart(self, plan: RestartPlan, args: dict[str, Any]) -> None:
        ref, params = args.get("graph_ref") or "", args.get("params")
        if ref:
            self.task.editions = self.task.editions or {}
            self.task.editions[ref] = args["graph"]
        self.desk.put(restarted(self.task, plan, graph=ref, params=params, deadline=args.get("deadline")))

    def refuse_continue(self, args: dict[str, Any]) -> str:
        attempt = args.get("attempt")
        if isinstance(attempt, bool) or not isinstance(attempt, int) or attempt < 1:
            return f"{shown(attempt)} is no attempt of its parent's node"
        known = self.task.for_attempt
        return f"attempt {attempt} is over: its parent waits for attempt {known}" if attempt <= known else ""

    def go_on(self, args: dict[str, Any]) -> None:
        """The parent's node waits for this task once more, as another attempt: begin again what failed. What runs, or
        has finished meanwhile, is what it waits for; what is being cancelled begins again when that is over."""
        task, attempt = self.task, int(args["attempt"])
        if task.status is TaskStatus.CANCELLING:
            self.desk.put(
                f.ParentWaits(
                    attempt, {name: args[name] for name in ("params", "deadline") if args.get(name) is not None}
                )
            )
        elif not task.ended or task.status is TaskStatus.FINISHED:
            self.desk.put(f.ParentWaits(attempt))
        else:
            self.desk.put(going_on(task, args, attempt, self.now))


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:MOST_REASON]


def _grace(value: Any) -> float:
    """What a caller gave as seconds, made sensible."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return CANCEL_GRACE_SEC
    return min(max(0.0, value), LONGEST_WAIT_SEC)
