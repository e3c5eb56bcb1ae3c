"""The input adapters of older graphs: they make a class's batches out of what other nodes streamed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from flowkit.errors import did_you_mean
from flowkit.utils import stable_hash
from flowkit.worker.handlers.base import Batch
from flowkit.worker.outcome import AttemptFailure
from flowkit.worker.stream import Stream
from flowkit.worker.stream_reader import Row

Adapter = Callable[[Stream, Mapping[str, Any], str], AsyncIterator[Batch]]
"""Given a stream, the arguments, and the task's id."""

COMMON: Final = frozenset({"from_node", "from_nodes", "poll_ms", "eof_on_task_done", "backoff_max_ms"})
"""What every adapter may be given."""
RECHUNK: Final = frozenset({*COMMON, "size", "meta_list_key"})


async def pull(stream: Stream, args: Mapping[str, Any], task_id: str) -> AsyncIterator[Batch]:
    """A batch for each that was streamed: `from_node`, `ref`, `meta` and `output`."""
    while (row := await stream.next_row()) is not None:
        ref = {"task_id": task_id, "node_id": row.source, "batch_uid": row.uid}
        payload = {"from_node": row.source, "ref": ref, "meta": _meta(row), "output": row.value}
        yield Batch(batch_uid=row.uid, payload=payload)


async def rechunk(stream: Stream, args: Mapping[str, Any], task_id: str) -> AsyncIterator[Batch]:
    """Batches of at most `size` items of the list that stands under `meta_list_key` in what was streamed; without that
    key, each batch's `meta` is an item of its own."""
    size, key = args["size"], args.get("meta_list_key")
    while (row := await stream.next_row()) is not None:
        items = _items(row, key)
        parent = {"ref": {"batch_uid": row.uid}, "meta_list_key": key}
        for number, start in enumerate(range(0, len(items), size)):
            payload = {"from_node": row.source, "items": items[start : start + size], "parent": parent}
            uid = stable_hash({"src": row.source, "parent": row.uid, "idx": number})
            yield Batch(batch_uid=uid, payload=payload)


BUILT_IN: Final[Mapping[str, Adapter]] = {
    "pull.from_artifacts": pull,
    "pull.artifacts": pull,
    "pull.from.upstream": pull,
    "pull.from_artifacts.rechunk:size": rechunk,
    "pull.from_artifacts.rechunk": rechunk,
    "pull.rechunk": rechunk,
}


def check(name: str, args: Mapping[str, Any]) -> None:
    """Raises `AttemptFailure` where the arguments of one of these adapters cannot be right."""
    known = RECHUNK if BUILT_IN[name] is rechunk else COMMON
    for key in args:
        if key not in known:
            raise bad_args(name, f"it takes no {key!r}{did_you_mean(key, known)}")
    for key in ("poll_ms", "backoff_max_ms"):
        if key in args and not (_is_number(args[key]) and args[key] > 0):
            raise bad_args(name, f"{key} is a number of milliseconds above 0, not {args[key]!r}")
    if args.get("eof_on_task_done", True) is not True:
        raise bad_args(name, "eof_on_task_done is always true: a stream ends when its node does")
    if known is RECHUNK:
        _check_rechunk(name, args)


def check_nodes(name: str, args: Mapping[str, Any]) -> None:
    """Raises `AttemptFailure` where the arguments of any adapter do not say which nodes it reads."""
    if "from_node" in args and not isinstance(args["from_node"], str):
        raise bad_args(name, f"from_node is a node's id, not {args['from_node']!r}")
    nodes = args.get("from_nodes", [])
    if not isinstance(nodes, list) or not all(isinstance(node, str) for node in nodes):
        raise bad_args(name, f"from_nodes is a list of node ids, not {nodes!r}")


def _check_rechunk(name: str, args: Mapping[str, Any]) -> None:
    size, key = args.get("size"), args.get("meta_list_key")
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise bad_args(name, f"size is a whole number above 0, not {size!r}")
    if key is not None and not (isinstance(key, str) and key):
        raise bad_args(name, f"meta_list_key is the name of a list, not {key!r}")


def bad_args(name: str, message: str) -> AttemptFailure:
    return AttemptFailure("bad_input_args", f"input adapter {name!r}: {message}"[:1000], permanent=True)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _meta(row: Row) -> Any:
    if row.meta is not None:
        return row.meta
    return row.value if isinstance(row.value, dict) else {}


def _items(row: Row, key: str | None) -> list[Any]:
    if key is None:
        return [_meta(row)]
    for said in (row.meta, row.value):
        if isinstance(said, dict) and isinstance(said.get(key), list):
            return list(said[key])
    return [_meta(row)]
