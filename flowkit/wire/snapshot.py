"""How the state of a task is written down: lines of `kind JSON`, each short enough to be written and read in one go.

A snapshot only saves folding: whoever cannot read one folds the commits. So its form promises nothing to other
versions. It carries a mark of what its writer knew (which facts, which fields), and one with another mark is not read.
Raise `FORM` when the fold of the same facts into the same fields comes to mean something else.
"""

from __future__ import annotations

import heapq
import zlib
from collections import OrderedDict, deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import fields
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import msgspec

from flowkit.core import facts
from flowkit.core.model import Task, TaskStatus
from flowkit.core.node_run import ENDED_NODE, FIELDS, Group, Lease, NodeRun, NodeState
from flowkit.errors import Corrupt
from flowkit.wire.codec import UNFIT, dumps, loads
from flowkit.wire.facts import read_payload, write_payload

T = TypeVar("T")

FORM = 2
LINE_ROWS = 100
LINE_BYTES = 128 * 1024


def _mark() -> str:
    known = [(tag, [field.name for field in fields(kind)]) for tag, kind in facts.TAGS.items()]
    form = repr((known, Task.__slots__, FIELDS, Lease.__slots__, Group.__slots__))
    return f"{FORM}.{zlib.crc32(form.encode()):08x}"


MARK = _mark()


class Place(NamedTuple):
    """Where in a task's history a state belongs: after commit `seq`, whose id is `commit_id`."""

    seq: int
    commit_id: str


class _Whole(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The task itself."""

    mark: str
    task_id: str
    seq: int
    commit_id: str
    status: TaskStatus
    paused: bool
    generation: int
    applied: int
    created_at: float
    ended_at: float | None
    error: dict[str, Any] | None
    reason: str
    cancel_outcome: str
    cancel_error: dict[str, Any] | None
    open: int
    attempts: int
    spent_sec: float
    ended_by: str
    undo: list[str] | None
    edition: str
    for_attempt: int
    again: dict[str, Any] | None
    deadline: float | None


class _Group(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """The items or repetitions of one node."""

    count: int
    next: int
    live: int
    idle: int
    done: int
    failed: int
    first_failed: int
    closed: bool
    counted: list[int]
    last: list[Any] | None
    again: list[int]
    items: list[Any] | None


class _Run(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """One node. Nodes that nothing special happened to end with `output`."""

    name: str
    state: NodeState
    attempt: int
    undecided: int
    unread: int
    taken: int
    broken: int
    run_sec: float
    ready_at: float | None
    started_at: float | None
    ended_at: float | None
    output: list[Any] | None
    next: tuple[str, ...] | None = None
    error: dict[str, Any] | None = None
    reason: str = ""
    by_failure: bool = False
    loser: bool = False
    failures: int = 0
    losses: int = 0
    declines: int = 0
    budgets: dict[str, int] | None = None
    wake: float | None = None
    lease: tuple[str, str, str, float, float, bool, bool] | None = None
    due: bool = False
    opened: bool = False
    routes: tuple[str, ...] | None = None
    child: str = ""
    signal: str = ""
    stopping: bool = False
    peak: int = 0
    floor: int = 0
    group: _Group | None = None
    streaming: bool = False
    born: int = 0
    turn: int = 0
    child_of: int = 0
    usage: dict[str, Any] | None = None


_USUAL = (None, None, "", False, False, 0, 0, 0, None, None, None, False, False, None, "", "", False, 0, 0, None,
          False, 0, 0, 0, None)  # fmt: skip

_KINDS: dict[str, Any] = {
    "runs": list[_Run],
    "ready": list[tuple[str, str]],
    "gated": list[str],
    "leased": list[str],
    "failed": list[str],
    "agenda": list[str],
    "joined": list[tuple[str, list[str]]],
    "timers": list[tuple[float, int, str, str]],
    "refusals": list[tuple[int, str]],
    "due": list[str],
    "held": list[str],
    "done": list[str],
    "children": list[tuple[str, str]],
    "waiting": list[tuple[str, str]],
    "signals": list[tuple[str, list[Any]]],
    "vars": dict[str, Any],
    "params": dict[str, Any],
    "ran_on": list[tuple[str, str]],
    "deadlines": list[tuple[str, float]],
}
_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {kind: msgspec.json.Decoder(type_) for kind, type_ in _KINDS.items()}


# ---------------------------------------------------------------------------------------------- writing


def write_snapshot(task: Task, seq: int, commit_id: str) -> Iterator[bytes]:
    """The state after commit `seq`, line by line: between two of them the caller may let others in, as long as nobody
    changes the task."""
    count = 0
    for line in _lines(task, seq, commit_id):
        count += 1
        yield line
    yield _line("end", count)


def encode_snapshot(task: Task, seq: int, commit_id: str) -> bytes:
    """The state after commit `seq`."""
    return b"".join(write_snapshot(task, seq, commit_id))


def _lines(task: Task, seq: int, commit_id: str) -> Iterator[bytes]:
    yield _line("task", [
        MARK, task.task_id, seq, commit_id, task.status, task.paused, task.generation, task.applied, task.created_at,
        task.ended_at, task.error, task.reason, task.cancel_outcome, task.cancel_error, task.open, task.attempts,
        task.spent_sec, task.ended_by, task.undo, task.edition, task.for_attempt, task.again,
        task.deadline,
    ])  # fmt: skip
    # Those that were looked at: another is made from the graph when it is asked for.
    yield from _run_lines(dict.items(task.runs))
    yield from _list_lines("ready", ((lane, name) for lane, names in task.ready.items() for name in names))
    yield from _list_lines("gated", task.gated)
    yield from _list_lines("leased", task.leased)
    yield from _list_lines("failed", task.failed)
    yield from _list_lines("agenda", task.agenda)
    yield from _list_lines("joined", task.joined)
    # A node that has ended has no timers any more, and a restart makes all anew.
    timers = [timer for timer in task.timers if not timer[3] or task.runs[timer[3]].state not in ENDED_NODE]
    yield from _list_lines("timers", timers)
    yield from _list_lines("refusals", task.refusals.items())
    for kind in ("due", "held", "done"):
        yield from _list_lines(kind, getattr(task, kind))
    yield from _list_lines("children", task.children.items())
    yield from _list_lines("waiting", [(signal, name) for signal, names in task.waiting.items() for name in names])
    for signal, kept in task.signals.items():
        yield from _list_lines("signals", [(signal, write_payload(output)) for output in kept])
    if task.vars:
        yield _line("vars", task.vars)
    if task.edited_params:
        yield _line("params", task.params)
    yield from _list_lines("ran_on", task.ran_on.items())
    yield from _list_lines("deadlines", task.deadlines.items())


def _line(kind: str, value: Any) -> bytes:
    return kind.encode() + b" " + dumps(value) + b"\n"


def _list_lines(kind: str, items: Iterable[Any]) -> Iterator[bytes]:
    left = iter(items)
    while part := list(islice(left, LINE_ROWS)):
        yield _line(kind, part)


def _run_lines(runs: Iterable[tuple[str, NodeRun]]) -> Iterator[bytes]:
    texts: list[bytes] = []
    size = 0
    for name, run in runs:
        text = dumps(_run_row(name, run))
        texts.append(text)
        size += len(text)
        if len(texts) >= LINE_ROWS or size >= LINE_BYTES:
            yield b"runs [" + b",".join(texts) + b"]\n"
            texts, size = [], 0
    if texts:
        yield b"runs [" + b",".join(texts) + b"]\n"


def _run_row(name: str, run: NodeRun) -> list[Any]:
    output = None if run.output is None else write_payload(run.output)
    row = [
        name, run.state, run.attempt, run.undecided, run.unread, run.taken, run.broken, run.run_sec, run.ready_at,
        run.started_at, run.ended_at, output,
    ]  # fmt: skip
    rest = (
        run.next, run.error, run.reason, run.by_failure, run.loser, run.failures, run.losses, run.declines,
        run.budgets, run.wake, None if run.lease is None else _lease_row(run.lease), run.due, run.opened, run.routes,
        run.child, run.signal, run.stopping, run.peak, run.floor, None if run.group is None else _group_row(run.group),
        run.streaming, run.born, run.turn, run.child_of, run.usage,
    )  # fmt: skip
    return row if rest == _USUAL else [*row, *rest]


def _lease_row(lease: Lease) -> tuple[Any, ...]:
    return (
        *(lease.token, lease.worker, lease.incarnation, lease.accept_by, lease.leased_at),
        *(lease.started, lease.cancelling),
    )


def _group_row(group: Group) -> list[Any]:
    last = None if group.last is None else write_payload(group.last)
    return [
        group.count, group.next, group.live, group.idle, group.done, group.failed, group.first_failed, group.closed,
        group.counted, last, list(group.again), group.items,
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------- reading


def read_snapshot(data: bytes, task: Task) -> Generator[None, None, Place]:
    """Fill a new task line by line, and return where in its history that is. Raises `Corrupt` for what is not whole, of
    another task, or of another version; the task is of no use then."""
    where: Place | None = None
    start, count = 0, 0
    while (stop := data.find(b"\n", start)) >= 0:
        kind, _, text = data[start:stop].partition(b" ")
        if kind == b"end":
            if where is None or loads(text) != count or stop + 1 != len(data):
                raise Corrupt("a snapshot that is not whole")
            heapq.heapify(task.timers)
            return where
        if where is None:
            where = _read_whole(kind, text, task)
        else:
            _read_line(kind.decode("ascii", "replace"), text, task)
        start, count = stop + 1, count + 1
        yield
    raise Corrupt("a snapshot that is not whole")


def edition_of(data: bytes) -> str:
    """The reference of the graph that the state belongs to, empty for the first. Raises `Corrupt`."""
    kind, _, text = data[: data.find(b"\n")].partition(b" ")
    return _whole(kind, text).edition


def decode_snapshot(data: bytes, task: Task) -> Place:
    """`read_snapshot` in one go."""
    return at_once(read_snapshot(data, task))


def at_once(work: Generator[None, None, T]) -> T:
    """What sliced work returns, letting nobody in between."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result


def _read_whole(kind: bytes, text: bytes, task: Task) -> Place:
    whole = _whole(kind, text)
    if whole.task_id != task.task_id:
        raise Corrupt(f"a snapshot of task {whole.task_id}")
    _open_up(task)
    for name in ("status", "paused", "generation", "applied", "created_at", "ended_at", "error", "reason", "attempts",
                 "spent_sec", "ended_by", "undo", "edition", "for_attempt", "again", "deadline"):  # fmt: skip
        setattr(task, name, getattr(whole, name))
    task.cancel_outcome, task.cancel_error, task.open = whole.cancel_outcome, whole.cancel_error, whole.open
    return Place(whole.seq, whole.commit_id)


def _whole(kind: bytes, text: bytes) -> _Whole:
    row = loads(text) if kind == b"task" else None
    if not isinstance(row, list) or not row or row[0] != MARK:
        raise Corrupt(f"not a snapshot that this version ({MARK}) wrote")
    whole: _Whole = _convert(row, _Whole)
    return whole


def _open_up(task: Task) -> None:
    """Give it containers of its own for what lines may bring."""
    task.gated, task.gated_anew, task.joined, task.agenda = {}, [], [], deque()
    task.failed, task.due, task.held, task.done, task.children = {}, {}, {}, {}, {}
    task.refusals, task.waiting, task.signals, task.ran_on, task.deadlines = {}, {}, {}, {}, {}


def _read_line(kind: str, text: bytes, task: Task) -> None:
    rows = _rows(kind, text)
    match kind:
        case "runs":
            for row in rows:
                if _known(row.name, task) in task.graph.nodes:
                    task.runs[row.name] = _made(row)
                else:
                    task.runs.put_derived(row.name, _made(row))
        case "ready":
            for lane, name in rows:
                task.ready.setdefault(lane, OrderedDict())[_known(name, task)] = None
        case "gated":
            task.gated.update((_known(name, task), None) for name in rows)
            task.gated_anew.extend(rows)
        case "leased":
            task.leased.update((_known(name, task), None) for name in rows)
        case "failed":
            task.failed.update((_known(name, task), None) for name in rows)
        case "agenda":
            task.agenda.extend(rows)
        case "joined":
            task.joined.extend(rows)
        case "timers":
            task.timers.extend(rows)
        case "refusals":
            task.refusals.update(rows)
        case "due" | "held" | "done":
            getattr(task, kind).update((_known(name, task), None) for name in rows)
        case "children":
            task.children.update((_known(name, task), child) for name, child in rows)
        case "waiting":
            for signal, name in rows:
                task.waiting.setdefault(signal, {})[_known(name, task)] = None
        case "signals":
            for signal, output in rows:
                task.signals.setdefault(signal, deque()).append(read_payload(output))
        case "vars":
            task.vars.update(rows)
        case "params":
            task.params, task.edited_params = rows, True
        case "ran_on":
            task.ran_on.update(rows)
        case "deadlines":
            task.deadlines.update((_known(name, task), at) for name, at in rows)


def _rows(kind: str, text: bytes) -> Any:
    if kind not in _KINDS:
        raise Corrupt(f"a snapshot with a line of {kind[:20]!r}")
    try:
        return _DECODERS[kind].decode(text)
    except UNFIT:
        return _convert(loads(text), _KINDS[kind])


def _made(row: _Run) -> NodeRun:
    run = NodeRun(row.undecided, row.unread)
    run.state, run.attempt, run.taken, run.broken = row.state, row.attempt, row.taken, row.broken
    run.run_sec, run.ready_at, run.started_at, run.ended_at = row.run_sec, row.ready_at, row.started_at, row.ended_at
    run.output = None if row.output is None else read_payload(row.output)
    run.next, run.error, run.reason, run.by_failure = row.next, row.error, row.reason, row.by_failure
    run.loser, run.failures, run.losses, run.declines = row.loser, row.failures, row.losses, row.declines
    run.budgets, run.wake = row.budgets, row.wake
    run.due, run.opened, run.routes, run.child = row.due, row.opened, row.routes, row.child
    run.signal, run.stopping, run.peak, run.floor = row.signal, row.stopping, row.peak, row.floor
    run.group = None if row.group is None else _made_group(row.group)
    run.streaming, run.born, run.turn, run.child_of = row.streaming, row.born, row.turn, row.child_of
    run.usage = row.usage
    if row.lease is not None:
        token, worker, incarnation, accept_by, leased_at, begun, cancelling = row.lease
        run.lease = Lease(token, worker, incarnation, accept_by, leased_at)
        run.lease.started, run.lease.cancelling = begun, cancelling
    return run


def _made_group(row: _Group) -> Group:
    group = Group(row.count)
    for name in ("next", "live", "idle", "done", "failed", "first_failed", "closed", "counted", "items"):
        setattr(group, name, getattr(row, name))
    group.last = None if row.last is None else read_payload(row.last)
    if row.again:
        group.again = dict.fromkeys(row.again)
    return group


def _known(name: str, task: Task) -> str:
    try:
        task.node(name)
    except KeyError:
        raise Corrupt(f"a snapshot with a node {name[:40]!r} that its graph does not have") from None
    return name


def _convert(value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Corrupt(f"a snapshot that cannot be read: {error}") from error
