"""Flow Control Blocks: a set of nodes that choose by name what is next, as a graph.

Which node follows which is known only when they have run, they may come in circles, and one that is named twice runs
twice. So the graph is a node that is repeated: each run is a task of its own, a *hop*, in which all nodes run that the
hop before has named, each with the outputs of the one that named it. It ends when nobody names any.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flowkit.core.code import WHOLE
from flowkit.core.keys import ID_RULE
from flowkit.core.problems import LONGEST_NAME
from flowkit.errors import Permanent, did_you_mean
from flowkit.services.door import Refusal
from flowkit.services.unit import names_in

HOP: Final = "hop"
ROUTE: Final = "flowkit.fcb.route"
"""The node, and the role, that finds out what is next. No node of a flow is called so by chance."""
RUN: Final = "flowkit.fcb.run"
"""The role of nodes that a node runner runs."""
LABEL: Final = "flowkit.fcb"
MOST_NODES: Final = 500
MOST_AT_ONCE: Final = 1000
TAKEN: Final = frozenset({ROUTE})


@dataclass(frozen=True, slots=True)
class Step:
    """One node of a flow: its name, the text of its code, its level (a note of the user's)."""

    name: str
    source: str
    flow_lvl: Any = None


@dataclass(frozen=True, slots=True)
class Block:
    """The nodes by their names, and where the flow begins."""

    steps: Mapping[str, Step]
    begin: str

    @property
    def ids(self) -> dict[str, str]:
        """The ids in the graph: the names, where they can be ids."""
        ids: dict[str, str] = {}
        taken = set(TAKEN) | {name for name in self.steps if ID_RULE.fullmatch(name)}
        for number, name in enumerate(self.steps, 1):
            if ID_RULE.fullmatch(name) and len(name) <= LONGEST_NAME and name not in TAKEN:
                ids[name] = name
                continue
            wanted = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:100].strip("_") or "node"
            while wanted in taken:
                wanted = f"{wanted}-{number}"
            ids[name] = wanted
            taken.add(wanted)
        return ids


def make_graph(block: Block, *, most_hops: int, by_runner: bool) -> dict[str, Any]:
    """The graph that runs it; its nodes are code, or for the role `RUN`. Its params are what `params_of` gives. Raises
    `Refusal`."""
    if len(block.steps) > MOST_NODES:
        raise Refusal(422, "E_TOO_MANY", f"a flow has at most {MOST_NODES} nodes, not {len(block.steps)}")
    ids = block.ids
    make = _runner_node if by_runner else _code_node
    nodes = [make(ids[name], place, step) for place, (name, step) in enumerate(block.steps.items())]
    steps = {ids[name]: {"name": name, "flow_lvl": step.flow_lvl} for name, step in block.steps.items()}
    # No expression handles what nodes have given: it may be large.
    inputs: dict[str, Any] = {name: {"$param": name} for name in ("begin", "given", "hops")}
    inputs |= {"ids": {"$literal": ids}, "most_hops": most_hops}
    inner = {
        "nodes": [{"node_id": ROUTE, "type": ROUTE, "inputs": inputs}, *nodes],
        "output": {
            "given": {id_: {"$from": id_} for id_ in steps},
            **{name: {"$from": f"{ROUTE}.{name}"} for name in ("open", "hops")},
        },
        "meta": {LABEL: steps},
    }
    hops = {
        "node_id": HOP, "type": "task", "graph": inner,
        "inputs": {
            "begin": {"$param": ""}, "given": {"$previous": "given", "default": None},
            "hops": {"$previous": "hops", "default": 0},
        },
        "repeat": {"until": "output.open == 0", "max": most_hops + 1},  # in the last one, nothing runs
    }  # fmt: skip
    return {"name": "fcb", "nodes": [hops]}


def params_of(block: Block, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The params of a flow: where it begins, and with what."""
    return {"node": block.begin, "inputs": dict(inputs)}


def route(begin: dict[str, Any], given: dict[str, list[dict[str, Any]]] | None, ids: dict[str, str], hops: int,
          most_hops: int) -> dict[str, Any]:  # fmt: skip
    """The handler of `ROUTE`: from what the nodes of the hop before gave, None in the first, what runs in this one: the
    inputs of each run of each node, by the node's place. So many `hops` there were."""
    wave: dict[str, list[Any]] = {name: [] for name in ids}
    if given is None:
        wave[begin["node"]].append(begin["inputs"])
    names = {id_: name for name, id_ in ids.items()}
    for id_, results in (given or {}).items():
        for result in results:
            for name in result["nodes"]:
                if name not in wave:
                    raise Permanent("bad_output", f"node {names[id_]!r} named {name!r} as next, which the flow has "
                                                  f"not{did_you_mean(name, ids)}; [] ends a branch")  # fmt: skip
                wave[name].append(_inputs_of(names[id_], result["outputs"]))
    count = sum(map(len, wave.values()))
    if count > MOST_AT_ONCE:
        raise Permanent("too_many", f"the nodes of one hop named {count} as next; at most {MOST_AT_ONCE} run at a time")
    if count and hops >= most_hops:
        still = ", ".join(repr(name) for name, runs in wave.items() if runs)[:300]
        say = f"after {most_hops} hops nodes still named {still} as next: end the circle, or raise MAX_HOPS"
        raise Permanent("max_hops", say)
    return {"wave": list(wave.values()), "open": count, "hops": hops + 1}


def _inputs_of(name: str, outputs: Any) -> dict[str, Any]:
    if not isinstance(outputs, dict):
        raise Permanent("bad_output", f"the outputs of node {name!r} are the next one's inputs: an object, not "
                                      f"{type(outputs).__name__}")  # fmt: skip
    return outputs


def _code_node(id_: str, place: int, step: Step) -> dict[str, Any]:
    node = {
        **_node(id_, place),
        "type": "code",
        "code": {"source": step.source, "result": WHOLE},
        "inputs": {"$item": ""},
    }
    if names := names_in(step.source):
        node["secrets"] = names
    return node


def _runner_node(id_: str, place: int, step: Step) -> dict[str, Any]:
    inputs = {"node": {"$literal": step.name}, "code": step.source, "inputs": {"$item": ""}}
    return {**_node(id_, place), "type": RUN, "inputs": inputs}


def _node(id_: str, place: int) -> dict[str, Any]:
    """What a node raises ends its flow, as it always did; what its road lacks is waited for."""
    waits = {"on": ["E_SERVICE_UNAVAILABLE", "E_BUSY", "E_NO_NPU", "E_DRAINING"], "max": 30, "backoff_sec": 0.5}
    policy = {"max": 1, "rules": [waits]}
    return {"node_id": id_, "foreach": {"$from": f"{ROUTE}.wave[{place}]"}, "retry_policy": policy}
