"""`flowkit run`: a graph, or a task that was left behind, run to its end in this process."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from argparse import Namespace
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowkit import cli
from flowkit.cli import settings
from flowkit.cli.board import OF_MANY, Board, error_text
from flowkit.cli.console import UsageError, clean, put, put_json, say
from flowkit.cli.engine import Engine
from flowkit.cli.last import task_id_of
from flowkit.cli.lifecycle import Signals
from flowkit.cli.loading import STDIN, load_graph, load_handlers, load_params
from flowkit.cli.logs import set_up
from flowkit.cli.progress import TICK_SEC, Progress, make_progress
from flowkit.cli.roles import check_roles
from flowkit.cli.times import read_deadline, show_seconds
from flowkit.client import Client
from flowkit.config import CoordinatorConfig, WorkerConfig
from flowkit.coordinator.coordinator import Coordinator
from flowkit.coordinator.handle import TaskHandle
from flowkit.coordinator.views import TaskResult, TaskView
from flowkit.core.dialect import parse_graph
from flowkit.core.graph import Graph
from flowkit.errors import FlowKitError, RequestRefused, WaitTimeout

DRAIN_SEC = 5.0
LAST_EVENTS_SEC = 2.0
REQUESTS_SEC = 5.0


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
        if "db" in self.args:  # else it is found again where it was found now
            words += ["--db", settings.without_password(self.args.db)]
        return shlex.join(words)


def main(args: Namespace) -> int:
    job = _read(args)
    set_up("warning", debug=hasattr(args, "debug"))
    return asyncio.run(_run(job))


def _read(args: Namespace) -> Job:
    if [args.graph, args.flow, args.resume].count(None) != 2:
        raise UsageError("name a GRAPH to run, or a flow: --flow NAME, or a task to go on with: --resume TASK")
    if args.graph == STDIN and args.params == STDIN:
        raise UsageError("stdin cannot be both the graph and the params")
    project = settings.find_project()
    db = settings.named_database(args, project)
    if args.detach and (db is None or args.resume is not None):
        raise UsageError("--detach creates a task and leaves it to others: it needs a GRAPH or a --flow, and a --db")
    shown = settings.shown(args)
    cfg = settings.load(CoordinatorConfig, args, project, **shown)
    worker_cfg = settings.load(WorkerConfig, args, project, slots=args.slots, **shown)
    if not worker_cfg.code_dir and args.graph is not None and Path(args.graph).is_file():
        worker_cfg.code_dir = str(Path(args.graph).parent)
    if args.resume is not None:
        _check_resume(args, db)
        return Job(args, cfg, worker_cfg, load_handlers(args.handlers, project), db)
    raw = graph = None
    if args.flow is not None:
        _check_place(db, "--flow", "flow")
    else:
        raw = load_graph(args.graph)
        graph = parse_graph(raw)
    return Job(
        args, cfg, worker_cfg, load_handlers(args.handlers, project), db, raw, graph,
        load_params(args.param, args.params), settings.pairs(args.label, "--label"),
    )  # fmt: skip


def _check_resume(args: Namespace, db: str | None) -> None:
    for option in ("param", "params", "target", "label", "priority", "idempotency_key", "deadline"):
        if getattr(args, option) not in (None, []):
            raise UsageError(f"--{option.replace('_', '-')} does not go with --resume: the task has its own")
    _check_place(db, "--resume", "task")


def _check_place(db: str | None, option: str, what: str) -> None:
    if db is None:
        raise UsageError(f"{option} needs --db: the file where the {what} is")
    if (path := settings.file_of(db)) is not None and not path.exists():
        raise UsageError(f"there is no file {path}")


async def _run(job: Job) -> int:
    db = job.db if job.db is None else settings.file_of(job.db) or job.db
    if job.args.detach:
        return await _detach(job, db)
    with Signals(exit_code=cli.INTERRUPTED) as signals:
        async with Engine(db, job.handlers, job.cfg, job.worker_cfg, say) as engine:
            return cli.INTERRUPTED if signals.asked.is_set() else await Run(job, engine, signals).whole()


async def _detach(job: Job, db: Path | str | None) -> int:
    async with Client(db=db, cfg=job.cfg) as client:
        task_id = await create(client, job)
    if job.args.json:
        put_json({"task_id": task_id})
    else:
        put(task_id)
    return cli.FINISHED


async def create(verbs: Client | Coordinator, job: Job) -> str:
    return await verbs.create_task(
        graph=job.raw, flow=job.args.flow, params=job.params, targets=job.args.target, labels=job.labels,
        priority=job.args.priority or 0, idempotency_key=job.args.idempotency_key,
        deadline=None if job.args.deadline is None else read_deadline(job.args.deadline, time.time()),
    )  # fmt: skip


class Run:
    """One task, from its creation (or where it stands) to its end."""

    def __init__(self, job: Job, engine: Engine, signals: Signals) -> None:
        self._job = job
        self._engine = engine
        self._signals = signals
        self._quiet = bool(job.args.quiet)

    async def whole(self) -> int:
        job, engine = self._job, self._engine
        view: TaskView | None = None
        if job.args.resume is not None:
            view = await engine.verbs.get_task(await task_id_of(engine.verbs, job.args.resume))
        graph = await (self._asked_for() if view is None else engine.graph_of(view))
        self._check_roles(graph, view)
        if view is None:
            task = engine.verbs.task(await create(engine.verbs, job))
            # A tag may have moved since the flow was looked at.
            run = graph if job.args.flow is None else await engine.graph_of(await task.view())
            return await self._to_the_end(task, Board(run), 0)
        board = Board(graph)
        task = await self._again(view.task_id)
        view = await task.view()
        self._check_roles(graph, view)
        board.sync(view)
        return await self._to_the_end(task, board, view.seq)

    # how it begins

    async def _asked_for(self) -> Graph:
        if self._job.graph is not None:
            return self._job.graph
        return parse_graph((await self._engine.verbs.get_flow(self._job.args.flow)).graph)

    def _check_roles(self, graph: Graph, view: TaskView | None) -> None:
        """Where nobody else will come, a node without a handler would wait for ever."""
        if self._engine.alone and (view is None or view.status != "finished"):
            check_roles(graph, self._job.handlers, self._job.args.target, code=self._engine.runs_code)

    async def _again(self, task_id: str) -> TaskHandle:
        """What failed runs again, what was paused goes on; a finished task has nothing to do."""
        await self._heed(task_id)
        task = self._engine.verbs.task(task_id)
        status = await task.status()
        with suppress(RequestRefused):
            if status in ("failed", "cancelled"):
                say(f"task {task_id} {status}: what did not finish runs again")
                await task.restart(failed_only=True)
            elif status == "paused":
                say(f"task {task_id} was paused: it goes on")
                await task.resume()
        return task

    async def _heed(self, task_id: str) -> None:
        """Requests that were written while nobody coordinated come first."""
        deadline = time.monotonic() + REQUESTS_SEC
        while self._engine.alone and time.monotonic() < deadline and await self._engine.open_requests(task_id):
            await asyncio.sleep(TICK_SEC)

    # how it goes on

    async def _to_the_end(self, task: TaskHandle, board: Board, since: int) -> int:
        try:
            with make_progress(board, f"task {task.id}", quiet=self._quiet) as progress, redirect_stdout(sys.stderr):
                result = await self._result(task, board, progress, since)
        except WaitTimeout as late:
            say(f"{clean(late)}{self._how_to_go_on(task.id)}")
            await self._engine.leave(DRAIN_SEC if self._job.durable else None)
            return cli.TIMEOUT
        if result is None:
            say(f"interrupted{self._how_to_go_on(task.id)}")
            await self._engine.leave(DRAIN_SEC if self._job.durable else None)
            return cli.INTERRUPTED
        return self._tell(result, board)

    async def _result(self, task: TaskHandle, board: Board, progress: Progress, since: int) -> TaskResult | None:
        """The result, or None if the user had enough. Raises `WaitTimeout`."""
        result = asyncio.ensure_future(self._engine.api.wait(task.id, self._job.args.timeout, on_wait=say))
        follow = asyncio.ensure_future(_nothing() if self._quiet else _follow(task, board, progress, since))
        stop = asyncio.ensure_future(self._signals.asked.wait())
        stuck = asyncio.ensure_future(self._engine.tell_stuck(task.id, say))
        try:
            while not (result.done() or stop.done()):
                await asyncio.wait({result, stop}, timeout=TICK_SEC, return_when=asyncio.FIRST_COMPLETED)
                progress.tick()
            if not result.done():
                return None
            ended = result.result()
            await asyncio.wait({follow}, timeout=LAST_EVENTS_SEC)
            return ended
        finally:
            for one in (result, follow, stop, stuck):
                one.cancel()
            outcomes = await asyncio.gather(follow, result, stop, stuck, return_exceptions=True)
            if isinstance(outcomes[0], Exception):
                say(f"the progress could not be shown: {type(outcomes[0]).__name__}: {clean(outcomes[0])}")

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


async def _nothing() -> None:
    pass


async def _follow(task: TaskHandle, board: Board, progress: Progress, since: int) -> None:
    """Keep the board up to date from the task's events, and from its state where an event changes many nodes."""
    with suppress(FlowKitError):
        async for event in task.watch(since):
            row = board.apply(event)
            if row is not None:
                progress.changed(row, event.type)
            elif event.type in OF_MANY and not event.node_id:
                for changed in board.catch_up(await task.view()):
                    progress.changed(changed, event.type)


def _whole(result: TaskResult) -> dict[str, Any]:
    names = ("task_id", "status", "output", "outputs", "error", "created_at", "ended_at", "seconds")
    return {name: getattr(result, name) for name in names}
