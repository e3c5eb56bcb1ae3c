"""What can be said on the command line. Imports nothing but argparse: a mistyped option must not cost half a second."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from flowkit import __version__
from flowkit.cli.arguments import Parser, count, natural, rows, seconds, whole
from flowkit.cli.parser_service import add_service

NEVER = argparse.SUPPRESS

ABOUT = """Durable graphs of Python functions, in one process or on Kafka and MongoDB.

  flowkit run graph.json --handlers app --param name=Ada      run a graph to its end, here
  flowkit worker app --db flow.db                             serve what others create in this file
  flowkit tasks list --db flow.db                             what there is, and how it goes
"""

SETTINGS = """Settings count in this order: arguments, FLOWKIT_* and KAFKA_BOOTSTRAP_SERVERS, [tool.flowkit] of the
nearest pyproject.toml, defaults. DB is a SQLite file or a mongodb:// URL."""

GRAPH = "a JSON file, - for stdin, or module:attribute of a dict"

DEADLINE = "when the task must have ended: 2h (from now), 2027-01-31T18:00:00Z, or epoch seconds"
EXIT_CODES = "Exit codes: 0 finished, 1 failed, 2 bad usage or graph, 3 timeout, 130 interrupted."


def make_parser() -> ArgumentParser:
    parser = Parser(
        prog="flowkit", description=ABOUT, epilog=SETTINGS, formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"flowkit {__version__}")
    parser.add_argument("--debug", action="store_true", default=NEVER, help="show tracebacks")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _run(commands)
    _worker(commands)
    _coordinator(commands)
    _tasks(commands)
    _trace(commands)
    _flows(commands)
    _secrets(commands)
    add_service(_command(commands, "service", "service", "one of the five services by which FlowKit was known"))
    _graph(commands)
    _schema(commands)
    _doctor(commands)
    return parser


def _command(commands: Any, name: str, home: str, about: str, *, epilog: str = "") -> ArgumentParser:
    parser: ArgumentParser = commands.add_parser(name, help=about, description=about, epilog=epilog, allow_abbrev=False)
    parser.set_defaults(home=f"flowkit.cli.{home}", command=name, parser=parser)
    parser.add_argument("--debug", action="store_true", default=NEVER, help="show tracebacks")
    return parser


def _services(parser: ArgumentParser, db: str = "a SQLite file, or a mongodb:// URL") -> None:
    parser.add_argument("--db", default=NEVER, metavar="DB", help=db)
    parser.add_argument("--kafka", default=NEVER, metavar="ADDRESS", help="Kafka's address, host:port[,host:port]")
    parser.add_argument(
        "--set", action="append", default=NEVER, dest="settings", metavar="NAME=VALUE",
        help="any other setting, such as lease_ttl_sec=5; repeatable",
    )  # fmt: skip


def _json(parser: ArgumentParser, what: str = "JSON, for machines") -> None:
    parser.add_argument("--json", action="store_true", help=what)


def _shown(parser: ArgumentParser) -> None:
    parser.add_argument("--otel", action="store_true",
                        help="send OpenTelemetry spans to where OTEL_EXPORTER_OTLP_ENDPOINT says")  # fmt: skip
    parser.add_argument("--metrics-port", type=natural, metavar="PORT",
                        help="serve metrics for Prometheus at http://127.0.0.1:PORT/metrics; 0: any port")  # fmt: skip


def _log_level(parser: ArgumentParser) -> None:
    levels = ("debug", "info", "warning", "error")
    parser.add_argument("--log-level", choices=levels, default="info", help="of the log on stderr (default: info)")


def _run(commands: Any) -> None:
    about = "run a graph to its end in this process; its output goes to stdout as JSON, all else to stderr"
    parser = _command(commands, "run", "run", about, epilog=EXIT_CODES)
    parser.add_argument("graph", nargs="?", metavar="GRAPH", help=GRAPH)
    parser.add_argument("--flow", metavar="FLOW", help="instead of GRAPH: a flow of --db, NAME or NAME@VERSION")
    parser.add_argument(
        "--resume", metavar="TASK", help="instead of GRAPH: go on with a task of --db (its id, or last)"
    )
    parser.add_argument(
        "--handlers", action="append", default=[], metavar="MODULE[:ATTR]",
        help="where the functions are; repeatable (default: `handlers` of [tool.flowkit])",
    )  # fmt: skip
    parser.add_argument("--param", "-p", action="append", default=[], metavar="NAME=VALUE",
                        help="a param; JSON where it reads as JSON, else text; repeatable")  # fmt: skip
    parser.add_argument("--params", metavar="FILE", help="a file with a JSON object of params, or - for stdin")
    parser.add_argument(
        "--target", action="append", default=[], metavar="NODE", help="run only what it needs; repeatable"
    )
    parser.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help="label the task; repeatable")
    parser.add_argument("--priority", type=whole, metavar="N",
                        help="a higher one goes first where workers are short, or a limit is (default: 0)")  # fmt: skip
    parser.add_argument("--idempotency-key", metavar="KEY", help="the same key of the same db gives the same task")
    parser.add_argument("--detach", action="store_true", help="only create the task, and print its id")
    parser.add_argument("--timeout", type=seconds, metavar="SEC", help="wait no longer; the exit code is then 3")
    parser.add_argument("--deadline", metavar="TIME", help=DEADLINE)
    parser.add_argument("--slots", type=count, metavar="N", help="how many nodes run at once")
    parser.add_argument("--quiet", "-q", action="store_true", help="no progress")
    _services(parser, "keep the task in this file, so that it survives (default: a temporary one)")
    _shown(parser)
    _json(parser, "the whole result as JSON, not the output alone")


def _worker(commands: Any) -> None:
    about = "serve nodes until SIGTERM, which drains; a second one stops at once"
    parser = _command(commands, "worker", "services", about)
    parser.add_argument("handlers", nargs="*", metavar="MODULE[:ATTR]",
                        help="where the functions are (default: `handlers` of [tool.flowkit])")  # fmt: skip
    parser.add_argument("--role", action="append", default=[], metavar="ROLE", help="serve only this role; repeatable")
    parser.add_argument("--slots", type=count, metavar="N", help="how many attempts run at once")
    parser.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help="the worker's; repeatable")
    parser.add_argument("--drain-timeout", type=seconds, metavar="SEC", help="how long SIGTERM lets attempts finish")
    _services(parser)
    _shown(parser)
    _log_level(parser)


def _coordinator(commands: Any) -> None:
    parser = _command(commands, "coordinator", "services", "coordinate tasks until SIGTERM")
    _services(parser)
    _shown(parser)
    _log_level(parser)


def _tasks(commands: Any) -> None:
    parser = _command(commands, "tasks", "tasks", "list, show and steer tasks")
    _services(parser)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _tasks_list(verbs)
    show = _verb(verbs, "show", "a task: its nodes, times, errors and output")
    show.add_argument("--tree", action="store_true", help="its child tasks too, and theirs")
    cancel = _verb(verbs, "cancel", "cancel a task, or one node of it")
    cancel.add_argument("--node", metavar="NODE", help="only this node")
    cancel.add_argument("--reason", default="user_request", metavar="TEXT")
    cancel.add_argument("--grace", type=seconds, metavar="SEC", help="how long what runs has to stop (default: 30)")
    pause = _verb(verbs, "pause", "place no more nodes of a task; what runs goes on")
    pause.add_argument("--node", metavar="NODE", help="only this node: it, or what of it has not begun")
    pause.add_argument("--reason", default="", metavar="TEXT")
    _verb(verbs, "resume", "undo pause").add_argument("--node", metavar="NODE", help="only this node")
    signal = _verb(verbs, "signal", "give a signal to the node that waits for it, or will")
    signal.add_argument("name", metavar="NAME", help="the signal's name")
    signal.add_argument("--payload", metavar="JSON", help="what the node gets as its output (default: null)")
    _tasks_restart(verbs)
    _verb(verbs, "delete", "delete a task that has ended, and its children, for good")
    _verb(verbs, "explain", "why each node that does not run does not run")
    _tasks_logs(verbs)
    watch = _verb(verbs, "watch", "a task's transitions, replayed and then live, until its last")
    watch.add_argument("--since", type=natural, default=0, metavar="SEQ", help="only those after this commit")
    watch.add_argument("--items", action="store_true", help="a line for each item of a map and each run, not counts")


def _tasks_logs(verbs: Any) -> None:
    logs = _verb(verbs, "logs", "what the attempts of a task have said")
    logs.add_argument("--follow", "-f", action="store_true", help="what they say from now on too, until it has ended")
    logs.add_argument("--node", metavar="NODE", help="only this node, and its items")
    logs.add_argument("--attempt", type=count, metavar="N", help="only this attempt")
    logs.add_argument("--level", choices=("debug", "info", "warning", "error"), help="only from this level on")
    logs.add_argument("--since", metavar="TIME", help="said since: 30m, 2h, 7d, or an ISO time")
    logs.add_argument("--limit", type=count, metavar="N", help="at most so many lines (default: all)")


def _tasks_restart(verbs: Any) -> None:
    restart = _verb(verbs, "restart", "run a task that has ended again: the whole, or a part")
    which = restart.add_mutually_exclusive_group()
    which.add_argument("--from", dest="from_node", metavar="NODE", help="this node (or item) and all after it")
    which.add_argument("--failed-only", action="store_true", help="only what failed, and all after it")
    restart.add_argument("--param", "-p", action="append", default=[], metavar="NAME=VALUE",
                         help="another param; JSON where it reads as JSON, else text; repeatable")  # fmt: skip
    restart.add_argument("--input", action="append", default=[], metavar="NODE=JSON",
                         help="other inputs of a node; repeatable")  # fmt: skip
    restart.add_argument("--graph", metavar="GRAPH", help=f"an edited graph: {GRAPH}")
    restart.add_argument("--deadline", metavar="TIME", help=DEADLINE)
    restart.add_argument("--plan", action="store_true", help="only say what would run again and what is kept")


def _verb(verbs: Any, name: str, about: str, *, task: bool = True) -> ArgumentParser:
    parser: ArgumentParser = verbs.add_parser(name, help=about, description=about, allow_abbrev=False)
    parser.set_defaults(verb=name, parser=parser)
    if task:
        parser.add_argument("task", metavar="TASK", help="the task's id, or last")
    _services(parser)
    _json(parser)
    parser.add_argument("--debug", action="store_true", default=NEVER, help="show tracebacks")
    return parser


def _tasks_list(verbs: Any) -> None:
    parser = _verb(verbs, "list", "tasks, newest first", task=False)
    parser.add_argument("--status", action="append", default=[], metavar="STATUS", help="only these; repeatable")
    parser.add_argument("--label", action="append", default=[], metavar="NAME=VALUE", help="only with this; repeatable")
    parser.add_argument("--name", metavar="NAME", help="only of the graph of this name")
    parser.add_argument("--flow", metavar="FLOW", help="only of this flow: NAME, NAME@VERSION or NAME@TAG")
    parser.add_argument(
        "--parent", default="", metavar="TASK", help="the children of this task (default: tasks that are nobody's)"
    )
    parser.add_argument("--since", metavar="TIME", help="created since: 30m, 2h, 7d, or an ISO time")
    _paged(parser)


def _trace(commands: Any) -> None:
    about = "what happened to a task, and where its time went"
    parser = _command(commands, "trace", "trace", about)
    _services(parser)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    show = _verb(verbs, "show", "a task's path, and each attempt: how it ended, how long it waited and ran")
    show.add_argument("--node", metavar="NODE", help="only this one, with its inputs, outputs and tracebacks")
    _most(show, 200)
    _most(_verb(verbs, "waterfall", "who waited and ran when, as bars"), 200)
    _verb(verbs, "critical-path", "the chain of nodes that decided how long it took")
    _most(_verb(verbs, "bottlenecks", "what the time went to, and what would help"), 20)
    _trace_many(verbs)
    compare = _verb(verbs, "compare", "what differs between two tasks")
    compare.add_argument("other", metavar="OTHER", help="the other task's id, or last")
    _most(compare, 200)


def _trace_many(verbs: Any) -> None:
    slowest = _verb(verbs, "slowest", "the attempts of ended tasks that ran longest", task=False)
    slowest.add_argument("task", nargs="?", metavar="TASK", help="the nodes of this task instead (its id, or last)")
    history = _verb(verbs, "history", "percentiles and failure rates of ended tasks over time", task=False)
    for parser in (slowest, history):
        parser.add_argument("--flow", metavar="FLOW", help="only of this flow, or of graphs of this name")
        parser.add_argument("--node", metavar="NODE", help="only this node of the graph")
        parser.add_argument("--since", metavar="TIME", help="ended since: 30m, 2h, 7d (default), or an ISO time")
        _most(parser, 20 if parser is slowest else 500)
    by = "how long they ran (default), or what their programs used most of"
    slowest.add_argument("--by", choices=("run", "cpu", "memory"), default="run", help=by)
    history.add_argument("--bucket", default="1h", metavar="TIME", help="how long each span is: 5m, 1h (default), 1d")


def _most(parser: ArgumentParser, usual: int) -> None:
    parser.add_argument(
        "--limit", type=rows, default=usual, metavar="N", help=f"at most so many rows (default: {usual})"
    )


def _flows(commands: Any) -> None:
    parser = _command(commands, "flows", "flows", "put, show, tag and compare flows: graphs with a name and versions")
    _services(parser)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    put = _flow_verb(verbs, "put", "store a graph as the newest version of a flow, and print which that is", "name")
    put.add_argument("graph", metavar="GRAPH", help=GRAPH)
    put.add_argument("--tag", action="append", default=[], metavar="TAG", help="move this tag to it; repeatable")
    put.add_argument("--note", default="", metavar="TEXT", help="why there is this version")
    _paged(_flow_verb(verbs, "list", "flows, in order of their names"))
    show = _flow_verb(verbs, "show", "one version of a flow, and its graph", "flow")
    show.add_argument("--graph", action="store_true", help="print the graph alone, as JSON")
    _paged(_flow_verb(verbs, "versions", "the versions of a flow, newest first", "name"))
    tag = _flow_verb(verbs, "tag", "let tags name this version from now on", "flow")
    tag.add_argument("tags", nargs="+", metavar="TAG", help="such as default: what the name alone means")
    _flow_verb(verbs, "untag", "take a tag off a flow", "name").add_argument("tag", metavar="TAG")
    _flow_verb(verbs, "diff", "what differs between two versions", "old", "new")
    validate = _flow_verb(verbs, "validate", "say whether a graph is well-formed; nothing is run or stored")
    validate.add_argument("graph", metavar="GRAPH", help=GRAPH)


def _flow_verb(verbs: Any, name: str, about: str, *words: str) -> ArgumentParser:
    parser = _verb(verbs, name, about, task=False)
    for word in words:
        if word == "name":
            parser.add_argument(word, metavar="NAME", help="the flow's name")
        else:
            parser.add_argument(word, metavar=word.upper(), help="NAME (its default), NAME@VERSION or NAME@TAG")
    return parser


def _secrets(commands: Any) -> None:
    about = "set, list, delete and rotate secrets; a value comes from stdin or a prompt, and is never an argument"
    parser = _command(commands, "secrets", "secrets", about)
    _services(parser)
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    set_ = _secret_verb(verbs, "set", "store the value on stdin, or typed at a prompt, as the newest version")
    set_.set_defaults(surplus="a value is never an argument: give it on stdin, or at the prompt")
    set_.add_argument("--keep-newline", action="store_true", help="the newline at the end of stdin is part of it")
    _users(set_)
    allow = _secret_verb(verbs, "allow", "say anew which flows and nodes may use a secret")
    _users(allow)
    allow.add_argument("--any-flow", action="store_true", help="any flow may, and tasks of none")
    allow.add_argument("--any-node", action="store_true", help="any node that lists it may")
    get = _secret_verb(verbs, "get", "what is known of a secret: its version, who set it, who may use it", ref=True)
    get.add_argument("--reveal", action="store_true", help="print its value; that is recorded")
    list_ = _verb(verbs, "list", "secrets, in order of their names; no values", task=False)
    _paged(list_)
    delete = _secret_verb(verbs, "delete", "delete a secret with all its versions")
    delete.add_argument("--below", type=count, metavar="VERSION", help="only the versions below this one")
    rotate = _verb(verbs, "rotate", "bring all secrets, of all tenants, under a new master key", task=False)
    rotate.add_argument("--new-key", action="store_true", help="make one even if the last rotation is not done yet")
    _secrets_serve(verbs)
    audit = _verb(verbs, "audit", "who did what with secrets, newest first", task=False)
    audit.add_argument("name", nargs="?", metavar="NAME", help="only with this one")
    _paged(audit)
    audit.add_argument("--verify", action="store_true", help="tell the first row that was changed, removed or inserted")
    audit.add_argument(
        "--noted", metavar="NUMBER:DIGEST", help="with --verify: the last row, as an earlier one gave it"
    )
    for verb in (set_, allow, get, list_, delete, rotate, audit):
        verb.add_argument("--tenant", default="default", metavar="TENANT", help="whose secrets (default: default)")


def _secrets_serve(verbs: Any) -> None:
    serve = _verb(verbs, "serve", "give workers the secrets of their attempts, until SIGTERM", task=False)
    serve.set_defaults(home="flowkit.cli.secrets_serve")
    serve.add_argument("--listen", default="127.0.0.1:8000", metavar="ADDRESS",
                       help="host:port or unix:/path (default: 127.0.0.1:8000); other machines need TLS")  # fmt: skip
    serve.add_argument("--tls-cert", metavar="FILE", help="the certificate to show")
    serve.add_argument("--tls-key", metavar="FILE", help="its private key")
    serve.add_argument("--client-ca", metavar="FILE", help="hear only workers with a certificate of this authority")
    _log_level(serve)


def _secret_verb(verbs: Any, name: str, about: str, *, ref: bool = False) -> ArgumentParser:
    parser = _verb(verbs, name, about, task=False)
    what = "NAME, or NAME@VERSION" if ref else "the secret's name"
    parser.add_argument("name", metavar="NAME", help=what)
    return parser


def _users(parser: ArgumentParser) -> None:
    parser.add_argument("--flow", action="append", default=[], metavar="FLOW",
                        help="only this flow may use it; a pattern may have * and ?; repeatable")  # fmt: skip
    parser.add_argument("--node", action="append", default=[], metavar="NODE",
                        help="only nodes of this name may use it; likewise; repeatable")  # fmt: skip


def _paged(parser: ArgumentParser) -> None:
    parser.add_argument("--limit", type=rows, default=20, metavar="N", help="at most so many (default: 20)")
    parser.add_argument("--cursor", metavar="CURSOR", help="go on where the page before ended")


def _graph(commands: Any) -> None:
    parser = _command(commands, "graph", "graph", "check a graph, or draw it", epilog=EXIT_CODES)
    parser.add_argument("graph", metavar="GRAPH", help=GRAPH)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--mermaid", action="store_true", help="print it as a Mermaid flowchart (the default)")
    what.add_argument("--check", action="store_true", help="only say whether it is well-formed")


def _schema(commands: Any) -> None:
    _command(commands, "schema", "graph", "print the JSON Schema of graphs")


def _doctor(commands: Any) -> None:
    parser = _command(commands, "doctor", "doctor", "check services, topics, versions and clocks; exit code 1 on FAIL")
    _services(parser)
    _json(parser)
