"""`flowkit run`: a graph, or a task that was left behind, run to its end in this process."""

from __future__ import annotations

import asyncio
import shlex
import sys
from argparse import Namespace
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowkit import cli
from flowkit.backend import Backend, open_backend
from flowkit.cli import settings
from flowkit.cli.board import Board, error_text, in_order
from flowkit.cli.console import UsageError, clean, put_json, say
from flowkit.cli.lifecycle import Signals
from flowkit.cli.loading import STDIN, load_graph, load_handlers, load_params
from flowkit.cli.logs import set_up
from flowkit.cli.progress import TICK_SEC, Progress, make_progress
from flowkit.cli.times import show_seconds
from flowkit.config import CoordinatorConfig, WorkerConfig
from flowkit.coordinator.handle import TaskHandle
from flowkit.coordinator.views import TaskResult, TaskView
from flowkit.core.dialect import parse_graph
from flowkit.core.graph import BUILT_INS, Graph
from flowkit.core.selection import not_needed
from flowkit.embedded import Embedded
from flowkit.errors import FlowKitError, GraphError, Problem, RequestRefused, WaitTimeout, did_you_mean

DRAIN_SEC = 5.0
LAST_EVENTS_SEC = 2.0


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked for, read and checked as far as that goes before anything is started."""

    args: Namespace
    cfg: CoordinatorConfig
    worker_cfg: WorkerConfig
    handlers: dict[str, Any]
    db: str | None
    raw: Any = None
    graph: Graph | None = None
    params: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)

    @property
    def durable(self) -> bool:
        return self.db is not None

    def command(self, task_id: str) -> str:
        """The command that goes on with the task."""
        words = ["flowkit", "run", "--resume", task_id]
        for spec in self.args.handlers:
            words += ["--handlers", spec]
        return shlex.join([*words, "--db", settings.shown_address(self.args.db if "db" in self.args else self.db or "")])


def main(args: Namespace) -> int:
    job = _read(args)
    set_up("warning", debug=hasattr(args, "debug"))
    return asyncio.run(_run(job))


def _read(args: Namespace) -> Job:
    if (args.graph is None) == (args.resume is None):
        raise UsageError("name a GRAPH to run, or a task to go on with: --resume TASK")
    if args.graph == STDIN and args.params == STDIN:
        raise UsageError("stdin cannot be both the graph and the params")
    project = settings.find_project()
    given: dict[str, Any] = {"drain_sec": DRAIN_SEC} if not settings.says(args, project, "drain_sec") else {}
    cfg = settings.load(CoordinatorConfig, args, project)
    worker_cfg = settings.load(WorkerConfig, args, project, slots=args.slots, **given)
    db = settings.named_database(args, project)
    if args.resume is not None:
        _check_resume(args, db)
        return Job(args, cfg, worker_cfg, load_handlers(args.handlers, project), db)
    raw = load_graph(args.graph)
    graph = parse_graph(raw)
    return Job(
        args, cfg, worker_cfg, load_handlers(args.handlers, project), db, raw, graph,
        load_params(args.param, args.params), settings.pairs(args.label, "--label"),
    )  # fmt: skip


def _check_resume(args: Namespace, db: str | None) -> None:
    for option in ("param", "params", "target", "label", "idempotency_key"):
        if getattr(args, option):
            raise UsageError(f"--{option.replace('_', '-')} does not go with --resume: the task has its own")
    if db is None:
        raise UsageError("--resume needs --db: the file where the task is")
    if (path := settings.file_of(db)) is not None and not path.exists():
        raise UsageError(f"there is no file {path}")


async def _run(job: Job) -> int:
    backend = open_backend(Path(path) if job.db and (path := settings.file_of(job.db)) else job.db, job.cfg)
    signals = Signals(exit_code=cli.INTERRUPTED)
    with signals:
        async with Embedded(job.db, handlers=job.handlers, cfg=job.cfg, worker_cfg=job.worker_cfg) as engine:
            run = Run(job, engine, signals)
            alone = backend.file is not None and bool((await backend.store.describe())["owner"])
            return await run.whole(alone=alone)


class Run:
    """One task, from its creation (or where it stands) to its end."""

    def __init__(self, job: Job, engine: Embedded, signals: Signals) -> None:
        self._job = job
        self._engine = engine
        self._signals = signals
        self._quiet = bool(job.args.quiet)

    async def whole(self, *, alone: bool) -> int:
        """`alone`: nobody but this process could run a node."""
        resumed = self._job.args.resume is not None
        graph, view = await self._found() if resumed else (self._job.graph, None)
        assert graph is not None
        if alone and (view is None or view.status != "finished"):
            _check_roles(graph, self._job)
        elif not alone and self._job.durable and settings.file_of(self._job.db or "") is not None:
            say("another process coordinates this file: the nodes run there")
        task = await self._again(view) if view is not None else await self._created()
        board = Board(graph)
        if view is not None:
            board.sync(await task.view())
        return await self._to_the_end(task, board, view.seq if view is not None else 0)

    # how it begins

    async def _created(self) -> TaskHandle:
        job = self._job
        return await self._engine.submit(
            job.raw, params=job.params, targets=job.args.target, labels=job.labels,
            idempotency_key=job.args.idempotency_key,
        )  # fmt: skip

    async def _found(self) -> tuple[Graph, TaskView]:
        view = await self._engine.coordinator.get_task(self._job.args.resume)
        return await self._engine.coordinator.runtime.graphs.get(view.graph), view

    async def _again(self, view: TaskView) -> TaskHandle:
        """What failed runs again, what was paused goes on; a finished task has nothing to do."""
        task = self._engine.coordinator.task(view.task_id)
        with suppress(RequestRefused):
            if view.status in ("failed", "cancelled"):
                say(f"task {view.task_id} {view.status}: what failed runs again")
                await task.restart(failed_only=True)
            elif view.status == "paused":
                await task.resume()
        return task

    # how it goes on

    async def _to_the_end(self, task: TaskHandle, board: Board, since: int) -> int:
        title = f"task {task.id}"
        if not self._quiet:
            say(f"{title}: {len(board.rows)} node{'s' if len(board.rows) != 1 else ''}")
        stdout = sys.stdout
        try:
            with make_progress(board, title, quiet=self._quiet) as progress, redirect_stdout(sys.stderr):
                result = await self._result(task, board, progress, since)
        except WaitTimeout as late:
            sys.stdout = stdout
            say(f"{clean(late)}{self._how_to_go_on(task.id)}")
            return cli.TIMEOUT
        if result is None:
            say(f"interrupted{self._how_to_go_on(task.id)}")
            return cli.INTERRUPTED
        return self._tell(result, board)

    async def _result(self, task: TaskHandle, board: Board, progress: Progress, since: int) -> TaskResult | None:
        """The result, or None if the user had enough. Raises `WaitTimeout`."""
        waits = self._engine.coordinator.runtime.api.wait
        result = asyncio.ensure_future(waits(task.id, self._job.args.timeout, on_wait=say))
        follow = asyncio.ensure_future(_follow(task, board, progress, since))
        stop = asyncio.ensure_future(self._signals.asked.wait())
        try:
            while not (result.done() or stop.done()):
                await asyncio.wait({result, stop}, timeout=TICK_SEC, return_when=asyncio.FIRST_COMPLETED)
                progress.tick()
            if not result.done():
                return None
            await asyncio.wait({follow}, timeout=LAST_EVENTS_SEC)
            return result.result()
        finally:
            for one in (result, follow, stop):
                one.cancel()
            await asyncio.wait({result, follow, stop})

    # how it ended

    def _tell(self, result: TaskResult, board: Board) -> int:
        if not self._quiet:
            say(f"task {result.task_id} {result.status} in {show_seconds(result.seconds)}: {board.counts()}")
        if self._job.args.json:
            put_json(_whole(result))
        elif result.ok:
            put_json(result.output)
        if result.ok:
            return cli.FINISHED
        self._tell_failure(result)
        return cli.FAILED

    def _tell_failure(self, result: TaskResult) -> None:
        error = result.error or {}
        node = error.get("node_id")
        where = f" at node {clean(repr(node))}" if node else ""
        say(f"{result.status}{where}: {error_text(error) or 'no reason is known'}")
        if trace := error.get("traceback"):
            sys.stderr.write(clean(trace).rstrip() + "\n")
        if self._job.durable:
            say(f"what ran is kept; run the rest again with: {self._job.command(result.task_id)}")

    def _how_to_go_on(self, task_id: str) -> str:
        if not self._job.durable:
            return "; nothing is kept, because the task was in no file: name one with --db"
        return f"; the task is kept, go on with: {self._job.command(task_id)}"


async def _follow(task: TaskHandle, board: Board, progress: Progress, since: int) -> None:
    """Keep the board up to date from the task's events, and from its state where an event changes many nodes."""
    from flowkit.cli.board import OF_MANY

    with suppress(FlowKitError):
        async for event in task.watch(since):
            row = board.apply(event)
            if row is not None:
                progress.changed(row, event.type)
            elif event.type in OF_MANY - {"created"} or (event.type == "created" and len(board.rows) > 0):
                for changed in board.sync(await task.view()):
                    progress.changed(changed, event.type)


def _check_roles(graph: Graph, job: Job) -> None:
    """Nobody else will come: a node without a handler would wait for ever."""
    idle = set(not_needed(graph, [name for name in job.args.target if name in graph.nodes]))
    places = {name: place for place, name in enumerate(graph.nodes)}
    problems = [
        Problem("E_NO_HANDLER", f"nodes[{places[name]}].type", _no_handler(graph.nodes[name].type, job))
        for name in in_order(graph)
        if name not in idle and graph.nodes[name].type not in job.handlers and graph.nodes[name].type not in BUILT_INS
    ]
    if problems:
        raise GraphError(problems[:20])


def _no_handler(role: str, job: Job) -> str:
    if not job.handlers:
        return f"nobody serves {role!r}: name the module with the functions, --handlers MODULE"
    return f"no handler for {role!r}{did_you_mean(role, job.handlers)}; there are: {', '.join(sorted(job.handlers))}"


def _whole(result: TaskResult) -> dict[str, Any]:
    names = ("task_id", "status", "output", "outputs", "error", "created_at", "ended_at", "seconds")
    return {name: getattr(result, name) for name in names}


