"""What a node has to do with streams: whose batches it reads, when it starts, how far it may run ahead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

READY: Final = "ready"
FIRST_BATCH: Final = "first_batch"

MAX_BATCHES: Final = 1000
MAX_BYTES: Final = 16 * 1024 * 1024
SPILL_BYTES: Final = 1024 * 1024 * 1024

Reads = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Streaming:
    """`reads` are the inputs that are streams, each with the nodes that it comes from (the name "" is the whole input);
    `adapter` is an older way to say so, with its `args`; `sources` are the nodes of both. `first_batch`: it starts
    when the first batch of any of them is there. As a producer it is at most `max_batches` and `max_bytes` ahead of the
    slowest node that reads while it runs; what only later ones will read may take up `spill_bytes`."""

    reads: Reads = ()
    sources: tuple[str, ...] = ()
    adapter: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)
    first_batch: bool = False
    max_batches: int = MAX_BATCHES
    max_bytes: int = MAX_BYTES
    spill_bytes: int = SPILL_BYTES

    @property
    def is_reader(self) -> bool:
        return bool(self.reads or self.adapter)


ALONE: Final = Streaming()
"""What a node is that says nothing about streams."""


def streaming(fields: Mapping[str, Any]) -> Streaming | None:
    """What a node's fields say about streams; None where they say nothing."""
    reads: Reads = fields["inputs"].streams if "inputs" in fields else ()
    io = fields.get("io") or {}
    adapter = io.get("input_adapter", "")
    first_batch = fields.get("start_when") == FIRST_BATCH
    limits = {name: value for name, value in fields.get("stream", {}).items() if not name.startswith("x-")}
    if not (reads or adapter or first_batch or limits):
        return None
    sources = dict.fromkeys(source for _, names in reads for source in names)
    sources |= dict.fromkeys(named_nodes(io.get("input_args", {})) if adapter else ())
    return Streaming(reads, tuple(sources), adapter, io.get("input_args", {}), first_batch, **limits)


def named_nodes(args: Mapping[str, Any]) -> list[str]:
    """The nodes that an adapter's arguments name, as far as they are names."""
    said = args.get("from_nodes", args.get("from_node"))
    names = [said] if isinstance(said, str) else said
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def with_parents(stream: Streaming, parents: Iterable[str]) -> Streaming:
    """An adapter that names no nodes, and a start that names no stream, mean those before the node."""
    return stream if stream.sources else replace(stream, sources=tuple(parents))
