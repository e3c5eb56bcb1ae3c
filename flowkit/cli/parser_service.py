"""What can be said behind `flowkit service`. Imports nothing but argparse, as `flowkit.cli.parser`."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from flowkit.cli.arguments import seconds

ABOUT = """One of the five services of FlowKit's predecessors, over what FlowKit is: by their names, settings and HTTP
verbs. Each listens on loopback, and makes a file with tokens when it is first started."""

KINDS = {
    "control-unit": "runs flows whose nodes choose by name what is next (port 9500)",
    "trace-monitor": "shows what ran, node by node (port 9000)",
    "node-runner": "runs a node's code on a node processing unit (port 8500)",
    "secret-manager": "keeps secrets, sealed (port 8000)",
    "npu": "a node processing unit: runs code in the sandbox (a free port from 10000 on)",
}

SETTINGS = """Settings count in this order: arguments, the environment, the .env file, defaults. HOST, PORT, MONGODB,
DB_NAME and the others have the names that they always had; docs/services.md lists them. SIGTERM drains."""


def add_service(command: ArgumentParser) -> None:
    """The arguments of `flowkit service`, for a parser that has its name and its home."""
    command.description = ABOUT
    kinds = command.add_subparsers(title="services", metavar="SERVICE", required=True)
    for name, about in KINDS.items():
        parser: ArgumentParser = kinds.add_parser(
            name, help=about, description=about, epilog=SETTINGS, formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )  # fmt: skip
        parser.set_defaults(service=name, parser=parser)
        _common(parser)
        if name == "npu":
            _passes(parser)


def _common(parser: ArgumentParser) -> None:
    parser.add_argument("--env-file", metavar="FILE", help="its settings (default: .env here, where there is one)")
    parser.add_argument("--host", metavar="HOST", help="where to listen (default: 127.0.0.1); elsewhere needs TLS")
    parser.add_argument("--port", metavar="PORT", help="0: a free one")
    parser.add_argument("--token-file", metavar="FILE", help="its tokens (default: flowkit-SERVICE.token here)")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="NAME=VALUE",
                        help="any other setting, such as DB_NAME=flows; repeatable")  # fmt: skip
    levels = ("debug", "info", "warning", "error")
    parser.add_argument("--log-level", choices=levels, default="info", help="of the log on stderr (default: info)")
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")


def _passes(parser: Any) -> None:
    more = parser.add_argument_group("a pass for a script that is run by hand; nothing is started then")
    more.add_argument("--pass", dest="runner_id", metavar="RUNNER_ID",
                      help="print one for this run (a UUID): the script's FLOWKIT_NODE_TOKEN")  # fmt: skip
    more.add_argument("--secret", action="append", default=[], metavar="NAME", help="it may look this up; repeatable")
    more.add_argument("--node", default="by-hand", metavar="NODE", help="for secrets that are for some nodes alone")
    more.add_argument("--valid", type=seconds, default=86_400.0, metavar="SEC", help="for how long (default: a day)")
