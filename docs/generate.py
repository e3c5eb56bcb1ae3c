"""Writes what the code knows best into the documentation, between `<!-- generated: x -->` and `<!-- end: x -->`.

python docs/generate.py            writes them
python docs/generate.py --check    says what is out of date, and fails if anything is
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

# This tree's code, whichever is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from flowkit import config, errors, measures
from flowkit.core import code_keys, keys, kinds, lane_keys
from flowkit.core import facts as f
from flowkit.core import permits as p
from flowkit.core import reports as r
from flowkit.core.decide import decide
from flowkit.core.dialect import parse_graph
from flowkit.core.evolve import evolve
from flowkit.core.model import Task
from flowkit.core.payload import Payload
from flowkit.core.transitions import TABLE, to_mermaid
from flowkit.otel import names
from flowkit.ports import Commit, Record
from flowkit.sandbox.seccomp import REFUSED, SHARED_IPC, UNKNOWN
from flowkit.testing import teeth
from flowkit.testing.directed import DIRECTED
from flowkit.testing.guards import GUARDS, HARMLESS, Guard
from flowkit.testing.kinds import KINDS
from flowkit.wire import events as e
from flowkit.wire import messages as m
from flowkit.wire.facts import body_of, encode_facts, row_of
from flowkit.wire.logs import LEVELS, SaidBlock, encode_line, encode_logs
from flowkit.wire.topics import Topics
from flowkit.worker.registry import Registry
from flowkit.worker.schema import schemas_of
from tests.sandbox.escapes import GROUPS, NOT_CLAIMED

DOCS = Path(__file__).resolve().parent
PACKAGE = DOCS.parent / "flowkit"
MARK = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)

Part = Callable[[], str]


def main() -> int:
    for name in [name for name in os.environ if name.startswith(("FLOWKIT_", "KAFKA_"))]:
        del os.environ[name]  # defaults that the environment sets are not those of the page
    check = "--check" in sys.argv[1:]
    stale = 0
    for page in sorted(DOCS.rglob("*.md")):
        before = page.read_text()
        after = MARK.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]().strip()}\n\n{found[3]}", before)
        if after == before:
            continue
        stale += 1
        if check:
            print(f"docs/{page.relative_to(DOCS)} is out of date; run: python docs/generate.py")
            print("\n".join(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=1)))
        else:
            page.write_text(after)
            print(f"docs/{page.relative_to(DOCS)} written")
    return 1 if check and stale else 0


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(head)
    lines = [names, ["---"] * len(names), *map(list, rows)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )


def fenced(text: str, kind: str = "") -> str:
    return f"```{kind}\n{text.rstrip()}\n```"


def sentence(thing: type) -> str:
    """The docstring on one line, less what repeats the name; nothing where a dataclass wrote its own."""
    text = " ".join((thing.__doc__ or "").split())
    return "" if text.startswith(f"{thing.__name__}(") else text


# ---------------------------------------------------------------------------------------------- the dialect

RECORDS = {
    "Graph": keys.GRAPH,
    "Node": keys.NODE,
    "Edge": keys.EDGE,
    "fan_in": keys.FAN_IN_COUNT,
    "retry_policy": keys.RETRY_POLICY,
    "rules of a retry_policy": keys.RULE,
    "timeouts": keys.TIMEOUTS,
    "repeat": keys.REPEAT,
    "cache": keys.CACHE,
    "compensate": keys.COMPENSATE,
    "budget": keys.BUDGET,
    "stream": keys.STREAM,
    "sticky": lane_keys.FOLLOWS,
    "limits": keys.LIMIT_ENTRY,
    "code": code_keys.CODE,
    "sandbox": code_keys.SANDBOX,
    "on_oom": code_keys.ON_OOM,
    "policy": code_keys.POLICY,
    "io": keys.IO,
    "routing": keys.ROUTING,
}


def keys_of_graphs() -> str:
    parts = []
    for title, record in RECORDS.items():
        rows = [
            (f"`{name}`{' (required)' if key.required else ''}", in_words(key.kind), key.about)
            for name, key in record.keys.items()
            if not key.old
        ]
        if rows:
            parts.append(f"**{title}**\n\n" + table(("key", "value", "what it says"), rows))
    old = [
        (f"`{name}`", title.lower(), key.about)
        for title, record in RECORDS.items()
        for name, key in record.keys.items()
        if key.old or title == "routing"
    ]
    parts.append(
        "**Older keys**, read and stored in today's form\n\n" + table(("key", "of", "what becomes of it"), old)
    )
    return "\n\n".join(parts)


def in_words(kind: object) -> str:
    """What a key takes. A kind that this function does not know is an error: the table must not be silent about it."""
    match kind:
        case keys.FanInKind():
            return '`"all"`, `"any"` or `{"count": n}`'
        case keys.EdgeKind():
            return '`["a", "b"]` or `{"from": "a", "to": "b"}`'
        case kinds.Text(longest=longest, says=says):
            return f"{says.removeprefix('a ')}, at most {longest:,} characters"
        case kinds.Flag():
            return "`true` or `false`"
        case kinds.Number(low=low, high=high, whole=whole, above=above):
            noun = "whole number" if whole else "number"
            return f"{noun} above {low:g}, at most {high:,.0f}" if above else f"{noun} from {_low(low)} to {high:,.0f}"
        case kinds.Choice(words=words):
            return " or ".join(f'`"{word}"`' for word in words)
        case kinds.ListOf(says=says):
            return says.removeprefix("a ")
        case kinds.Json(only_object=only_object):
            return "object" if only_object else "any JSON"
        case kinds.Holes():
            return "any JSON, with holes such as `$from`"
        case kinds.Moment(holes=holes):
            return "time with its zone, or epoch seconds" + ("; or a template of the params" if holes else "")
        case kinds.Formula(roots=roots):
            return f"expression over {', '.join(f'`{root}`' for root in roots)}"
        case kinds.SubGraph():
            return "graph"
        case lane_keys.LabelsKind():
            return 'object of labels such as `{"zone": "eu", "gpu": ["a100", "h100"]}`'
        case lane_keys.StickyKind():
            return '`"task"`, or object, see **sticky**'
        case code_keys.FewOf(items=items):
            return items.says.removeprefix("a ")
        case code_keys.Allowing():
            return '`"none"` or a list of names or patterns'
        case code_keys.OwnPolicy():
            return "object, see **policy**, or a list of such"
        case code_keys.NetworkKind():
            return '`"none"` or a list of addresses'
        case kinds.Record(says=says):
            return (
                f"object, see **{says.removeprefix('a ').strip('`')}**"
                if says != "timeouts"
                else "object, see **timeouts**"
            )
        case kinds.Ignored():
            return "anything"
    raise AssertionError(f"say in words what a {type(kind).__name__} takes")


def _low(number: float) -> str:
    return f"{number:,.0f}" if number == int(number) else f"{number:g}"


N = {"node_id": "a", "type": "greet"}

# The smallest graph that provokes each code. What the engine says about it is what the page shows.
MISTAKES: dict[str, Any] = {
    "E_TYPE": {"nodes": [N | {"depends_on": "a"}]},
    "E_EMPTY": {"nodes": []},
    "E_KEY_MISSING": {"nodes": [{"node_id": "a"}]},
    "E_KEY_UNKNOWN": {"nodes": [N | {"input": {}}]},
    "E_KEY_CONFLICT": {"nodes": [N | {"timeout_sec": 1, "timeouts": {"run_sec": 2}}]},
    "E_NODE_ID": {"nodes": [N | {"node_id": "a/b"}]},
    "E_DEADLINE": {"nodes": [N | {"deadline": "2030-01-01T00:00:00"}]},
    "E_NODE_TYPE": {"nodes": [N | {"type": "say hello"}]},
    "E_NODE_DUPLICATE_ID": {"nodes": [N, N]},
    "E_PARENT_UNKNOWN": {"nodes": [{"node_id": "load", "type": "load"}, N | {"depends_on": ["laod"]}]},
    "E_CHILD_UNKNOWN": {"nodes": [N], "edges": [["a", "b"]]},
    "E_EDGE": {"nodes": [N], "edges": [["a"]]},
    "E_EDGE_DUPLICATE": {
        "nodes": [N, N | {"node_id": "b"}],
        "edges": [["a", "b"], {"from": "a", "to": "b", "on": "failure"}],
    },
    "E_CYCLE": {"nodes": [N, N | {"node_id": "b"}], "edges": [["a", "b"], ["b", "a"]]},
    "E_FAN_IN": {"nodes": [N, N | {"node_id": "b", "depends_on": ["a"], "fan_in": {"count": 2}}]},
    "E_CHOICE": {"nodes": [N, N | {"node_id": "b"}], "edges": [{"from": "a", "to": "b", "on": "sucess"}]},
    "E_RANGE": {"nodes": [N | {"timeout_sec": 0}]},
    "E_LIMIT": {"nodes": [N | {"limits": [{"key": "db", "max": 3, "per_sec": 60}]}]},
    "E_LIMIT_KEY": {"nodes": [N | {"limits": [{"key": "db:{tenants}", "max": 3}]}]},
    "E_LIMIT_PARAM": None,
    "E_VALUE": {"nodes": [N | {"inputs": {"x": float("nan")}}]},
    "E_VERSION": {"schema_version": "7", "nodes": [N]},
    "E_REFERENCE": {"nodes": [N, N | {"node_id": "b", "inputs": {"x": {"$from": "a.[0"}}}]},
    "E_REFERENCE_UNKNOWN": {
        "nodes": [{"node_id": "load", "type": "load"}, N | {"inputs": {"x": {"$from": "lod.rows"}}}]
    },
    "E_TEMPLATE": {"nodes": [N | {"inputs": {"x": {"$form": "a"}}}]},
    "E_EXPR_PARSE": {"nodes": [N, N | {"node_id": "b"}], "edges": [{"from": "a", "to": "b", "when": "output.n >"}]},
    "E_EXPR_NODE": {
        "nodes": [N, N | {"node_id": "b"}, N | {"node_id": "c"}],
        "edges": [{"from": "a", "to": "b", "when": "nodes['c'].output > 1"}],
    },
    "E_SUBGRAPH": {"nodes": [{"node_id": "a", "type": "task"}]},
    "E_FLOW_NAME": {"nodes": [{"node_id": "a", "type": "task", "flow": "my flow"}]},
    "E_STREAM": {"nodes": [N, N | {"node_id": "b", "inputs": {"rows": {"$stream": "a"}}, "foreach": [1]}]},
    "E_STICKY_UNKNOWN": {"nodes": [N | {"sticky": {"node": "lod"}}, N | {"node_id": "load"}]},
    "E_SCHEMA": None,
    "E_DEPTH": None,
    "E_SIZE": None,
    "E_MORE": None,
    "E_CODE": {"nodes": [{"node_id": "a", "type": "code", "code": {"file": "../clean.py"}}]},
    "E_SECRET": {"nodes": [{"node_id": "a", "type": "code", "code": {"source": "key = '{{{secret::API_KEY}}}'"}}]},
    "E_POLICY": None,
    "E_PARAMS_SIZE": None,
    "E_TARGET_UNKNOWN": None,
    "E_INPUTS": None,
    "E_ROLE_UNKNOWN": None,
    "E_ADAPTER_UNKNOWN": None,
    "E_NODE_UNKNOWN": None,
    "E_PAYLOAD": None,
    "E_PAYLOAD_SIZE": None,
}
TOLD = {
    "E_SCHEMA": "the `schema` of a signal node is no JSON Schema",
    "E_NODE_UNKNOWN": "a restart gives new `inputs` to a node that the graph does not have",
    "E_POLICY": "code asks for more than a [policy](sandbox.md#policies) allows; the message says whose, and how much",
    "E_PAYLOAD": "a signal's payload does not fit the `schema` of the node that waits for it",
    "E_PAYLOAD_SIZE": "a signal's payload is over 1 MiB; pass a reference instead",
    "E_DEPTH": "values are nested too deep; flatten them",
    "E_SIZE": "the graph holds too many values to be read; pass large data by reference",
    "E_MORE": "there are more than 50 problems; mend these first",
    "E_PARAMS_SIZE": "the params are over 1 MiB; pass a reference instead",
    "E_LIMIT_PARAM": "the key of a limit names a param that is not there, or that is no string or number",
    "E_TARGET_UNKNOWN": "one of `targets` is no node of the graph",
    "E_INPUTS": "what a node is given cannot fit its handler: a name is missing or unknown, or a value of another kind",
    "E_ROLE_UNKNOWN": "the type is not one of the coordinator's `worker_types`, where it was given any",
    "E_ADAPTER_UNKNOWN": "a `coordinator_fn` node names a function that its coordinator was not given",
}


def error_codes() -> str:
    raised = codes_in_code()
    if raised != MISTAKES.keys():
        raise SystemExit(f"MISTAKES in docs/generate.py and the code differ in {sorted(raised ^ MISTAKES.keys())}")
    return table(("code", "for example", "what is said"), (_code_row(code) for code in MISTAKES))


def _code_row(code: str) -> tuple[str, str, str]:
    if MISTAKES[code] is None:
        return f"`{code}`", "", TOLD[code]
    try:
        parse_graph(MISTAKES[code])
    except errors.GraphError as error:
        problem = next(problem for problem in error.problems if problem.code == code)
        return f"`{code}`", f"`{problem.place}`", problem.message.partition("\n")[0].replace("<", "&lt;")
    raise SystemExit(f"docs/generate.py: this is no mistake any more: {MISTAKES[code]}")


CREATING = ("acceptance", "steering", "admission", "adapters", "schemas")
"""The coordinator's files that refuse what is asked for."""


def codes_in_code() -> set[str]:
    """Every `E_...` that the code which reads graphs and creates tasks can say."""
    found = set()
    files = [
        *(PACKAGE / "core").glob("*.py"),
        *(PACKAGE / "coordinator" / f"{name}.py" for name in CREATING),
    ]
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text()))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"E_[A-Z_]+", node.value):
            found.add(node.value)
    return found


# ---------------------------------------------------------------------------------------------- exceptions, settings


def exceptions() -> str:
    found = [
        thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, errors.FlowKitError)
    ]
    rows = [(f"`{kind.__name__}`", f"`{kind.code}`", sentence(kind).replace("`", "")) for kind in found]
    return table(("exception", "code", "when"), rows)


def settings() -> str:
    parts = []
    common = {field.name for field in dataclasses.fields(config.CommonSettings)}
    for title, kind, own in (
        ("Both", config.CommonSettings, common),
        ("`CoordinatorConfig`", config.CoordinatorConfig, None),
        ("`WorkerConfig`", config.WorkerConfig, None),
    ):
        rows = [
            (f"`{field.name}`", f"`{field.type}`".replace(" | ", " or "), f"`{_default(field)}`")
            for field in dataclasses.fields(kind)
            if own is not None or field.name not in common
        ]
        parts.append(f"**{title}**: {sentence(kind)}\n\n" + table(("setting", "type", "default"), rows))
    return "\n\n".join(parts)


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default if field.default is not dataclasses.MISSING else field.default_factory()  # type: ignore[misc]
    return json.dumps(value) if isinstance(value, str) else repr(value)


# ---------------------------------------------------------------------------------------------- states

COORDINATOR, WORKER, INCARNATION = "c-41d09c3b", "w-7d2f40aa", "9be14c07"
TOKEN = f"{COORDINATOR}.27"
BEGAN = 1_795_000_000.0
Change = tuple[str, str, str]


class Story:
    """A task that is told reports; `nodes` and `tasks` gather every change of state that a recorded fact made."""

    def __init__(self, graph: Any, *, timeout_sec: float | None = None) -> None:
        self.graph = parse_graph(graph)
        self.task = self._new(timeout_sec)
        self.mirror = self._new(timeout_sec)
        self.now = BEGAN
        self.nodes: list[Change] = []
        self.tasks: list[Change] = []
        self.tags: set[str] = set()
        self.decisions: list[list[f.Fact]] = []
        self.tokens: dict[str, str] = {}

    def _new(self, timeout_sec: float | None) -> Task:
        return Task(task_id="t", graph=self.graph, params={}, timeout_sec=timeout_sec)

    def tell(self, *reports: r.Report) -> Story:
        recorded = list(decide(self.task, reports, self.now).recorded)
        self.decisions.append(recorded)
        for fact in recorded:
            before = {name: run.state for name, run in self.mirror.runs.items()}
            status = self.mirror.status
            evolve(self.mirror, fact, self.now)
            tag = str(row_of(fact)[0])
            self.tags.add(tag)
            for name, run in self.mirror.runs.items():
                was = before.get(name, "pending")  # an item or a repetition that came to exist just now
                if run.state != was:
                    self.nodes.append((was, run.state, tag))
            if self.mirror.status != status:
                self.tasks.append((status, self.mirror.status, tag))
        return self

    def later(self, sec: float) -> Story:
        self.now += sec
        return self.tell(r.TimeReached())

    def place(self, *names: str) -> Story:
        for name in names:
            self.tokens[name] = f"{COORDINATOR}.{26 + len(self.decisions)}"
        return self.tell(*(r.Placed(name, self.tokens[name], WORKER, INCARNATION, 812.5) for name in names))

    def report(self, kind: type, name: str, *more: Any) -> Story:
        return self.tell(kind(name, self.task.runs[name].attempt, self.tokens[name], *more))

    def ask(self, kind: str, **args: Any) -> Story:
        return self.tell(r.Requested(self.task.applied + 1, "q", kind, args, "ada"))


def chain(**of_a: Any) -> dict[str, Any]:
    return {"nodes": [{"node_id": "a", "type": "x", **of_a}, {"node_id": "b", "type": "x", "depends_on": ["a"]}]}


def stories() -> Iterator[Story]:
    error = {"code": "RuntimeError", "message": "no"}
    begun = r.Accepted()
    once = {"max": 1}
    yield (
        Story(chain())
        .tell(begun)
        .place("a")
        .report(r.Started, "a")
        .report(r.Succeeded, "a", Payload(1))
        .place("b")
        .report(r.Succeeded, "b", Payload(2))
        .ask("restart")
    )
    yield (
        Story(chain())
        .tell(begun)
        .place("a")
        .report(r.Failed, "a", error)
        .later(60)
        .place("a")
        .report(r.Failed, "a", error, True)
        .ask("restart", failed_only=True)
    )
    yield (
        Story(chain())
        .tell(begun)
        .place("a")
        .report(r.Expired, "a")
        .place("a")
        .report(r.Declined, "a")
        .place("a")
        .report(r.Declined, "a")
        .later(5)
        .place("a")
        .report(r.Released, "a")
        .place("a")
        .report(r.Expired, "a")
    )
    yield Story(chain(retry_policy=once | {"lost_max": 1})).tell(begun).place("a").report(r.Expired, "a")
    yield Story(chain()).tell(begun).place("a").ask("cancel").report(r.Released, "a")
    yield Story(chain()).tell(begun).ask("pause").ask("resume").ask("pause").ask("cancel")
    yield Story(chain()).tell(begun).place("a").report(r.Failed, "a", error).ask("cancel").ask("restart")
    yield (
        Story(chain())
        .tell(begun)
        .place("a")
        .ask("cancel", node_id="a", grace_sec=1)
        .later(2)
        .ask("restart", from_node="a")
    )
    yield Story(chain()).tell(begun).ask("cancel", node_id="b").ask("cancel", node_id="a")
    yield Story(chain(timeouts={"queued_sec": 1}, continue_on_failure=True)).tell(begun).later(2)
    yield Story(chain(timeouts={"total_sec": 1})).tell(begun).place("a").later(2)
    yield (
        Story(chain(timeouts={"total_sec": 1}))
        .tell(begun)
        .place("a")
        .report(r.Failed, "a", error, False, 60.0)
        .later(2)
    )
    yield Story(chain(), timeout_sec=1).tell(begun).later(2)
    yield Story(chain()).tell(r.Accepted(("a",)))
    yield Story(chain(limits=[{"key": "k", "max": 1}])).tell(begun).tell(r.PermitsUnused("a", (0, 1, 0)))
    yield from more_stories()


def more_stories() -> Iterator[Story]:
    """What a graph says beside which node waits for which: conditions, groups, waits, sub-graphs, what is undone."""
    error, begun = {"code": "RuntimeError", "message": "no"}, r.Accepted()
    once = {"retry_policy": {"max": 1}}
    edge = {"from": "a", "to": "b", "when": "output > 1"}
    yield (
        Story({"nodes": [N, N | {"node_id": "b", "when": "params == {}"}], "edges": [edge]})
        .tell(begun)
        .place("a")
        .report(r.Succeeded, "a", Payload(2))
    )
    yield Story({"nodes": [N | {"when": "has(params.x)"}]}).tell(begun)
    yield Story({"nodes": [N | {"when": "params.x"}]}).tell(begun)
    yield (
        Story(chain(foreach=[1, 2], **once))
        .tell(begun)
        .place("a[0]", "a[1]")
        .report(r.Succeeded, "a[0]", Payload(1))
        .report(r.Succeeded, "a[1]", Payload(2))
        .ask("cancel", node_id="b")
        .ask("restart", from_node="a[1]")
        .place("a[1]")
        .report(r.Failed, "a[1]", error)
        .ask("restart", failed_only=True)
        .ask("cancel")
    )
    yield Story(chain(foreach=[1, 2])).tell(begun).place("a[0]").ask("cancel", node_id="a").later(40)
    yield (
        Story(chain(repeat={"until": "output == 2", "every_sec": 1}))
        .tell(begun)
        .place("a#1")
        .report(r.Succeeded, "a#1", Payload(1))
        .later(1)
        .place("a#2")
        .report(r.Succeeded, "a#2", Payload(2))
    )
    yield Story({"nodes": [{"node_id": "a", "type": "sleep", "inputs": {"seconds": 5}}]}).tell(begun).later(5)
    yield Story({"nodes": [{"node_id": "a", "type": "signal"}]}).tell(begun).ask("signal", name="a", payload=True)
    yield Story({"nodes": [{"node_id": "a", "type": "signal", "timeouts": {"total_sec": 5}}]}).tell(begun).later(5)
    yield Story({"nodes": [{"node_id": "a", "type": "sleep", "inputs": {"seconds": 5}}]}).tell(begun).ask("cancel")
    for status, grace in (("finished", False), ("failed", False), ("cancelled", True)):
        story = Story({"nodes": [{"node_id": "a", "type": "task", "graph": {"nodes": [N]}}]}).tell(begun)
        if grace:
            story.ask("cancel", node_id="a")
        child = story.task.runs["a"].child
        story.tell(r.ChildEnded("a", 1, child, status, Payload(1), None if status == "finished" else error))
        yield story
        if status == "failed":
            story.ask("restart", failed_only=True)
            story.tell(r.ChildGone("a", 2, child, "it was deleted"))
    yield Story(chain()).tell(begun).ask("continue", attempt=2)
    yield Story(chain(deadline=BEGAN + 5)).tell(begun).later(5)
    count = {"node_id": "a", "type": "coordinator_fn", "io": {"fn": "vars.incr", "fn_args": {"key": "n"}}}
    yield Story({"nodes": [count]}).tell(begun)
    yield Story(chain()).tell(begun).ask("pause", node_id="a").ask("resume", node_id="a")
    yield (
        Story(chain(compensate={"type": "x"}))
        .tell(begun)
        .place("a")
        .report(r.Succeeded, "a", Payload(1))
        .place("b")
        .report(r.Failed, "b", error, True)
        .place("a/compensate")
        .report(r.Succeeded, "a/compensate", Payload(None))
    )
    yield Story({"nodes": [N, {"node_id": "stop", "type": "end"}]}).tell(begun)
    reader = {"node_id": "b", "type": "x", "inputs": {"rows": {"$stream": "a"}}, "start_when": "first_batch"}
    yield Story({"nodes": [N, reader]}).tell(begun).place("a").report(r.Streams, "a").place("b")


def node_states() -> str:
    return _diagram([change for story in told() for change in story.nodes], "pending")


def task_states() -> str:
    return _diagram([change for story in told() for change in story.tasks], "queued")


def told() -> list[Story]:
    found = list(stories())
    silent = f.TAGS.keys() - {tag for story in found for tag in story.tags}
    if silent:
        raise SystemExit(f"no story in docs/generate.py records {sorted(silent)}")
    return found


def _diagram(changes: Iterable[Change], first: str) -> str:
    labels: dict[tuple[str, str], dict[str, None]] = {}
    for before, after, tag in changes:
        labels.setdefault((str(before), str(after)), {})[tag] = None
    lines = [f"    {before} --> {after}: {', '.join(sorted(tags))}" for (before, after), tags in sorted(labels.items())]
    return fenced("\n".join(["stateDiagram-v2", f"    [*] --> {first}", *lines]), "mermaid")


def attempt_states() -> str:
    return fenced(to_mermaid(), "mermaid")


def attempt_table() -> str:
    states = list(TABLE)
    rows = [
        (f"`{report.__name__}`", *(_verdict(TABLE[state][report]) for state in states)) for report in TABLE[states[0]]
    ]
    return table(("report", *(f"in `{state}`" for state in states)), rows)


def _verdict(verdict: str) -> str:
    return "stale" if verdict == "stale" else f"**{verdict}**"


def facts_table() -> str:
    rows = [
        (
            f"`{tag}`",
            f"`{kind.__name__}`",
            ", ".join(f"`{field.name}`" for field in dataclasses.fields(kind)),
            sentence(kind),
        )
        for tag, kind in f.TAGS.items()
    ]
    return table(("tag", "fact", "fields, in order", "what it says"), rows)


# ---------------------------------------------------------------------------------------------- messages


def shout(text: str) -> str:
    return text.upper() + "!"


TASK, TENANT = "01a1fd30-08d4-752d-a6e7-2d7679606763", "default"
LIMIT = "limit:0b4ba4b7da8a1e8b1fa6b0d8b1a0a0ee"
JOB = m.Job(
    task_id=TASK, tenant=TENANT, principal="local", partition=5, node="loud", role="shout", attempt=1, token=TOKEN,
    generation=0, accept_by=812.5, inputs={"text": "hello Ada"}, params={"name": "Ada"}, run_sec=30.0,
)  # fmt: skip
STOP = m.Stop(TOKEN, TASK, "loud", 1, "user_request", 30.0)
HELD = m.Held(TOKEN, TASK, TENANT, 5, "loud", 1)
ERROR = {"code": "ConnectionError", "message": "no answer", "type": "ConnectionError"}
REPORTS: dict[str, r.AttemptReport | r.ChildEnded] = {
    "started": r.Started("loud", 1, TOKEN),
    "succeeded": r.Succeeded("loud", 1, TOKEN, Payload("HELLO ADA!"), None, 0.004),
    "failed": r.Failed("loud", 1, TOKEN, ERROR, False, None, 2.5),
    "declined": r.Declined("loud", 1, TOKEN, "draining"),
    "released": r.Released("loud", 1, TOKEN, "drain"),
    "streams": r.Streams("loud", 1, TOKEN),
    "child_ended": r.ChildEnded("loud", 1, "5f1c6a2e-7d0b-8a41-9c55-2b90e1d3f7aa", "finished", Payload("HELLO ADA!")),
}  # fmt: skip
CLAIM = (0, 1, 0)
LETTERS: dict[str, p.Letter] = {
    "permit_wanted": p.PermitWanted(TASK, 5, "loud", CLAIM, 3, 1, 0.0, 1.0, 1, 0, 2.5),
    "permit_over": p.PermitOver(TASK, "loud", CLAIM),
    "permit_granted": p.PermitGranted(LIMIT, "loud", CLAIM),
    "permit_delayed": p.PermitDelayed(LIMIT, "loud", CLAIM, 4, 3),
    "permit_asked": p.PermitAsked(LIMIT, "loud", CLAIM),
}
FLEET: dict[type, Any] = {
    m.Hello: m.Hello(
        WORKER, INCARNATION, ["greet", "shout"], 16, 797.25, {"zone": "a"}, schemas=schemas_of(Registry([shout]))
    ),
    m.Heartbeat: m.Heartbeat(WORKER, INCARNATION, ["greet", "shout"], 16, 799.25, [HELD], {"zone": "a"}, 0.4, 61.5),
    m.Goodbye: m.Goodbye(WORKER, INCARNATION),
    m.Beacon: m.Beacon(COORDINATOR, f"{COORDINATOR}.17"),
}
USES = {
    "facts": ("API, workers, coordinators", "coordinators, as one consumer group", "task or limit"),
    "work": ("coordinators", "one worker", "worker"),
    "fleet": ("workers, coordinators", "every coordinator", "sender"),
    "control": ("coordinators", "every worker", "none"),
    "events": ("coordinators", "the world", "task"),
    "streams": ("workers", "one worker", "worker"),
    "logs": ("workers", "those who write them down, as one consumer group", "worker"),
    "dead": ("coordinators", "operators", "as found"),
}


def topics() -> str:
    names, rows = Topics(), []
    specs = names.specs()
    if specs.keys() != {getattr(names, name) for name in USES}:
        raise SystemExit(f"USES in docs/generate.py does not name the topics {sorted(specs)}")
    for name, (source, target, key) in USES.items():
        spec = specs[getattr(names, name)]
        kept = "as the broker does" if spec.retention_sec is None else f"{spec.retention_sec / 60:g} minutes"
        rows.append((f"`{getattr(names, name)}`", source, target, key, str(spec.partitions), kept))
    return table(("topic", "from", "to", "key", "partitions", "kept"), rows)


def facts_messages() -> str:
    if REPORTS.keys() != r.TAGS.keys() or LETTERS.keys() != p.TAGS.keys():
        raise SystemExit(f"REPORTS and LETTERS in docs/generate.py must be of {sorted({**r.TAGS, **p.TAGS})}")
    items = [m.Told(TASK, TENANT, report) for report in REPORTS.values()]
    knock = m.encode_facts_batch("api-1", "", -1, [m.Knock(TASK, TENANT, "new")])
    batch = m.encode_facts_batch(WORKER, INCARNATION, 3, items[1:2])
    assert [item for item in m.decode_facts_batch(batch).items] == items[1:2]
    head = ("tag", "fields, in order", "what it says", "example")
    return "\n\n".join([
        "A worker's batch (one item):", fenced(pretty(batch), "json"),
        "The API's doorbell:", fenced(pretty(knock), "json"),
        "The reports that an item may hold:", table(head, map(_said, REPORTS.items())),
        "The letters between tasks and [limits](limits.md):", table(head, map(_said, LETTERS.items())),
    ])  # fmt: skip


def _said(item: tuple[str, Any]) -> tuple[str, str, str, str]:
    tag, said = item
    fields = ", ".join(f"`{field.name}`" for field in dataclasses.fields(said))
    return f"`{tag}`", fields, sentence(type(said)), f"`{compact(row_of(said))}`"


def work_messages() -> str:
    value = m.encode_work(WORKER, INCARNATION, COORDINATOR, [JOB, STOP])
    assert list(m.decode_work(value).items) == [JOB, STOP]
    parts = []
    for item in (JOB, STOP):
        parts += [f"**`{_tag(type(item))}`**: {sentence(type(item))}", _fields(type(item)),
                  fenced(compact(msgspec.to_builtins(item)), "json")]  # fmt: skip
    return "\n\n".join([*parts, "A batch of both:", fenced(pretty(value), "json")])


def fleet_messages() -> str:
    if FLEET.keys() != set(m.FleetMessage.__args__):
        raise SystemExit("FLEET in docs/generate.py must hold one of every message of the fleet")
    held = f"**`held`** of a heartbeat: {sentence(m.Held)}\n\n{_fields(m.Held)}\n\n"
    held += f"**`streams`** of it: {sentence(m.Flowing)}\n\n{_fields(m.Flowing)}"
    return "\n\n".join([*(_message(example) for example in FLEET.values()), held])


def control_messages() -> str:
    return _message(m.SayHello(COORDINATOR))


def _message(example: Any) -> str:
    value = m.encode_message(example)
    return f"**`{_tag(type(example))}`**: {sentence(type(example))}\n\n{fenced(pretty(value), 'json')}"


def event_messages() -> str:
    story, commits = first_story()
    commit = commits[-1]
    value = e.encode_event(commit, TENANT, str(story.task.status))
    assert e.decode_event(value).seq == commit.seq
    headers = table(
        ("header", "value"), ((f"`{name}`", f"`{text.decode()}`") for name, text in e.event_headers(commit))
    )
    told = e.Event(TASK, TENANT, 9, commit.at, "", "running", [], [e.EdgeProgress("make", "square", 1200, 1100)])
    assert e.decode_event(e.encode_progress(told)) == told
    others = dict(e.progress_headers(told))
    flowing = f"{sentence(e.EdgeProgress)}\n\n{fenced(pretty(e.encode_progress(told)), 'json')}"
    named = f"`ce_type` is `{others['ce_type'].decode()}`, `ce_id` `{others['ce_id'].decode()}`."
    return f"{fenced(pretty(value), 'json')}\n\n{headers}\n\n**`streams`** of an event: {flowing}\n\n{named}"


def dead_messages() -> str:
    from flowkit.clock import SystemClock
    from flowkit.coordinator.publisher import Publisher
    from flowkit.service import Supervisor
    from flowkit.telemetry import Telemetry

    telemetry = Telemetry()
    publisher = Publisher(None, Topics(), SystemClock(), Supervisor("docs", telemetry), telemetry, COORDINATOR)  # type: ignore[arg-type]
    publisher.dead(
        Record("flowkit.facts.v1", 5, b'{"half": ', TASK.encode(), (), 1742), "not JSON: Expecting value", ""
    )
    headers = ((f"`{name}`", f"`{text.decode()}`") for name, text in publisher._queue[0].record.headers)
    return table(("header", "for example"), headers)


def log_messages() -> str:
    rows = [
        encode_line(1795000000.25, LEVELS["info"], "loading orders", {"table": "orders"}),
        encode_line(1795000000.5, LEVELS["warning"], "trying the replica", {}),
    ]
    block = SaidBlock(TASK, TENANT, "load", 1, 1, LEVELS["warning"], 1795000000.5, rows)
    return fenced(pretty(encode_logs("w-7d2f40aa", "9be14c07", [block.encode()])), "json")


def _tag(kind: Any) -> str:
    return str(kind.__struct_config__.tag)


def _fields(kind: Any) -> str:
    return "Fields, in order: " + ", ".join(f"`{name}`" for name in kind.__struct_fields__) + "."


def pretty(value: bytes) -> str:
    """JSON as people read it: an array or object that fits on a line stays on one."""
    return _laid_out(json.loads(value), "")


def _laid_out(value: Any, indent: str) -> str:
    line = compact(value)
    if len(line) + len(indent) <= 100 or not isinstance(value, dict | list) or not value:
        return line
    inner = indent + "  "
    if isinstance(value, list):
        return "[\n" + ",\n".join(inner + _laid_out(item, inner) for item in value) + f"\n{indent}]"
    items = (f"{inner}{json.dumps(key)}: {_laid_out(item, inner)}" for key, item in value.items())
    return "{\n" + ",\n".join(items) + f"\n{indent}}}"


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


# ---------------------------------------------------------------------------------------------- commits


def first_story() -> tuple[Story, list[Commit]]:
    """The README's task, as a coordinator commits it: what is ready is placed in the commit that made it so."""
    graph = {"nodes": [{"node_id": "hi", "type": "greet"}, {"node_id": "loud", "type": "shout", "depends_on": ["hi"]}]}
    story = Story(graph)
    story.tell(r.Accepted()).place("hi")
    story.report(r.Succeeded, "hi", Payload({"text": "hello Ada"}), None, 0.001).place("loud")
    story.report(r.Succeeded, "loud", Payload("HELLO ADA!"), None, 0.001)
    recorded = story.decisions
    together = [recorded[0] + recorded[1], recorded[2] + recorded[3], recorded[4]]
    commits, prev = [], ""
    for seq, some in enumerate(together, 1):
        commit_id = f"{COORDINATOR}.{seq}"
        body = body_of(encode_facts(some))
        commits.append(Commit(TASK, seq, commit_id, prev, BEGAN + seq / 100, COORDINATOR, body))
        prev = commit_id
    return story, commits


def commits_of_a_task() -> str:
    _, commits = first_story()
    return "\n\n".join(fenced(_document(commit), "json") for commit in commits)


def _document(commit: Commit) -> str:
    from flowkit.adapters.mongo_documents import commit_doc

    return _laid_out(commit_doc(commit), "")


# ---------------------------------------------------------------------------------------------- guards


def guards() -> str:
    found = teeth.read(DOCS / "internals" / "guards.json")
    if missing := GUARDS.keys() - found.keys():
        raise SystemExit(
            f"run: python -m flowkit.testing guards --write docs/internals/guards.json {' '.join(missing)}"
        )
    rows = [
        (str(guard.rule), f"`{name}`", guard.about, _without(guard, found[name]), _looked_for(found[name]),
         str(found[name].seeds) if found[name].kinds else "")
        for name, guard in GUARDS.items()
    ]  # fmt: skip
    return table(("rule", "guard", "what it says", "what breaks without it", "looked for with", "seeds"), rows)


def _without(guard: Guard, one: teeth.Bite) -> str:
    if not one.kinds:
        return f"nothing: {HARMLESS[guard.name]}"
    also = f" (with {', '.join(f'`{name}`' for name in guard.seconds)} gone as well)" if guard.seconds else ""
    return ", ".join(f"`{kind}`" for kind in one.kinds[:3]) + also


def _looked_for(one: teeth.Bite) -> str:
    faults = ", ".join(f"`{fault}`" for fault in one.directed)
    return faults or {"chaos": "random chaos", "outage": "an outage of Kafka", "calm": "nothing"}[one.mode]


def kinds_of_violations() -> str:
    return table(("kind", "what was seen"), ((f"`{kind}`", words) for kind, words in KINDS.items()))


def directed_faults() -> str:
    rows = ((f"`{name}`", " ".join((fault.__doc__ or "").split())) for name, fault in DIRECTED.items())
    return table(("fault", "what it does"), rows)


def escapes() -> str:
    parts = []
    for title, found in GROUPS.items():
        rows = (
            (f"{escape.about}{f' ({escape.machine})' if escape.machine else ''}", _words(escape.l3), _words(escape.l2))
            for escape in found
        )
        parts.append(f"**{title}**\n\n" + table(("attempt", "L3", "L2"), rows))
    count = len({escape.name for found in GROUPS.values() for escape in found})
    return f"{count} attempts.\n\n" + "\n\n".join(parts)


def _words(words: tuple[str, ...]) -> str:
    return words[0] if words == (NOT_CLAIMED,) else " or ".join(f"`{word}`" for word in words)


def refused_calls() -> str:
    reasons: dict[tuple[str, str], list[str]] = {}
    for calls, answer in ((REFUSED, "`EPERM`"), (SHARED_IPC, "`EPERM` at L2"), (UNKNOWN, "`ENOSYS`")):
        for name, why in calls.items():
            reasons.setdefault((why, answer), []).append(f"`{name}`")
    rows = ((", ".join(names), answer, why) for (why, answer), names in reasons.items())
    return table(("system calls", "answer", "because it"), rows)


# ---------------------------------------------------------------------------------------------- spans and metrics


def spans() -> str:
    rows = ((f"`{one.name}`", one.kind, one.by, one.parent, one.about) for one in names.SPANS)
    return table(("span", "kind", "made by", "child of", "what it is"), rows)


def span_attributes() -> str:
    def found_on(name: str) -> str:
        on = [one for one in names.SPANS if name in one.attributes]
        return "all" if len(on) == len(names.SPANS) else ", ".join(f"`{one.name}` ({one.by})" for one in on)

    rows = ((f"`{name}`", about, found_on(name)) for name, about in names.ABOUT.items())
    return table(("attribute", "value", "on"), rows)


def metrics() -> str:
    rows = (
        (f"`{one.name}`", one.kind, ", ".join(f"`{label}`" for label in one.labels), one.by, one.about)
        for one in sorted(measures.MEASURES, key=lambda one: (one.by, one.name))
    )
    edges = {one.buckets for one in measures.MEASURES if one.buckets}
    said = "; ".join(", ".join(f"{edge:g}" for edge in buckets) for buckets in sorted(edges))
    return f"{table(('metric', 'kind', 'labels', 'told by', 'what it is'), rows)}\n\nBuckets, in seconds: {said}."


PARTS: dict[str, Part] = {
    "attempt-states": attempt_states,
    "attempt-table": attempt_table,
    "commits": commits_of_a_task,
    "control": control_messages,
    "dead": dead_messages,
    "directed-faults": directed_faults,
    "error-codes": error_codes,
    "escapes": escapes,
    "events": event_messages,
    "exceptions": exceptions,
    "facts": facts_messages,
    "facts-table": facts_table,
    "fleet": fleet_messages,
    "guards": guards,
    "keys": keys_of_graphs,
    "kinds-of-violations": kinds_of_violations,
    "node-states": node_states,
    "logs": log_messages,
    "metrics": metrics,
    "refused-calls": refused_calls,
    "settings": settings,
    "span-attributes": span_attributes,
    "spans": spans,
    "task-states": task_states,
    "topics": topics,
    "work": work_messages,
}

if __name__ == "__main__":
    raise SystemExit(main())
