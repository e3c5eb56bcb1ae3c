"""`flowkit doctor`: looks at everything that FlowKit stands on, changes nothing, and says what to do."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace
from collections.abc import AsyncIterator

from flowkit import cli
from flowkit.cli import settings
from flowkit.cli.checks import Finding, of_python
from flowkit.cli.console import clean, fancy, put, put_json
from flowkit.cli.logs import set_up
from flowkit.config import CoordinatorConfig, WorkerConfig

COLOURS = {"ok": "32", "warn": "33", "FAIL": "31"}


def main(args: Namespace) -> int:
    set_up("error", debug=hasattr(args, "debug"))
    project = settings.find_project()
    cfg = settings.load(CoordinatorConfig, args, project)
    db = settings.database(args, project, cfg)
    worker_cfg = settings.load(WorkerConfig, args, project)
    findings = asyncio.run(_look(db, cfg, worker_cfg, quiet=args.json))
    failed = [finding for finding in findings if finding.level == "FAIL"]
    if args.json:
        put_json({"ok": not failed, "findings": findings})
    elif failed:
        put(f"{len(failed)} of {len(findings)} checks failed")
    return cli.FAILED if failed else cli.FINISHED


async def _look(db: str, cfg: CoordinatorConfig, worker_cfg: WorkerConfig, *, quiet: bool) -> list[Finding]:
    findings = []
    async for finding in _checks(db, cfg, worker_cfg):
        findings.append(finding)
        if not quiet:
            _put(finding)
    return findings


async def _checks(db: str, cfg: CoordinatorConfig, worker_cfg: WorkerConfig) -> AsyncIterator[Finding]:
    from flowkit.cli.checks_code import of_packages_of_code
    from flowkit.cli.checks_policies import Served, of_policies
    from flowkit.cli.checks_sandbox import of_sandbox
    from flowkit.sandbox.levels import detect

    path = settings.file_of(db)
    for finding in of_python(cluster=path is None):
        yield finding
    report = await detect()
    for finding in of_sandbox(report):
        yield finding
    yield await of_packages_of_code(worker_cfg)
    here = Served(report, worker_cfg)
    for finding in of_policies(cfg, here):
        yield finding
    if path is not None:
        from flowkit.cli.checks_file import of_file

        async for finding in of_file(path, cfg, here):
            yield finding
        return

    from flowkit.cli.checks_cluster import of_kafka, of_mongo

    async for finding in of_mongo(db, cfg, here):
        yield finding
    async for finding in of_kafka(db, cfg):
        yield finding


def _put(finding: Finding) -> None:
    level = finding.level
    if fancy(sys.stdout):
        level = f"\x1b[{COLOURS[level]}m{level:<4}\x1b[0m"
    line = f"{level:<4}  {clean(finding.subject)}: {clean(finding.message)}"
    put(f"{line}; {clean(finding.hint)}" if finding.hint else line)
    sys.stdout.flush()
