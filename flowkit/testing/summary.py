"""What a world's report says beside its violations: which runs were needed, and the tasks' commits for people."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from flowkit.core import facts as f
from flowkit.errors import FlowKitError
from flowkit.ports import Commit
from flowkit.testing.evidence import Start
from flowkit.testing.stage import EPOCH
from flowkit.wire.facts import decode_facts
from flowkit.wire.tombstone import is_tombstone

if TYPE_CHECKING:
    from flowkit.testing.world import World

UNSHOWN = frozenset({"token", "accept_by", "incarnation"})


def needed_runs(commits: Iterable[Commit], starts: Iterable[Start]) -> int:
    """How many of the starts led to a result that was applied, or were cancelled on purpose."""
    applied: set[tuple[str, str, int]] = set()
    current: dict[tuple[str, str], int] = {}
    for commit in sorted(commits, key=lambda commit: (commit.task_id, commit.seq)):
        try:
            recorded = decode_facts(commit.body) if not is_tombstone(commit) else []
        except FlowKitError:
            continue
        for fact in recorded:
            match fact:
                case f.AttemptLeased(node=node, attempt=attempt):
                    current[commit.task_id, node] = attempt
                case f.AttemptSucceeded() | f.AttemptFailed():
                    applied.add((commit.task_id, fact.node, fact.attempt))
                case f.NodeCancelled(node=node) if (commit.task_id, node) in current:
                    applied.add((commit.task_id, node, current[commit.task_id, node]))
    return sum((start.task_id, start.node, start.attempt) in applied for start in starts)


def describe_tasks(world: World) -> list[str]:
    """Every task's commits, its head, and who has it in memory."""
    data = world.replica.majority.data
    lines: list[str] = []
    for task_id, head in data.heads.items():
        lines.append(f"TASK {task_id} {head.name} partition {head.partition}")
        for seq, commit in sorted(data.commits.get(task_id, {}).items()):
            shown = "DELETED" if is_tombstone(commit) else ", ".join(map(_shown, decode_facts(commit.body)))
            lines.append(f"  {seq:3d} {commit.at - EPOCH:8.3f} {commit.id}: {shown}")
        lines.append(
            f"  head: {head.status}, seq {head.seq}, published {head.published_seq}, active {head.active}, "
            f"wake {'-' if head.next_wake is None else round(head.next_wake - EPOCH, 3)}"
        )
        for n, request in sorted(data.requests.get(task_id, {}).items()):
            lines.append(f"  request {n}: {request.kind} {request.id[:8]} applied {request.applied}")
        for name, runtime in sorted(world.runtimes.items()):
            cells = runtime.engine.cells if name.startswith("C") else {}
            if (cell := cells.get(task_id)) is not None:
                lines.append(f"  in {name}: {_cell(cell)}, owned {sorted(runtime.engine.owned)}")
    return lines


def _shown(fact: f.Fact) -> str:
    fields = [repr(getattr(fact, name)) for name in getattr(type(fact), "__slots__", ()) if name not in UNSHOWN]
    return f"{type(fact).__name__}({', '.join(fields)})"


def _cell(cell: object) -> str:
    names = [name for name in getattr(type(cell), "__slots__", ()) if name not in ("head", "task", "task_id", "prev")]
    return ", ".join(f"{name} {getattr(cell, name)!r}" for name in names)
