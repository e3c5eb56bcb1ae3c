"""`flowkit flows`: puts, shows, tags and compares named graphs, as a client."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from flowkit import cli
from flowkit.cli.asking import ask
from flowkit.cli.console import UsageError, clean, one_line, put, put_json, say, table
from flowkit.cli.graph import size_of
from flowkit.cli.loading import load_graph
from flowkit.cli.show import brief
from flowkit.cli.times import show_short_time, show_time
from flowkit.client import Client
from flowkit.coordinator.flow_views import FlowView
from flowkit.core.dialect import parse_graph
from flowkit.core.graph_diff import Change, GraphDiff
from flowkit.errors import GraphError

SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def main(args: Namespace) -> int:
    if args.verb == "validate":
        return _validate(args)
    if args.verb == "put":
        args.graph = load_graph(args.graph)
    return ask(args, VERBS[args.verb], "flows", new=args.verb == "put")


def _validate(args: Namespace) -> int:
    try:
        graph = parse_graph(load_graph(args.graph))
    except GraphError as error:
        if not args.json:
            raise
        problems = [{"code": one.code, "place": one.place, "message": one.message} for one in error.problems]
        put_json({"ok": False, "problems": problems})
        return cli.USAGE
    if args.json:
        put_json({"ok": True, "problems": []})
    else:
        put(f"ok: {size_of(graph)}")
    return cli.FINISHED


# -------------------------------------------------------------------------------------------------- writing


async def _put(client: Client, args: Namespace) -> None:
    version = await client.put_flow(args.name, args.graph, tags=args.tag, note=args.note)
    _tell(args, args.name, version)


async def _tag(client: Client, args: Namespace) -> None:
    name, at, which = args.flow.partition("@")
    if not at:
        raise UsageError(f"say which version of it: {name}@3, {name}@latest, or {name}@ and another of its tags")
    version = 0
    for tag in args.tags:
        version = await client.tag_flow(name, version or which, tag)
    _tell(args, name, version)


async def _untag(client: Client, args: Namespace) -> None:
    if not await client.untag_flow(args.name, args.tag):
        raise UsageError(f"flow {args.name!r} has no tag {args.tag!r}")
    if args.json:
        put_json({"name": args.name, "tag": args.tag})


def _tell(args: Namespace, name: str, version: int) -> None:
    if args.json:
        put_json({"name": name, "version": version})
    else:
        put(f"{name}@{version}")


# -------------------------------------------------------------------------------------------------- reading


async def _list(client: Client, args: Namespace) -> None:
    page = await client.list_flows(limit=args.limit, cursor=args.cursor)
    if args.json:
        put_json(page)
        return
    if not page.flows:
        say("no flows" + (" behind that cursor" if args.cursor else ""))
        return
    now = time.time()
    rows = [
        (
            flow.name,
            str(flow.newest),
            str(flow.default),
            show_short_time(flow.created_at, now),
            _tags(flow.tags),
            flow.note,
        )
        for flow in page.flows
    ]
    table(("NAME", "NEWEST", "DEFAULT", "CHANGED", "TAGS", "NOTE"), rows)
    _tell_more(page.cursor)


def _tags(tags: dict[str, int]) -> str:
    return ",".join(f"{tag}={version}" for tag, version in sorted(tags.items()) if tag not in ("latest", "default"))


async def _versions(client: Client, args: Namespace) -> None:
    page = await client.list_flow_versions(args.name, limit=args.limit, cursor=_cursor(args.cursor))
    if args.json:
        put_json(page)
        return
    now = time.time()
    rows = [
        (str(one.version), show_short_time(one.created_at, now), one.principal, ",".join(one.tags), one.note)
        for one in page.versions
    ]
    table(("VERSION", "CREATED", "BY", "TAGS", "NOTE"), rows)
    _tell_more(page.cursor)


def _tell_more(cursor: str | None) -> None:
    if cursor is not None:
        say(f"there are more: --cursor {cursor}")


def _cursor(text: str | None) -> str | None:
    if text is not None and not text.isdecimal():
        raise UsageError(f"--cursor: {text!r} is not what `flows versions` printed")
    return text


async def _show(client: Client, args: Namespace) -> None:
    view = await client.get_flow(args.flow)
    if args.json:
        put_json(view)
        return
    if not args.graph:
        _put_facts(view)
    put_json(view.graph)


def _put_facts(view: FlowView) -> None:
    put(f"flow {view.name}@{view.version}")
    facts = {
        "created": f"{show_time(view.created_at)} by {clean(view.principal)}",
        "tags": ", ".join(view.tags),
        "note": one_line(view.note),
        "graph": clean(size_of(parse_graph(view.graph))),
    }
    for title, value in facts.items():
        if value:
            put(f"  {title:<8} {value}")


async def _diff(client: Client, args: Namespace) -> None:
    diff = await client.diff_flows(args.old, args.new)
    if args.json:
        put_json(diff)
    else:
        for line in lines_of(diff):
            put(clean(line))


def lines_of(diff: GraphDiff) -> Iterable[str]:
    """A difference as people read it: `+` came, `-` went, `~` changed."""
    told = [*_nodes_of(diff), *_edges_of(diff), *_lines_of(diff.changes, of="the graph's ")]
    if told:
        return [f"{diff.old} -> {diff.new}", *told]
    same = "are the same graph" if diff.same else "differ only in the order of things"
    return [f"{diff.old} and {diff.new} {same}"]


def _nodes_of(diff: GraphDiff) -> Iterable[str]:
    yield from (f"+ node {name}" for name in diff.nodes_added)
    yield from (f"- node {name}" for name in diff.nodes_removed)
    for node in diff.nodes_changed:
        yield f"~ node {node.node_id}"
        yield from (f"    {line}" for line in _lines_of(node.changes))


def _edges_of(diff: GraphDiff) -> Iterable[str]:
    yield from (f"+ edge {source} -> {target}" for source, target in diff.edges_added)
    yield from (f"- edge {source} -> {target}" for source, target in diff.edges_removed)
    for edge in diff.edges_changed:
        yield f"~ edge {edge.source} -> {edge.target}"
        yield from (f"    {line}" for line in _lines_of(edge.changes))


def _lines_of(changes: Iterable[Change], of: str = "") -> Iterable[str]:
    for change in changes:
        values = {"added": (change.new,), "removed": (change.old,), "changed": (change.old, change.new)}[change.kind]
        yield f"{SIGNS[change.kind]} {of}{change.key}: {' -> '.join(map(brief, values))}"


VERBS: dict[str, Callable[[Client, Namespace], Awaitable[Any]]] = {
    "put": _put,
    "list": _list,
    "show": _show,
    "versions": _versions,
    "tag": _tag,
    "untag": _untag,
    "diff": _diff,
}
