"""Code of nodes: what may be written, what becomes of it, and what an attempt is told."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core.code import Code
from flowkit.core.dialect import normalise, parse_graph
from flowkit.core.filling import resolve
from flowkit.core.graph import Graph
from flowkit.core.payload import SecretHole, lift_secrets
from flowkit.errors import GraphError

MAIN = "def main(inputs):\n    return inputs"


def parse(**node: Any) -> Graph:
    return parse_graph({"nodes": [{"node_id": "c", "type": "code", **node}]})


def of(**node: Any) -> Code:
    code = parse(**node).nodes["c"].code
    assert code is not None
    return code


def problems(raw: Any) -> list[tuple[str, str]]:
    with pytest.raises(GraphError) as refused:
        parse_graph(raw)
    return [(problem.code, problem.place) for problem in refused.value.problems]


def test_what_is_not_said_is_not_carried() -> None:
    code = of(code={"source": MAIN})

    assert code.job(0) == {"runtime": "python", "limits": {}, "source": MAIN}


def test_all_that_it_gives_may_be_its_output() -> None:
    assert of(code={"source": MAIN, "result": "whole"}).job(0)["result"] == "whole"
    assert "result" not in of(code={"source": MAIN, "result": "output"}).job(0)
    raw = {"nodes": [{"node_id": "c", "type": "code", "code": {"source": MAIN, "result": "all"}}]}
    assert problems(raw) == [("E_CHOICE", "nodes[0].code.result")]


def test_everything_that_is_said_is_carried() -> None:
    code = of(
        code={"runtime": "python", "file": "steps/a.py", "requirements": ["b>=1,<2", "a[x]==1.*", "b>=1,<2"]},
        sandbox={"level": "L2", "memory_mb": 100, "cpu": 0.5, "pids": 9, "disk_mb": 8, "wall_sec": 7, "cpu_sec": 6,
                 "network": ["api.example.com:443"]},
        secrets=["KEY", "OTHER@2"],
    )  # fmt: skip

    assert code.job(0) == {
        "runtime": "python",
        "limits": {"memory_mb": 100, "cpu": 0.5, "pids": 9, "disk_mb": 8, "wall_sec": 7, "cpu_sec": 6},
        "file": "steps/a.py",
        "requirements": ["a[x]==1.*", "b>=1,<2"],
        "level": "L2",
        "network": ["api.example.com:443"],
        "secrets": ["KEY", "OTHER@2"],
    }


def test_code_is_stored_as_it_was_written_and_is_not_run() -> None:
    raw = {"nodes": [{"node_id": "c", "type": "code", "code": {"source": "raise SystemExit(1) ((("}, "secrets": ["A"],
                      "sandbox": {"network": "none"}, "on_oom": {"max_mb": 300}}]}  # fmt: skip

    stored = normalise(raw)

    assert stored["nodes"] == raw["nodes"]
    assert normalise(stored) == stored


@pytest.mark.parametrize(
    ("times", "memory"), [("*2", [64, 128, 200, 200]), ("*1.5", [64, 96, 144, 200]), ("*1.001", [64, 65, 66, 67])]
)
def test_memory_grows_until_there_is_no_more(times: str, memory: list[int]) -> None:
    code = of(code={"source": MAIN}, sandbox={"memory_mb": 64}, on_oom={"memory": times, "max_mb": 200})

    assert [code.memory_after(ooms) for ooms in (0, 1, 2, 3)] == memory
    assert code.job(1)["limits"]["memory_mb"] == memory[1]


def test_memory_does_not_grow_by_itself() -> None:
    assert of(code={"source": MAIN}).memory_after(9) == 256


def test_a_node_finds_the_workers_that_have_what_it_needs() -> None:
    plain = parse(code={"source": MAIN}).nodes["c"]
    picky = parse(code={"source": MAIN, "runtime": "node"}, sandbox={"level": "L2"}, worker_labels={"zone": "eu"})

    assert plain.lane is None
    lane = picky.nodes["c"].lane
    assert lane is not None
    assert lane.demand.labels == (
        ("flowkit.runtime.node", ("yes",)),
        ("flowkit.sandbox", ("L2", "L3")),
        ("zone", ("eu",)),
    )


def test_items_of_a_map_run_the_same_code() -> None:
    graph = parse(code={"source": MAIN}, foreach=[1, 2])

    assert graph.nodes["c"].body is not None
    assert graph.nodes["c"].body.code == graph.nodes["c"].code


def node(**said: Any) -> dict[str, Any]:
    return {"nodes": [{"node_id": "c", "type": "code", "code": {"source": MAIN}, **said}]}


REFUSED: list[tuple[Any, list[tuple[str, str]]]] = [
    (node(code=None), [("E_KEY_MISSING", "nodes[0].code")]),
    (node(code={}), []),
    (node(code={"source": MAIN, "file": "a.py"}), [("E_CODE", "nodes[0].code")]),
    (node(code={"runtime": "python"}), [("E_CODE", "nodes[0].code")]),
    (node(code={"source": MAIN, "runtime": "ruby"}), [("E_CHOICE", "nodes[0].code.runtime")]),
    (node(code={"file": "/etc/passwd"}), [("E_CODE", "nodes[0].code.file")]),
    (node(code={"file": "a/../../b.py"}), [("E_CODE", "nodes[0].code.file")]),
    *(
        (node(code={"source": MAIN, "requirements": [wrong]}), [("E_CODE", "nodes[0].code.requirements[0]")])
        for wrong in ("a @ https://x/y.whl", "--index-url=x", "-r x", "../x", "")
    ),
    (node(code={"source": "x", "runtime": "bash", "requirements": ["a"]}),
     [("E_KEY_CONFLICT", "nodes[0].code.requirements")]),
    (node(sandbox={"network": "all"}), [("E_CHOICE", "nodes[0].sandbox.network")]),
    (node(sandbox={"network": ["nowhere"]}), [("E_CODE", "nodes[0].sandbox.network[0]")]),
    (node(sandbox={"memory_mb": 1}), [("E_RANGE", "nodes[0].sandbox.memory_mb")]),
    (node(sandbox={"memory": 100}), [("E_KEY_UNKNOWN", "nodes[0].sandbox.memory")]),
    (node(sandbox={"level": "L4"}), [("E_CHOICE", "nodes[0].sandbox.level")]),
    (node(on_oom={"max_mb": 256}), [("E_CODE", "nodes[0].on_oom.max_mb")]),
    (node(on_oom={"memory": "*1", "max_mb": 512}), [("E_CODE", "nodes[0].on_oom.memory")]),
    (node(on_oom={"memory": "2x", "max_mb": 512}), [("E_CODE", "nodes[0].on_oom.memory")]),
    (node(secrets=["a b"]), [("E_SECRET", "nodes[0].secrets[0]")]),
    (node(code={"source": "x = '{{{secret::KEY}}}'"}), [("E_SECRET", "nodes[0].code.source")]),
    (node(code={"source": "x = '{{{secret::A B}}}'"}, secrets=["A"]), [("E_SECRET", "nodes[0].code.source")]),
    (node(inputs={"a": {"$secret": "KEY"}}), [("E_SECRET", "nodes[0].inputs")]),
    (node(inputs={"a": {"$secret": "a b"}}), [("E_SECRET", "nodes[0].inputs.a.$secret")]),
    (node(inputs={"a": {"$secret": "KEY", "b": 1}}, secrets=["KEY"]), [("E_TEMPLATE", "nodes[0].inputs.a.b")]),
    (node(type="work"), [("E_KEY_CONFLICT", "nodes[0].code")]),
    ({"nodes": [{"node_id": "a", "type": "work", "secrets": ["K"]}]}, [("E_SECRET", "nodes[0].secrets[0]")]),
    ({"nodes": [{"node_id": "a", "type": "work", "inputs": {"$secret": "K"}}]}, [("E_SECRET", "nodes[0].inputs")]),
    ({"nodes": [{"node_id": "a", "type": "sleep", "inputs": {"seconds": {"$secret": "K"}}, "secrets": ["K"]}]},
     [("E_TEMPLATE", "nodes[0].inputs"), ("E_KEY_CONFLICT", "nodes[0].secrets")]),
    ({"nodes": [{"node_id": "a", "type": "work", "compensate": {"type": "undo", "inputs": {"$secret": "K"}}}]},
     [("E_TEMPLATE", "nodes[0].compensate.inputs")]),
    ({**node(), "output": {"a": {"$secret": "K"}}}, [("E_TEMPLATE", "output")]),
    (node(foreach=[{"$secret": "K"}], secrets=["K"]), [("E_TEMPLATE", "nodes[0].foreach")]),
    ({"nodes": [{"node_id": "a", "type": "gen"}, {**node()["nodes"][0], "inputs": {"rows": {"$stream": "a"}}}]},
     [("E_STREAM", "nodes[1].inputs")]),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "expected"), [case for case in REFUSED if case[1]])
def test_what_makes_no_sense_is_refused_with_its_place(raw: Any, expected: list[tuple[str, str]]) -> None:
    assert problems(raw) == expected


def test_a_misspelt_secret_is_named() -> None:
    with pytest.raises(GraphError, match=r"`secrets` does not name \(did you mean 'API_KEY'\?\)"):
        parse_graph(node(code={"source": "x = {{{secret::API_KAY}}}"}, secrets=["API_KEY"]))


def test_a_secret_is_a_hole_that_only_the_graph_can_make() -> None:
    template = {"key": {"$secret": "KEY"}, "foreign": {"$from": "a"}, "list": [{"$secret": "KEY@2"}]}

    inputs = resolve(template, params={}, output_of=lambda name: {"$secret": "KEY"}, known={"a"})
    rest, holes = lift_secrets(inputs)

    assert rest == {"key": None, "foreign": {"$secret": "KEY"}, "list": [None]}
    assert holes == [(("key",), SecretHole("KEY")), (("list", 0), SecretHole("KEY@2"))]


def test_secrets_of_one_template_are_not_those_of_the_next() -> None:
    graph = {"nodes": [{**node()["nodes"][0], "inputs": {"a": {"$secret": "K"}}, "secrets": ["K"]},
                       {"node_id": "d", "type": "work", "inputs": {"a": 1}}]}  # fmt: skip

    assert parse_graph(graph).nodes["d"].inputs == {"a": 1}
