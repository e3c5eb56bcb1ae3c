"""Which nodes of a graph may stream, said at the door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flowkit.core.code import CODE
from flowkit.core.graph import BUILT_INS
from flowkit.core.problems import Place, Problems, shown
from flowkit.core.stream import FIRST_BATCH, Streaming
from flowkit.core.topology import Topology

UNFIT: Final = ("foreach", "repeat", "cache")
"""With these a node is not one run of one handler, so there is no stream of it."""


class StreamRules:
    """Told of every node while a graph is read, and asked for what is wrong once all of them are known."""

    def __init__(self) -> None:
        self._said: list[tuple[str, dict[str, Any], Streaming, Place]] = []
        self._unfit: dict[str, str] = {}
        self._makers: set[str] = set()

    def note(self, fields: dict[str, Any], stream: Streaming | None, place: Place) -> None:
        name, kind = fields["node_id"], fields.get("type")
        why = next((f"it has `{key}`" for key in UNFIT if key in fields), "")
        why = why or (f"nothing of type {shown(kind)} does" if kind in BUILT_INS else "")
        if why:
            self._unfit[name] = why
        if kind == CODE and not any(key in fields for key in UNFIT):
            self._makers.add(name)
        if stream is not None:
            self._said.append((name, fields, stream, place))

    def check(self, topology: Topology, problems: Problems) -> None:
        for name, fields, stream, place in self._said:
            if fields.get("start_when") == FIRST_BATCH:
                self._check_start(name, stream, topology, (place, "start_when"), problems)
            if not stream.is_reader:
                continue
            here = (place, "inputs") if stream.reads else (place, "io")
            if name in self._unfit:
                problems.add("E_STREAM", here, f"{shown(name)} cannot read a stream: {self._unfit[name]}")
            for source in stream.sources:
                if source in self._unfit and source not in self._makers:
                    say = f"{shown(source)} makes no batches: {self._unfit[source]}; read its output by `$from`"
                    problems.add("E_STREAM", here, say)

    def _check_start(self, name: str, stream: Streaming, topology: Topology, place: Place, problems: Problems) -> None:
        edges = topology.incoming.get(name, ())
        if not edges:
            say = 'it would start with the first batch of nothing; read a stream: {"$stream": "node"}'
            problems.add("E_STREAM", place, say)
        sources: Mapping[str, None] = dict.fromkeys(stream.sources)
        for edge in edges:
            if edge.conditional and (edge.source in sources or not sources):
                say = f"whether the edge from {shown(edge.source)} is taken is known only when that has ended"
                problems.add("E_STREAM", place, f"{say}: leave out its condition, or `start_when`")
