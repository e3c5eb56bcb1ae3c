"""`flowkit tasks` cancel, pause, resume, signal, restart, delete: asks the coordinator, and says what it answered."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from flowkit.cli.asking import warn_if_nobody_is_there
from flowkit.cli.console import UsageError, clean, one_line, put, put_json
from flowkit.cli.loading import load_graph, load_params, parse_json
from flowkit.cli.settings import pair
from flowkit.cli.times import read_deadline
from flowkit.client import Client
from flowkit.core.replan import ChildFate, RestartOptions, RestartPlan
from flowkit.errors import GraphError, RequestRefused, TaskNotFound, did_you_mean

LONGEST_LIST = 2000
FATES = {
    ChildFate.GOES_ON: "goes on   ",
    ChildFate.TAKEN: "is taken  ",
    ChildFate.AWAITED: "is awaited",
    ChildFate.FRESH: "begins new",
}
"""How a plan says what becomes of a child."""


async def _cancel(client: Client, args: Namespace) -> None:
    await _check_node(client, args)
    view = await client.get_task(args.task)
    if view.ended_at is not None and not args.json:
        put(f"task {args.task} is {view.status} already: nothing is left to stop")
        return
    if not await client.cancel_task(args.task, node_id=args.node, reason=args.reason, grace_sec=args.grace):
        raise TaskNotFound(f"there is no task {args.task!r}")
    await _answer(client, args, f"{_what(args)} is asked to stop", None)


async def _pause(client: Client, args: Namespace) -> None:
    await _check_node(client, args)
    applied = await client.pause_task(args.task, node_id=args.node, reason=args.reason)
    await _answer(client, args, f"{_what(args)} is paused", applied)


async def _resume(client: Client, args: Namespace) -> None:
    await _check_node(client, args)
    applied = await client.resume_task(args.task, node_id=args.node)
    await _answer(client, args, f"{_what(args)} goes on", applied)


async def _signal(client: Client, args: Namespace) -> None:
    payload = None if args.payload is None else parse_json(args.payload, "--payload")
    try:
        applied = await client.signal_task(args.task, args.name, payload)
    except GraphError as error:
        raise UsageError("the payload does not fit: " + "; ".join(map(str, error.problems))) from error
    await _answer(client, args, f"task {args.task} has the signal {clean(repr(args.name))}", applied)


async def _restart(client: Client, args: Namespace) -> None:
    options = await _options(client, args)
    if args.plan:
        _put_plan(args, await client.plan_restart(args.task, **options))
        return
    await _answer(client, args, f"task {args.task} runs again", await client.restart_task(args.task, **options))


async def _options(client: Client, args: Namespace) -> RestartOptions:
    """What the command line says of a restart. Params are those of the task, but for those that are given."""
    given = [pair(text, "--input") for text in args.input]
    if args.graph is None and not args.plan:  # else the nodes are those of the other graph, or the plan says so
        names = [name for name in (args.from_node, *(name for name, _ in given)) if name is not None]
        await _check_nodes(client, args.task, names)
    options: RestartOptions = {"from_node": args.from_node, "failed_only": args.failed_only}
    if args.param:
        options["params"] = {**(await client.get_task(args.task)).params, **load_params(args.param, None)}
    if args.deadline is not None:
        options["deadline"] = read_deadline(args.deadline, time.time())
    if given:
        options["inputs"] = {name: parse_json(value, f"--input {name}") for name, value in given}
    if args.graph is not None:
        options["graph"] = load_graph(args.graph)
    return options


async def _delete(client: Client, args: Namespace) -> None:
    if not await client.delete_task(args.task):
        raise TaskNotFound(f"there is no task {args.task!r}")
    if args.json:
        put_json({"task_id": args.task, "deleted": True})
    else:
        put(f"task {args.task} is deleted")


def _put_plan(args: Namespace, plan: RestartPlan) -> None:
    if plan.refused:
        raise RequestRefused(f"task {args.task} cannot be restarted: {plan.refused}")
    told = {
        "kept": plan.kept,
        "runs again": plan.again - plan.new,
        "is new": plan.new,
        "is removed": plan.removed,
    }
    if args.json:
        put_json({name.replace(" ", "_"): sorted(names) for name, names in told.items()} | _children(plan))
        return
    for name, names in told.items():
        if names:
            put(f"{name:<10}  {_listed(names)}")
    _put_children(plan, "")


def _children(plan: RestartPlan) -> dict[str, Any]:
    """What the plan means for children, as JSON."""
    if not plan.within:
        return {}
    rows = [
        {"node_id": one.node, "task_id": one.task_id, "fate": str(one.fate), "why": one.why or None}
        | ({} if one.plan is None else {"runs_again": sorted(one.plan.again), "kept": sorted(one.plan.kept)})
        | ({} if one.plan is None else _children(one.plan))
        for one in plan.children
    ]
    return {"children": rows, "more_children": plan.more_children}


def _put_children(plan: RestartPlan, indent: str) -> None:
    for one in plan.children:
        why = f": {clean(one.why)}" if one.why else ""
        put(f"{indent}{FATES[one.fate]}  {one.node}, task {one.task_id}{why}")
        if one.plan is not None:
            put(f"{indent}  runs again  {_listed(one.plan.again)}")
            if one.plan.kept:
                put(f"{indent}  kept        {_listed(one.plan.kept)}")
            _put_children(one.plan, indent + "  ")
    if plan.more_children:
        put(f"{indent}and {plan.more_children:,} more sub-graphs go on within that were not looked at")


def _listed(names: Iterable[str]) -> str:
    every = sorted(names)
    shown = one_line(", ".join(every), LONGEST_LIST)
    return f"{shown} ({len(every):,} in all)" if shown.endswith("...") else shown


# -------------------------------------------------------------------------------------------------- answers


async def _check_node(client: Client, args: Namespace) -> None:
    await _check_nodes(client, args.task, [] if args.node is None else [args.node])


async def _check_nodes(client: Client, task_id: str, names: Iterable[str]) -> None:
    """A request that names no node of the task would be written all the same, and refused where nobody sees it."""
    nodes = (await client.get_task(task_id)).nodes if names else {}
    for name in names:
        if name not in nodes:
            raise UsageError(f"task {task_id} has no node {name!r}{did_you_mean(name, nodes)}")


def _what(args: Namespace) -> str:
    return f"node {args.node!r} of task {args.task}" if args.node is not None else f"task {args.task}"


async def _answer(client: Client, args: Namespace, done: str, applied: bool | None) -> None:
    """Say what came of a request: it is written in any case, and acted on once a coordinator is there."""
    if args.json:
        status = (await client.get_task(args.task)).status
        asked = {"task_id": args.task, "asked": args.verb, "applied": applied, "status": status}
        put_json(asked | {"coordinated": await client.coordinated()})
        return
    waits = applied is False
    put(f"the request to {args.verb} task {args.task} is written; nobody has acted on it yet" if waits else done)
    await warn_if_nobody_is_there(client)


STEERING: dict[str, Callable[[Client, Namespace], Awaitable[Any]]] = {
    "cancel": _cancel,
    "pause": _pause,
    "resume": _resume,
    "signal": _signal,
    "restart": _restart,
    "delete": _delete,
}
