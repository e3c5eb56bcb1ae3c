"""Which nodes of a graph may stream, said at the door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flowkit.core.code import CODE
from flowkit.core.graph import BUILT_INS
from flowkit.core.problems import Place, Problems, shown
from flowkit.core.stream import FIRST_BATCH, Streaming
from flowkit.core.topology import Topology

MANY: Final = ("foreach", "repeat")
"""With these a node is many runs of a handler, and not one that could read a stream, or make one."""
KEPT: Final = "cache"
"""With this a node may not run at all, so that others cannot rely on its batches."""
INSTEAD: Final = {
    "foreach": "read it in a node before this one that returns a list, and map over that",
    "repeat": "read it in a node before this one, and give the runs what that returns",
}


class StreamRules:
    """Told of every node while a graph is read, and asked for what is wrong once all of them are known."""

    def __init__(self) -> None:
        self._said: list[tuple[str, dict[str, Any], Streaming, Place]] = []
        self._no_readers: dict[str, tuple[str, str]] = {}
        self._no_makers: dict[str, str] = {}
        self._held: dict[str, dict[str, dict[str, Any]]] = {}

    def note(self, fields: dict[str, Any], stream: Streaming | None, place: Place) -> None:
        name, kind = fields["node_id"], fields.get("type")
        if kind in BUILT_INS:
            why = f"nothing of type {shown(kind)} does"
            self._no_readers[name] = why, "read it in a node that a worker runs, and give this one what that returns"
            if kind != CODE:
                self._no_makers[name] = why
        for key in MANY:
            if key in fields:
                self._no_readers[name] = f"it has `{key}`", INSTEAD[key]
        for key in (*MANY, KEPT):
            if key in fields:
                self._no_makers[name] = f"it has `{key}`"
        if "limits" in fields:
            self._held[name] = {one["key"]: one for one in fields["limits"] if isinstance(one, dict) and "max" in one}
        if stream is not None:
            self._said.append((name, fields, stream, place))

    def check(self, topology: Topology, problems: Problems) -> None:
        for name, fields, stream, place in self._said:
            if fields.get("start_when") == FIRST_BATCH:
                self._check_start(name, stream, topology, (place, "start_when"), problems)
                self._check_permits(name, stream, (place, "limits"), problems)
            if not stream.is_reader:
                continue
            here = (place, "inputs") if stream.reads else (place, "io")
            if name in self._no_readers:
                why, instead = self._no_readers[name]
                problems.add("E_STREAM", here, f"{shown(name)} cannot read a stream: {why}; {instead}")
            for source in stream.sources:
                if source in self._no_makers:
                    say = f'{shown(source)} makes no batches: {self._no_makers[source]}; read {{"$from": "{source}"}}'
                    problems.add("E_STREAM", here, say)

    def _check_permits(self, name: str, stream: Streaming, place: Place, problems: Problems) -> None:
        """A source holds its permits while it waits for its readers."""
        own = self._held.get(name, {})
        for source in stream.sources:
            for key, theirs in self._held.get(source, {}).items():
                if key not in own:
                    continue
                held = theirs.get("weight", 1)
                needed = held + own[key].get("weight", 1)
                if needed > own[key]["max"]:
                    say = f"{shown(source)}, whose batches it reads, holds {held} of {shown(key)} while it runs"
                    what = f"raise `max` to {needed}, or leave out `start_when`"
                    problems.add("E_LIMIT", place, f"{say}, so {shown(name)} could not begin before that ends: {what}")

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
