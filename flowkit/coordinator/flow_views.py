"""What users see of flows: plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from flowkit.core.flow_refs import LATEST
from flowkit.ports import FlowVersion


class Pinned(NamedTuple):
    """One version of a flow, for good; `str()` is how a task's head names it."""

    name: str
    version: int
    graph_ref: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class FlowVersionView:
    """One version of a flow, without its graph. `tags` are those that it has now, `graph_ref` is the hash of the graph,
    `created_at` epoch seconds."""

    name: str
    version: int
    tags: tuple[str, ...]
    created_at: float
    principal: str
    note: str
    graph_ref: str


@dataclass(frozen=True, slots=True)
class FlowView:
    """One version of a flow; `graph` is its graph in today's dialect, the rest as in `FlowVersionView`."""

    name: str
    version: int
    graph: dict[str, Any]
    tags: tuple[str, ...]
    created_at: float
    principal: str
    note: str
    graph_ref: str


@dataclass(frozen=True, slots=True)
class FlowSummary:
    """One flow. `newest` is its newest version, `default` the one that its name alone means, `count` how many versions
    it has, `tags` the version of each tag; `created_at` (epoch seconds), `principal` and `note` are the newest's."""

    name: str
    newest: int
    default: int
    count: int
    tags: dict[str, int]
    created_at: float
    principal: str
    note: str


@dataclass(frozen=True, slots=True)
class FlowPage:
    """Flows in order of their names; `cursor` gives the next page, None at the end."""

    flows: Sequence[FlowSummary]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class VersionPage:
    """Versions of a flow, newest first; `cursor` gives the next page, None at the end."""

    versions: Sequence[FlowVersionView]
    cursor: str | None


def tags_of(version: int, tags: Mapping[str, int]) -> tuple[str, ...]:
    """The tags that a version has, `latest` last."""
    return tuple(
        sorted((tag for tag, tagged in tags.items() if tagged == version), key=lambda tag: (tag == LATEST, tag))
    )


def version_view(flow: FlowVersion, tags: Mapping[str, int]) -> FlowVersionView:
    return FlowVersionView(
        name=flow.name,
        version=flow.version,
        tags=tags_of(flow.version, tags),
        created_at=flow.created_at,
        principal=flow.principal,
        note=flow.note,
        graph_ref=flow.graph_ref,
    )


def flow_view(flow: FlowVersion, tags: Mapping[str, int], graph: dict[str, Any]) -> FlowView:
    return FlowView(
        name=flow.name,
        version=flow.version,
        graph=graph,
        tags=tags_of(flow.version, tags),
        created_at=flow.created_at,
        principal=flow.principal,
        note=flow.note,
        graph_ref=flow.graph_ref,
    )
