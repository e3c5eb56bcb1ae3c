"""Graphs for tests: small ones by hand, valid and broken ones by Hypothesis."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

from flowkit.core.code_keys import CODE, ON_OOM, SANDBOX
from flowkit.core.keys import EDGE, GRAPH, IO, NODE, RETRY_POLICY, TIMEOUTS
from flowkit.core.template import FORMS
from flowkit.errors import GraphError

IDS = ["a", "b", "c", "a.b", "a.b.c", "a:1", "x-y_z", "end", "0"]

WORDS = sorted(
    {name for record in (GRAPH, NODE, EDGE, IO, RETRY_POLICY, TIMEOUTS, CODE, SANDBOX, ON_OOM) for name in record.keys}
    | FORMS
    | {
        "default",
        "count",
        "any",
        "all",
        "count:2",
        "count:0",
        "success",
        "failure",
        "1.0",
        "2",
        "x-note",
        "on",
    }
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-3, 3)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([*IDS, *WORDS, "a.b.c[0].d", "a[0]", "a..b", "c.", ""])
)
names = st.sampled_from([*IDS, *WORDS]) | st.text(max_size=4)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=5),
    max_leaves=25,
)
# What Python can hold and JSON cannot, besides.
strange = st.recursive(
    scalars | st.binary(max_size=2) | st.complex_numbers() | st.just(object()) | st.characters(categories=["Cs"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(scalars, inner, max_size=3)
        | st.frozensets(st.integers(), max_size=2)
    ),
    max_leaves=10,
)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | numbers | st.text("ab§", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xy", max_size=2), inner, max_size=3),
    max_leaves=6,
)


def node(node_id: str, **more: Any) -> dict[str, Any]:
    return {"node_id": node_id, "type": "work", **more}


def graph(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"nodes": list(nodes), **more}


def problems_of(error: GraphError) -> list[tuple[str, str]]:
    return [(problem.code, problem.place) for problem in error.problems]


@st.composite
def templates(draw: st.DrawFn, sources: list[str]) -> Any:
    """A template that reads only `sources`."""
    if not sources:
        return draw(plain)
    paths = st.sampled_from(["", ".x", "[0].y"])
    references = st.tuples(st.sampled_from(sources), paths).map(lambda ends: {"$from": "".join(ends)})
    forms = (
        references
        | references.map(lambda form: form | {"default": 1})
        | st.just({"$param": "p.q[1]"})
        | st.just({"$literal": {"$from": 1}})
    )
    return draw(
        st.recursive(plain | forms, lambda inner: st.dictionaries(st.text("xy"), inner, max_size=3), max_leaves=4)
    )


@st.composite
def valid_graphs(draw: st.DrawFn) -> dict[str, Any]:
    """A graph that is accepted: every node waits only for nodes before it; old forms included."""
    ids = draw(st.lists(st.sampled_from(IDS), min_size=1, max_size=6, unique=True))
    nodes, edges = [], []
    for number, node_id in enumerate(ids):
        before = ids[:number]
        said = draw(st.fixed_dictionaries({}, optional=_node_keys(before)))
        sources = draw(st.lists(st.sampled_from(before), unique=True, max_size=3)) if before else []
        said.pop("io", None) if "inputs" in said else None
        for source in sources:
            edges.append(draw(st.sampled_from([[source, node_id], {"from": source, "to": node_id, "on": "end"}])))
        nodes.append(node(node_id, **said))

    more = {
        "name": st.text("ab ", max_size=5),
        "schema_version": st.sampled_from(["1.0", "2", "2.2"]),
        "fail_fast": st.booleans(),
        "timeout_sec": st.none() | st.floats(1, 1e6),
        "meta": st.just({"owner": "me"}),
        "output": templates(ids),
        "edges_ex": st.just([]),
        "x-ui": plain,
    }
    return graph(*nodes, edges=draw(st.permutations(edges)), **draw(st.fixed_dictionaries({}, optional=more)))


def _node_keys(before: list[str]) -> dict[str, st.SearchStrategy[Any]]:
    waits = st.floats(0, 1e6) | st.integers(0, 100)
    limits = st.integers(1, 100)
    rule = st.fixed_dictionaries(
        {"on": st.just(["E"]), "max": limits}, optional={"backoff_sec": waits, "factor": limits}
    )
    keys: dict[str, st.SearchStrategy[Any]] = {
        "inputs": templates(before),
        "retry_policy": st.fixed_dictionaries({}, optional={
            "max": limits, "backoff_sec": waits, "jitter": st.booleans(), "permanent_on": st.just(["bad"]),
            "rules": st.lists(rule, max_size=2), "lost_max": limits, "x-why": plain,
        }),
        "timeouts": st.fixed_dictionaries({}, optional={"queued_sec": limits, "total_sec": limits}),
        "timeout_sec": limits,
        "fan_in": st.sampled_from(["all", "any"]),
        "continue_on_failure": st.booleans(),
        "meta": st.just({"at": [1, 2]}),
        "status": st.just("queued"),
        "lease": st.none(),
        "io": st.fixed_dictionaries({}, optional={
            "input_inline": st.dictionaries(st.sampled_from(["$from", "x"]), plain, max_size=2),
            "input_ref": plain, "start_when": st.just("ready"),
        }),
        "x-at": plain,
    }  # fmt: skip
    if before:
        keys["depends_on"] = st.lists(st.sampled_from(before), max_size=3)
    return keys


@st.composite
def broken_graphs(draw: st.DrawFn) -> Any:
    """A valid graph in which something was replaced, added or removed."""
    whole = copy.deepcopy(draw(valid_graphs()))
    for _ in range(draw(st.integers(1, 3))):
        _break(draw, whole)
    return whole


def _break(draw: st.DrawFn, whole: Any) -> None:
    part = whole
    while True:
        keys = list(part) if isinstance(part, dict) else list(range(len(part)))
        if not keys:
            return
        key = draw(st.sampled_from(keys))
        if isinstance(part[key], dict | list) and part[key] and draw(st.integers(0, 3)):
            part = part[key]
            continue
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                part[key] = draw(anything | strange)
            case "remove":
                del part[key]
            case "add" if isinstance(part, dict):
                part[draw(names)] = draw(anything)
            case "add":
                part.append(draw(anything))
        return
