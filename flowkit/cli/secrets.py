"""`flowkit secrets`: sets, lists, deletes and rotates secrets, and serves them to workers. No value is ever an
argument."""

from __future__ import annotations

import asyncio
import getpass
import sys
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from flowkit import cli
from flowkit.backend import Backend, open_backend
from flowkit.cli import settings
from flowkit.cli.console import UsageError, clean, put, put_json, say, table
from flowkit.cli.logs import set_up
from flowkit.cli.times import show_short_time, show_time
from flowkit.clock import SystemClock
from flowkit.config import CoordinatorConfig
from flowkit.errors import StoreUnavailable
from flowkit.safe import open_secrets, user_of_process
from flowkit.secrets.secrets import Secrets
from flowkit.secrets.values import LARGEST
from flowkit.secrets.views import Rotation, SecretView
from flowkit.telemetry import Happening, MasterKeyMade, Telemetry


def main(args: Namespace) -> int:
    set_up("error", debug=hasattr(args, "debug"))
    if not args.tenant:
        raise UsageError("--tenant is the name of a tenant")
    project = settings.find_project()
    cfg = settings.load(CoordinatorConfig, args, project)
    named = settings.named_database(args, project)
    path = None if named is None else settings.file_of(named)
    if path is not None and args.verb != "set" and not path.is_file():
        raise UsageError(f"there is no file {path}; --db names the SQLite file or the MongoDB where the secrets are")
    db = named or settings.mongo_url(cfg)
    try:
        return asyncio.run(_use(db, cfg, args))
    except StoreUnavailable:
        if named is None:
            say("no --db was named, so it was looked for in MongoDB; for secrets in a file: --db flow.db")
        raise


async def _use(db: str, cfg: CoordinatorConfig, args: Namespace) -> int:
    async with opened(db, cfg, args.tenant) as (_, secrets):
        return await VERBS[args.verb](secrets, args) or cli.FINISHED


@asynccontextmanager
async def opened(db: str, cfg: CoordinatorConfig, tenant: str = "default") -> AsyncIterator[tuple[Backend, Secrets]]:
    """The store alone, without Kafka, and a tenant's secrets in it."""
    backend = open_backend(settings.file_of(db) or db, cfg)
    telemetry = Telemetry()
    telemetry.subscribe(_tell)
    await backend.store.start()
    try:
        principal = f"cli:{user_of_process()}"
        yield backend, open_secrets(backend, cfg, SystemClock(), telemetry, tenant=tenant, principal=principal)
    finally:
        await backend.store.stop()


def _tell(happening: Happening) -> None:
    if isinstance(happening, MasterKeyMade):
        say(
            f"made a master key, in {clean(happening.path)} (mode 0600). Keep a copy of that file, apart from copies "
            "of the database: without it no secret can be opened, and with both anybody can"
        )


# -------------------------------------------------------------------------------------------------- writing


async def _set(secrets: Secrets, args: Namespace) -> None:
    value = await asyncio.to_thread(read_value, args.name, keep_newline=args.keep_newline)
    view = await secrets.set(args.name, value, flows=args.flow or None, nodes=args.node or None)
    for warning in view.warnings:
        say(clean(warning))
    _show_changed(args, view)


async def _allow(secrets: Secrets, args: Namespace) -> None:
    if not (args.flow or args.node or args.any_flow or args.any_node):
        raise UsageError("say who may use it: --flow, --node, --any-flow, --any-node")
    view = await secrets.allow(
        args.name,
        flows=[] if args.any_flow else args.flow or None,
        nodes=[] if args.any_node else args.node or None,
    )
    _show_changed(args, view)


def read_value(name: str, *, keep_newline: bool) -> str:
    """The value from a prompt that does not show it, or from stdin, less the newline at its end. Raises
    `UsageError`."""
    if sys.stdin.isatty():
        value = getpass.getpass(f"value of {name}: ")
        if value != getpass.getpass("again: "):
            raise UsageError("the two differ; nothing was stored")
        return value
    data = sys.stdin.buffer.read(LARGEST + 3)
    try:
        value = data.decode()
    except UnicodeDecodeError:
        raise UsageError(
            "stdin is not UTF-8; give bytes as base64: base64 -w0 FILE | flowkit secrets set ..."
        ) from None
    return value if keep_newline else value.removesuffix("\n").removesuffix("\r")


def _show_changed(args: Namespace, view: SecretView) -> None:
    if args.json:
        put_json(view)
    else:
        put(f"{view.name}@{view.version}")


async def _delete(secrets: Secrets, args: Namespace) -> int:
    found = await secrets.delete(args.name, below=args.below or 0)
    if not found:
        say(f"there is no secret {args.name!r}")
    if args.json:
        put_json({"name": args.name, "deleted": found})
    return cli.FINISHED if found else cli.FAILED


async def _rotate(secrets: Secrets, args: Namespace) -> int:
    done = await secrets.rotate(new_key=True if args.new_key else None)
    if args.json:
        put_json(done)
    else:
        for failure in done.failed:
            say(clean(failure))
        put(rotated(done))
    return cli.FAILED if done.failed else cli.FINISHED


def rotated(done: Rotation) -> str:
    """What a rotation did, in a sentence."""
    new = "new master key" if done.added else "master key"
    count = "1 version is" if done.rewrapped == 1 else f"{done.rewrapped} versions are"
    said = f"{count} now under the {new} {done.key_id}"
    return f"{said}; {len(done.failed)} are not" if done.failed else f"{said}, and none under another"


# -------------------------------------------------------------------------------------------------- reading


async def _get(secrets: Secrets, args: Namespace) -> None:
    if args.reveal:
        value = await secrets.reveal(args.name)
        if args.json:
            put_json({"name": args.name, "value": value})
        else:
            put(value)
        return
    view = await secrets.get(args.name)
    if args.json:
        put_json(view)
        return
    put(f"secret {view.name}@{view.version}")
    facts = {
        "set": f"{show_time(view.created_at)} by {clean(view.principal)}",
        "flows": ", ".join(view.flows) or "any",
        "nodes": ", ".join(view.nodes) or "any that list it",
        "key": view.key_id,
    }
    for title, value in facts.items():
        put(f"  {title:<6} {value}")


async def _list(secrets: Secrets, args: Namespace) -> None:
    page = await secrets.list(limit=args.limit, cursor=args.cursor)
    if args.json:
        put_json(page)
        return
    if not page.secrets:
        say("no secrets" + (" behind that cursor" if args.cursor else ""))
        return
    now = time.time()
    rows = [
        (
            *(one.name, str(one.version), show_short_time(one.created_at, now), one.principal),
            *(", ".join(one.flows) or "any", ", ".join(one.nodes) or "any"),
        )
        for one in page.secrets
    ]
    table(("NAME", "NEWEST", "SET", "BY", "FLOWS", "NODES"), rows)
    _tell_more(page.cursor)


async def _audit(secrets: Secrets, args: Namespace) -> int:
    if args.verify:
        return await _verify(secrets, args)
    if args.noted:
        raise UsageError("--noted is for --verify")
    await _show_audit(secrets, args)
    return cli.FINISHED


async def _verify(secrets: Secrets, args: Namespace) -> int:
    if args.name:
        raise UsageError("the chain is of all secrets of the tenant: --verify takes no name")
    try:
        verdict = await secrets.verify_audit(args.noted)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if args.json:
        put_json(verdict)
    elif verdict.problem:
        put(clean(verdict.problem))
    else:
        rows = "1 row" if verdict.rows == 1 else f"{verdict.rows:,} rows"
        put(f"{rows}, none of them changed, removed or inserted; the last is")
        put(verdict.last)
    if verdict.older:
        say("there are rows from before there were chains: of those nothing can be said")
    return cli.FAILED if verdict.problem else cli.FINISHED


async def _show_audit(secrets: Secrets, args: Namespace) -> None:
    try:
        page = await secrets.audit(args.name or "", limit=args.limit, cursor=args.cursor)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if args.json:
        put_json(page)
        return
    now = time.time()
    rows = [
        (
            *(show_short_time(row.at, now), row.principal, row.action),
            f"{row.name}@{row.version}" if row.version else row.name,
            row.outcome,
            f"{row.task_id} {row.node} #{row.attempt}" if row.task_id else "",
        )
        for row in page.rows
    ]
    table(("WHEN", "WHO", "WHAT", "SECRET", "OUTCOME", "TASK, NODE, ATTEMPT"), rows)
    _tell_more(page.cursor)


def _tell_more(cursor: str | None) -> None:
    if cursor is not None:
        say(f"there are more: --cursor {cursor}")


VERBS: dict[str, Callable[[Secrets, Namespace], Awaitable[Any]]] = {
    "set": _set,
    "allow": _allow,
    "get": _get,
    "list": _list,
    "delete": _delete,
    "rotate": _rotate,
    "audit": _audit,
}
