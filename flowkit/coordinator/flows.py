"""Flows: named graphs whose versions never change, and tags that say which version is meant."""

from __future__ import annotations

import asyncio
import random
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

from flowkit.coordinator.admission import Admission
from flowkit.coordinator.flow_views import (
    FlowPage,
    FlowSummary,
    FlowView,
    Pinned,
    VersionPage,
    flow_view,
    version_view,
)
from flowkit.coordinator.graphs import Graphs
from flowkit.coordinator.off_loop import off_loop
from flowkit.core.code_policy import NOTHING_SAID, CodePolicies
from flowkit.core.flow_refs import DEFAULT, LATEST, FlowRef, checked_flow_name, checked_tag, read_flow_ref
from flowkit.core.graph_diff import GraphDiff, diff_graphs
from flowkit.core.problems import Problems, shown
from flowkit.core.values import Copier
from flowkit.errors import FlowNotFound, StoreUnavailable, did_you_mean
from flowkit.paging import checked_limit
from flowkit.ports import Clock, FlowTag, FlowVersion, Outcome, Store

TRIES: Final = 40
LONGEST_PAUSE_SEC: Final = 0.5
KNOWN_VERSIONS: Final = 1000
NAMES_LOOKED_AT: Final = 1000
LONGEST_NOTE: Final = 4000
LARGE_NODES: Final = 1000


class Flows:
    """The flows of one tenant's principal. Everything is by (tenant, name): what another tenant has is not there."""

    def __init__(
        self, *, store: Store, graphs: Graphs, clock: Clock, tenant: str = "default", principal: str = "local",
        policies: CodePolicies = NOTHING_SAID,
    ) -> None:  # fmt: skip
        self._admission = Admission(policies=policies)
        self.tenant = tenant
        self.principal = principal
        self._store = store
        self._graphs = graphs
        self._clock = clock
        self._known: OrderedDict[tuple[str, str, int], FlowVersion] = OrderedDict()

    # ------------------------------------------------------------------------------------------ writing

    async def put(self, name: str, graph: Any, *, tags: Iterable[str] = (), note: str = "") -> int:
        """Store a graph as the newest version of a flow, and give its number; a graph that the newest version has
        already makes no other. `tags` are moved to it. Raises `GraphError`, `FlowNameError`, and `StoreUnavailable`,
        where it may have been stored all the same: asking again is harmless."""
        name, note = checked_flow_name(name), checked_note(note)
        words = [checked_tag(tag) for tag in ([tags] if isinstance(tags, str) else tags)]
        ref, read = await self._graphs.take(graph)
        await self._admission.check_code(ref, read, self.tenant, name)
        version = await self._insert(name, ref, note)
        for word in words:
            await self._move(name, word, version)
        return version

    async def tag(self, name: str, version: int | str, tag: str) -> int:
        """Let a tag name this version, whichever it named before; gives the version. Raises `FlowNotFound`,
        `FlowNameError`, `StoreUnavailable`."""
        word = checked_tag(tag)
        found = await self._find(self.tenant, read_flow_ref(f"{checked_flow_name(name)}@{version}"))
        await self._move(name, word, found.version)
        return found.version

    async def untag(self, name: str, tag: str) -> bool:
        """Take a tag off; False where the flow does not have it. Raises `FlowNotFound`, `FlowNameError`,
        `StoreUnavailable`."""
        word = checked_tag(tag)
        tags = await self._tags(await self._find(self.tenant, FlowRef(checked_flow_name(name), tag=LATEST)))
        if word not in tags:
            return False
        await self._move(name, word, 0)
        return True

    async def _insert(self, name: str, ref: str, note: str) -> int:
        tried = 0
        for attempt in range(TRIES):
            newest = await self._newest(self.tenant, name)
            if newest is not None:
                if newest.graph_ref == ref:
                    return newest.version
                # What a try did was unknown, and others may have put theirs on top of it.
                if 0 < tried < newest.version and await self._has_graph(name, tried, ref):
                    return tried
            tried = 1 if newest is None else newest.version + 1
            flow = FlowVersion(self.tenant, name, tried, ref, self._clock.wall(), self.principal, note)
            if await self._store.insert_flow_version(flow) is Outcome.OK:
                return tried
            await asyncio.sleep(_pause(attempt))
        raise StoreUnavailable(f"the version of flow {name!r} could not be confirmed; put the graph again")

    async def _has_graph(self, name: str, version: int, ref: str) -> bool:
        found = await self._version(self.tenant, name, version)
        return found is not None and found.graph_ref == ref

    async def _move(self, name: str, word: str, version: int) -> None:
        """The revision is that of the tag that was seen: what is late, one's own too, undoes nothing newer."""
        for attempt in range(TRIES):
            stored = await self._store.flow_tags(self.tenant, [name])
            before = next((tag for tag in stored if tag.tag == word), None)
            if before is not None and before.version == version:
                return
            revision = 1 if before is None else before.revision + 1
            tag = FlowTag(self.tenant, name, word, version, revision, self._clock.wall(), self.principal)
            if await self._store.put_flow_tag(tag) is Outcome.OK:
                return
            await asyncio.sleep(_pause(attempt))
        raise StoreUnavailable(f"the tag {word!r} of flow {name!r} could not be confirmed; ask again")

    # ------------------------------------------------------------------------------------------ reading

    async def resolve(self, tenant: str, flow: str) -> Pinned:
        """Which version of a tenant's flow `name`, `name@3` or `name@tag` means now; the name alone is its `default`,
        else its newest. Raises `FlowNotFound`, `FlowNameError`, `StoreUnavailable`."""
        found = await self._find(tenant, read_flow_ref(flow))
        return Pinned(found.name, found.version, found.graph_ref)

    async def get(self, flow: str) -> FlowView:
        """The version that `name`, `name@3` or `name@tag` means now. Raises as `resolve`, and `Corrupt`."""
        found = await self._find(self.tenant, read_flow_ref(flow))
        return flow_view(found, await self._tags(found), await self._graphs.written(found.graph_ref))

    async def list(self, *, limit: int = 100, cursor: str | None = None) -> FlowPage:
        """A page of flows, in order of their names. Raises `ValueError` for a `limit` that is not 1 to 1,000."""
        limit = checked_limit(limit)
        found = await self._store.newest_flows(self.tenant, limit=limit + 1, after=cursor or "")
        page = found[:limit]
        tags: dict[str, dict[str, int]] = {flow.name: {} for flow in page}
        for tag in await self._store.flow_tags(self.tenant, list(tags)):
            if tag.version:
                tags[tag.name][tag.tag] = tag.version
        return FlowPage(
            [_summary(flow, tags[flow.name]) for flow in page], page[-1].name if len(found) > limit else None
        )

    async def versions(self, name: str, *, limit: int = 100, cursor: str | None = None) -> VersionPage:
        """A page of a flow's versions, newest first. Raises `FlowNotFound`, `FlowNameError`, and `ValueError` for a
        `limit` that is not 1 to 1,000."""
        limit = checked_limit(limit)
        newest = await self._find(self.tenant, FlowRef(checked_flow_name(name), tag=LATEST))
        before = None if cursor is None else _read_cursor(cursor)
        found = await self._store.flow_versions(self.tenant, name, limit=limit + 1, before=before)
        tags = await self._tags(newest)
        page = [version_view(flow, tags) for flow in found[:limit]]
        return VersionPage(page, str(page[-1].version) if len(found) > limit else None)

    async def diff(self, old: str, new: str) -> GraphDiff:
        """What differs between two versions, of one flow or of two. Raises as `get`."""
        one, other = [await self._find(self.tenant, read_flow_ref(flow)) for flow in (old, new)]
        graphs = [await self._graphs.written(flow.graph_ref) for flow in (one, other)]
        compare = partial(diff_graphs, *graphs, names=(f"{one.name}@{one.version}", f"{other.name}@{other.version}"))
        return await off_loop(compare) if any(len(graph["nodes"]) > LARGE_NODES for graph in graphs) else compare()

    # ------------------------------------------------------------------------------------------ finding

    async def _find(self, tenant: str, ref: FlowRef) -> FlowVersion:
        found = await self._look(tenant, ref)
        if found is None:
            raise FlowNotFound(await self._why_not(tenant, ref))
        return found

    async def _look(self, tenant: str, ref: FlowRef) -> FlowVersion | None:
        if ref.version:
            return await self._version(tenant, ref.name, ref.version)
        if ref.tag == LATEST:
            return await self._newest(tenant, ref.name)
        word = ref.tag or DEFAULT
        for tag in await self._store.flow_tags(tenant, [ref.name]):
            if tag.tag == word and tag.version:
                return await self._version(tenant, ref.name, tag.version)
        return await self._newest(tenant, ref.name) if word == DEFAULT else None

    async def _version(self, tenant: str, name: str, version: int) -> FlowVersion | None:
        known = self._known.get((tenant, name, version))
        if known is not None:
            self._known.move_to_end((tenant, name, version))
            return known
        found = await self._store.flow_versions(tenant, name, limit=1, before=version + 1)
        if not found or found[0].version != version:
            return None
        self._known[tenant, name, version] = found[0]
        if len(self._known) > KNOWN_VERSIONS:
            self._known.popitem(last=False)
        return found[0]

    async def _newest(self, tenant: str, name: str) -> FlowVersion | None:
        found = await self._store.flow_versions(tenant, name, limit=1)
        return found[0] if found else None

    async def _tags(self, flow: FlowVersion) -> dict[str, int]:
        """The version of each tag of the flow, `latest` too."""
        stored = await self._store.flow_tags(flow.tenant, [flow.name])
        newest = await self._newest(flow.tenant, flow.name)
        return {tag.tag: tag.version for tag in stored if tag.version} | {LATEST: (newest or flow).version}

    async def _why_not(self, tenant: str, ref: FlowRef) -> str:
        newest = await self._newest(tenant, ref.name)
        if newest is None:
            others = await self._store.newest_flows(tenant, limit=NAMES_LOOKED_AT)
            return f"there is no flow {ref.name!r}{did_you_mean(ref.name, [flow.name for flow in others])}"
        if ref.version:
            return f"flow {ref.name!r} has no version {ref.version}: its newest is {newest.version}"
        if not ref.tag:
            return f"there was no flow {ref.name!r} a moment ago: ask again"
        tags = sorted(await self._tags(newest))
        return f"flow {ref.name!r} has no tag {ref.tag!r}{did_you_mean(ref.tag, tags)}; it has: {', '.join(tags)}"


def checked_note(note: object) -> str:
    """The note, if it is text that can be kept. Raises `GraphError`."""
    problems = Problems()
    if not isinstance(note, str):
        problems.stop("E_TYPE", "note", f"expected text, found {shown(note)}")
    if len(note) > LONGEST_NOTE:
        problems.stop("E_VALUE", "note", f"{len(note)} characters, at most {LONGEST_NOTE}")
    Copier(problems).copy(note, "note")
    problems.raise_any()
    return note


def _summary(newest: FlowVersion, tags: Mapping[str, int]) -> FlowSummary:
    return FlowSummary(
        name=newest.name,
        newest=newest.version,
        default=tags.get(DEFAULT, newest.version),
        count=newest.version,  # they are counted from 1, and none is ever taken away
        tags={**tags, LATEST: newest.version},
        created_at=newest.created_at,
        principal=newest.principal,
        note=newest.note,
    )


def _pause(attempt: int) -> float:
    """Seconds before the next try; a part of them at random, so that those who try together come apart."""
    return min(LONGEST_PAUSE_SEC, 0.005 * float(2**attempt)) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def _read_cursor(cursor: str) -> int:
    try:
        return int(cursor)
    except ValueError:
        raise ValueError(f"{cursor!r} is not a cursor that list_flow_versions gave") from None
