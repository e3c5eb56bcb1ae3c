"""The keys of the dialect: one table, from which graphs are read and from which their JSON Schema is made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from flowkit.core.code_keys import CODE_KEYS, OwnPolicy
from flowkit.core.graph import END, FAILURE, MISSING, SUCCESS
from flowkit.core.kinds import (
    Choice,
    Door,
    Flag,
    Formula,
    Holes,
    Ignored,
    Json,
    Key,
    ListOf,
    Moment,
    Number,
    Record,
    SubGraph,
    Text,
)
from flowkit.core.lane_keys import PRIORITY, LabelsKind, StickyKind
from flowkit.core.problems import LONGEST_NAME, Place, shown
from flowkit.core.stream import FIRST_BATCH, MAX_BATCHES, MAX_BYTES, READY, SPILL_BYTES

MOST: Final = 1_000_000
LONGEST_WAIT_SEC: Final = 1e9
OLD_COUNT: Final = re.compile(r"count:([1-9][0-9]{0,6})")

# An id that is only dots would be a path to somewhere else.
ID_RULE: Final = re.compile(r"(?!\.+$)[A-Za-z0-9_.:-]+")
TYPE_RULE: Final = re.compile(r"(?!\.+$)[A-Za-z0-9_.-]+")
VERSION_RULE: Final = re.compile(r"[12](\.[0-9]{1,3})?")

NODE_ID: Final = Text(LONGEST_NAME, ID_RULE, "letters, digits and `_ - . :`", "E_NODE_ID")
NODE_TYPE: Final = Text(LONGEST_NAME, TYPE_RULE, "a role of letters, digits and `_ - .`", "E_NODE_TYPE")
NAMES: Final = ListOf(Text(1_000, says="a node id"), "a list of node ids")
CODES: Final = ListOf(Text(LONGEST_NAME, says="an error code"), "a list of error codes")
COUNT: Final = Number(1, MOST, whole=True)
WAIT: Final = Number(0, LONGEST_WAIT_SEC)
LIMIT: Final = Number(0, LONGEST_WAIT_SEC, above=True)
LONGEST_KEY: Final = 256
RATE: Final = Number(0, MOST, above=True)
FACTOR: Final = Number(1, 1_000)
META: Final = Json(only_object=True)
ON: Final = Choice((SUCCESS, FAILURE, END))
LOSERS: Final = Choice(("ignore", "cancel"))
VERSION: Final = Text(8, VERSION_RULE, '"2" (or "1.0" for older graphs)', "E_VERSION")


def _each(names: str, say: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), say)


FAN_IN_WORDS: Final = Choice(("all", "any"))
FAN_IN_COUNT: Final = Record("fan_in", "a fan-in", {
    "count": Key(COUNT, "How many taken edges start it.", required=True),
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class FanInKind:
    """`"all"`, `"any"`, `{"count": n}`, and the old `"count:n"`, which is read as the latter."""

    def read(self, value: object, place: Place, door: Door) -> Any:
        if isinstance(value, dict):
            return FAN_IN_COUNT.read(value, place, door)
        if not isinstance(value, str):
            says = '"all", "any" or {"count": 2}'
            door.problems.add("E_TYPE", place, f"expected {says}, found {shown(value)}")
            return MISSING
        if old := OLD_COUNT.fullmatch(value):
            return FAN_IN_COUNT.read({"count": int(old[1])}, place, door)
        if value not in FAN_IN_WORDS.words:
            says = 'write "all", "any" or {"count": 2}'
            door.problems.add("E_FAN_IN", place, f"found {shown(value)}; {says}")
            return MISSING
        return FAN_IN_WORDS.read(value, place, door)

    def schema(self) -> dict[str, Any]:
        old = {"type": "string", "pattern": f"^{OLD_COUNT.pattern}$", "deprecated": True}
        return {"anyOf": [FAN_IN_WORDS.schema(), FAN_IN_COUNT.schema(), old]}


EDGE_ROOTS: Final = ("output", "params", "nodes", "vars", "task")
NODE_ROOTS: Final = ("params", "nodes", "vars", "task")
KEY_ROOTS: Final = (*NODE_ROOTS, "item", "index", "previous")
UNTIL_ROOTS: Final = ("output", *KEY_ROOTS)


EDGE_MEANT: Final = {
    **_each("source start upstream", "`from`"),
    **_each("target end downstream", "`to`"),
    **_each("condition if", "`when`"),
    **_each("default else", "`otherwise`"),
}
EDGE: Final = Record("edge", "an edge", {
    "from": Key(Text(1_000, says="a node id"), "The source.", required=True),
    "to": Key(Text(1_000, says="a node id"), "The target, which waits for the source.", required=True),
    "on": Key(ON, "On which end of the source it is taken (default `success`)."),
    "when": Key(Formula(EDGE_ROOTS), "The condition under which it is taken; `output` is the source's."),
    "otherwise": Key(Flag(), "Whether it is taken when no `when` edge of its source is."),
    "meta": Key(META, "Notes of your own."),
}, EDGE_MEANT)  # fmt: skip


@dataclass(frozen=True, slots=True)
class EdgeText:
    """An edge as written: its ends, the `steps` from `place` to each of them, and what else was said."""

    source: str
    target: str
    on: str
    place: Place
    steps: tuple[str, str] | tuple[int, int]
    more: dict[str, Any]


@dataclass(frozen=True, slots=True)
class EdgeKind:
    """`["a", "b"]` or `{"from": "a", "to": "b"}`. Gives an `EdgeText`."""

    def read(self, value: object, place: Place, door: Door) -> Any:
        if isinstance(value, list | tuple):
            return self._read_pair(value, place, door)
        fields = EDGE.read(value, place, door)
        if fields is MISSING or "from" not in fields or "to" not in fields:
            return MISSING
        source, target, on = fields.pop("from"), fields.pop("to"), fields.pop("on", SUCCESS)
        return EdgeText(source, target, on, place, ("from", "to"), fields)

    def _read_pair(self, value: list[Any] | tuple[Any, ...], place: Place, door: Door) -> Any:
        if len(value) != 2:
            door.problems.add("E_EDGE", place, f'found a list of {len(value)}; write ["source", "target"]')
            return MISSING
        ends = NAMES.read(value, place, door)
        return MISSING if MISSING in ends else EdgeText(ends[0], ends[1], SUCCESS, place, (0, 1), {})

    def schema(self) -> dict[str, Any]:
        pair = {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}
        return {"anyOf": [pair, EDGE.schema()]}


RULE: Final = Record("rule", "a retry rule", {
    "on": Key(CODES, "The error codes that it is for.", required=True),
    "max": Key(COUNT, "Failures with each of these codes; the one that reaches it is final.", required=True),
    "backoff_sec": Key(WAIT, "The first wait; the policy's if left out."),
    "factor": Key(FACTOR, "By which each wait grows; the policy's if left out."),
    "cap_sec": Key(WAIT, "The longest wait; the policy's if left out."),
})  # fmt: skip

RETRY_POLICY: Final = Record("retry_policy", "a retry policy", {
    "max": Key(COUNT, "Attempts, the first included (default 3)."),
    "backoff_sec": Key(WAIT, "The wait before the second attempt (default 1)."),
    "factor": Key(FACTOR, "By which each wait grows (default 2)."),
    "cap_sec": Key(WAIT, "The longest wait (default 60)."),
    "jitter": Key(Flag(), "Whether a wait is a random part of itself (default true)."),
    "permanent_on": Key(CODES, "Error codes that are never tried again."),
    "rules": Key(ListOf(RULE, "a list of retry rules"), "For some error codes, a budget of its own for each."),
    "lost_max": Key(COUNT, "Attempts that may be lost with their worker (default 5)."),
})  # fmt: skip

TIMEOUTS: Final = Record("timeouts", "timeouts", {
    "queued_sec": Key(LIMIT, "From ready to begun; a worker that declines does not stop it."),
    "run_sec": Key(LIMIT, "One attempt's run; the same as `timeout_sec`."),
    "heartbeat_sec": Key(LIMIT, "Between two reports of progress."),
    "total_sec": Key(LIMIT, "From first ready to the end, all attempts together."),
})  # fmt: skip

START_WHEN: Final = Choice((READY, FIRST_BATCH))
BYTES: Final = Number(1, 2**53, whole=True)

IO: Final = Record("io", "`io`", {
    "fn": Key(NODE_TYPE, "The coordinator function of a node of type `coordinator_fn`."),
    "fn_args": Key(Holes(), "Its arguments: an object."),
    "input_inline": Key(Json(only_object=True, inside=1), "Literal inputs; write `inputs`.", old=True),
    "input_ref": Key(Json(), "Handed to the handler's `load_input` as it is."),
    "batching": Key(Json(), "Handed to the handler as it is."),
    "start_when": Key(START_WHEN, "The same as the node's `start_when`.", old=True),
    "input_adapter": Key(Text(LONGEST_NAME, says="an adapter's name"), "Reads streams for a handler that is a class."),
    "input_args": Key(META, "The adapter's arguments, such as `from_nodes`."),
})  # fmt: skip

STREAM: Final = Record("stream", "`stream`", {
    "max_batches": Key(COUNT, f"Batches that it may be ahead of a running reader (default {MAX_BATCHES})."),
    "max_bytes": Key(BYTES, f"Bytes that it may be ahead of a running reader (default {MAX_BYTES})."),
    "spill_bytes": Key(BYTES, f"Bytes kept for readers that start only after it (default {SPILL_BYTES})."),
})  # fmt: skip

EDGE_EX: Final = Record("edge_ex", "an edge of `edges_ex`", {
    "from": Key(Text(1_000, says="a node id"), "The source.", required=True),
    "to": Key(Text(1_000, says="a node id"), "The target, which starts with the source's first batch.", required=True),
    "mode": Key(Choice(("async",)), "The only mode."),
    "trigger": Key(Choice(("on_batch",)), "The only trigger."),
})  # fmt: skip

ROUTING: Final = Record("routing", "`routing`", {
    "on_success": Key(NAMES, "Targets of edges that are taken on success."),
    "on_failure": Key(NAMES, "Targets of edges that are taken on failure."),
})  # fmt: skip

RUN_FIELDS: Final = (
    "status", "attempt_epoch", "lease", "stats", "streaming", "started_at", "finished_at",
    "last_event_recv_ms", "next_retry_at_ms",
)  # fmt: skip

REPEAT: Final = Record("repeat", "`repeat`", {
    "until": Key(Formula(UNTIL_ROOTS), "The condition that ends it; `output` is that of the last run.", required=True),
    "every_sec": Key(WAIT, "The wait between two runs (default 0)."),
    "max": Key(COUNT, "The most runs (default 100)."),
})  # fmt: skip

CACHE: Final = Record("cache", "`cache`", {
    "key": Key(Formula(KEY_ROOTS), "What outputs are kept under, beside the role and the tenant.", required=True),
    "ttl_sec": Key(LIMIT, "For how long.", required=True),
})  # fmt: skip

LIMIT_MEANT: Final = {
    **_each("concurrency limit max_runs permits slots", "`max`"),
    **_each("duration interval per period unit window", "`per_sec`"),
    **_each("cost tokens units", "`weight`"),
    **_each("name tag", "`key`"),
}
LIMIT_ENTRY: Final = Record("limit", "a limit", {
    "key": Key(Text(LONGEST_KEY, says="a key such as \"db:{tenant}\""), "Whose nodes share it: `{tenant}` and "
               "`{params.name}` are filled in.", required=True),
    "max": Key(COUNT, "How many permits may be held at a time."),
    "rate": Key(RATE, "How many permits are given out per `per_sec`."),
    "per_sec": Key(LIMIT, "The seconds that `rate` is for (default 1)."),
    "burst": Key(COUNT, "How many permits of a rate may be given out at once (default 1: evenly spaced)."),
    "weight": Key(COUNT, "How many permits an attempt takes (default 1)."),
}, LIMIT_MEANT, sound=True)  # fmt: skip
PLACING: Final = {
    "priority": Key(PRIORITY, "Added to the task's: a higher one is placed first when workers are short."),
    "worker_labels": Key(LabelsKind(), "Labels that its worker must have; of a list, any."),
    "prefer_labels": Key(LabelsKind(), "Labels that its worker had better have."),
    "sticky": Key(StickyKind(), 'Runs where others ran: "task", or {"node": "load"}.'),
}

COMPENSATE: Final = Record("compensate", "`compensate`", {
    "type": Key(NODE_TYPE, "The role that undoes what the node did.", required=True),
    "inputs": Key(Holes(), "What it gets; without it, the node's output.", null=True),
    "retry_policy": Key(RETRY_POLICY, "When and how often a failed attempt is followed by another."),
    "timeout_sec": Key(LIMIT, "Bounds one attempt's run."),
    "timeouts": Key(TIMEOUTS, "Bounds in seconds."),
    "limits": Key(ListOf(LIMIT_ENTRY, "a list of limits"), "How many of its attempts, and of others, run at a time."),
    **PLACING,
})  # fmt: skip

BUDGET: Final = Record("budget", "a budget", {
    "attempts": Key(COUNT, "Attempts of all nodes together."),
    "run_sec": Key(LIMIT, "Seconds of run time of all attempts together."),
})  # fmt: skip

FLOW_RULE: Final = re.compile(r"(?!\.+$)[A-Za-z0-9_.:-]+(@[A-Za-z0-9_.:-]+)?")


NODE_MEANT: Final = {
    **_each("id name step task_id", "`node_id`"),
    **_each("action function handler operator task uses", "`type`, the name of the handler"),
    **_each("after dependencies dependsOn needs parents requires upstream", "`depends_on`"),
    **_each("args arguments input kwargs parameters params with", "`inputs`"),
    **_each("attempts max_attempts max_retries retries retry", '`retry_policy`, such as {"max": 3}'),
    **_each("timeout timeout_seconds", "`timeout_sec`"),
    **_each("condition if", "`when`"),
    **_each("expand for_each items loop map with_items", '`foreach`, such as {"$param": "rows"}'),
    **_each(
        "concurrency concurrency_key concurrency_limit max_concurrency pool rate_limit rate_limits throttle",
        '`limits`, such as [{"key": "db", "max": 3}] or [{"key": "api", "rate": 10, "per_sec": 60}]',
    ),
    **_each("affinity desired_worker_labels labels node_selector", '`worker_labels`, such as {"zone": "eu"}'),
    **_each("cache_key cache_key_fn cache_policy memoize", '`cache`, such as {"key": "params.day", "ttl_sec": 3600}'),
    **_each("priority_weight", "`priority`"),
    **_each("run script source", '`code`, such as {"source": "def main(inputs): ..."}, in a node of type "code"'),
    **_each("on_failure on_success", 'an edge: {"from": ..., "to": ..., "on": "failure"} in `edges`'),
}
GRAPH_MEANT: Final = {
    **_each("jobs states steps tasks", "`nodes`"),
    **_each("connections dependencies links", "`edges`"),
    **_each("timeout timeout_seconds", "`timeout_sec`"),
    **_each("inputs params parameters", "nothing: params are given with the task"),
}

NODE: Final = Record("node", "a node", {
    "node_id": Key(NODE_ID, "Its name in the graph: letters, digits and `_ - . :`.", required=True),
    "type": Key(NODE_TYPE, "The role: which handler runs it.", required=True),
    "inputs": Key(Holes(), "What it gets; without it, the params or its parents' outputs.", null=True),
    "depends_on": Key(NAMES, "Nodes that it waits for: an edge from each."),
    "fan_in": Key(FanInKind(), 'When its edges let it start: "all" (default), "any" or {"count": n}.'),
    "losers": Key(LOSERS, 'What `any` or `count` does to parents not needed: "ignore" (default), "cancel".'),
    "retry_policy": Key(RETRY_POLICY, "When and how often a failed attempt is followed by another."),
    "timeout_sec": Key(LIMIT, "Bounds one attempt's run."),
    "timeouts": Key(TIMEOUTS, "Bounds in seconds."),
    "deadline": Key(Moment(holes=True), "When it must have ended: a time with its zone, epoch seconds, or `$param`."),
    "continue_on_failure": Key(Flag(), "Whether its success edges are taken, with output null, if it fails."),
    "start_when": Key(START_WHEN, "`ready` (default), or `first_batch` of any stream that it reads."),
    "stream": Key(STREAM, "How far it may run ahead of those that read its batches."),
    "when": Key(Formula(NODE_ROOTS), "The condition without which it is skipped."),
    "foreach": Key(Holes(), "A list: the node runs once for each of its items."),
    "max_parallel": Key(COUNT, "How many items may run at a time."),
    "gather": Key(FanInKind(), 'How many items finish it: "all" (default), "any" or {"count": n}.'),
    "on_item_failure": Key(Choice(("fail", "collect")), "Whether a failed item fails it, or is part of its output."),
    "repeat": Key(REPEAT, "Runs it again until a condition holds."),
    "graph": Key(SubGraph(), "The graph that a node of type `task` runs."),
    "flow": Key(Text(2 * LONGEST_NAME, FLOW_RULE, 'a flow such as "name" or "name@3"', "E_FLOW_NAME"),
                "The flow that a node of type `task` runs."),
    "cache": Key(CACHE, "Keeps its output for those that come with the same key."),
    "compensate": Key(COMPENSATE, "How to undo it, should the task fail or be cancelled."),
    "io": Key(IO, "What older handlers read."),
    "meta": Key(META, "Notes of your own."),
    **PLACING,
    **CODE_KEYS,
    "routing": Key(ROUTING, "Edges that leave it; write `edges`.", old=True),
    "limits": Key(ListOf(LIMIT_ENTRY, "a list of limits"), "How many of its attempts, and of others, run at a time."),
    **{name: Key(Ignored(), "What a run left behind; dropped.", old=True) for name in RUN_FIELDS},
}, NODE_MEANT)  # fmt: skip

GRAPH: Final = Record("graph", "a graph", {
    "schema_version": Key(VERSION, "The dialect's version."),
    "name": Key(Text(256, says="a name"), "What people call it."),
    "nodes": Key(ListOf(NODE, "a list of nodes"), "The steps."),
    "edges": Key(ListOf(EdgeKind(), "a list of edges"), "Which node waits for which."),
    "edges_ex": Key(ListOf(EDGE_EX, "a list of edges"), "Edges whose targets start with a first batch.", old=True),
    "output": Key(Holes(), "The task's output; without it, the leaves' outputs.", null=True),
    "fail_fast": Key(Flag(), "Whether the first failure that nothing handles cancels the rest."),
    "budget": Key(BUDGET, "What the task may use up."),
    "timeout_sec": Key(LIMIT, "Bounds the whole task."),
    "deadline": Key(Moment(), "When the whole task must have ended: a time with its zone, or epoch seconds."),
    "policy": Key(OwnPolicy(), "What its code may ask for at most, and how far it must be shut in."),
    "meta": Key(META, "Notes of your own."),
}, GRAPH_MEANT)  # fmt: skip
