"""The dialect as users of graphs meet it: each example runs as it is written, in a file and on Kafka and MongoDB."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import flowkit
from flowkit import Coordinator, CoordinatorConfig, Worker, WorkerConfig
from flowkit.errors import GraphError, RequestRefused, TaskFailed
from tests.integration.site import Site, until

ON_KAFKA = [
    pytest.mark.kafka,
    pytest.mark.mongo,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]
WAIT_SEC = 30.0
Place = tuple[str, dict[str, Any]]


@pytest.fixture(params=["sqlite", pytest.param("kafka-mongo", marks=ON_KAFKA)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A database, and the settings that go with it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/flow.db", {}
    site: Site = request.getfixturevalue("site")
    return site.db, site.settings


@asynccontextmanager
async def running(place: Place, handlers: Any) -> AsyncIterator[Coordinator]:
    """A coordinator and a worker in this process."""
    db, settings = place
    async with (
        Coordinator(db=db, cfg=CoordinatorConfig(**settings)) as coordinator,
        Worker(db=db, cfg=WorkerConfig(**settings), handlers=handlers),
    ):
        yield coordinator


async def run(coordinator: Coordinator, graph: Any = None, params: Any = None, **options: Any) -> flowkit.TaskResult:
    task_id = await coordinator.create_task(graph=graph, params=params or {}, **options)
    return await coordinator.wait_task(task_id, timeout=WAIT_SEC)


async def output_of(coordinator: Coordinator, graph: Any, params: Any = None) -> Any:
    result = await run(coordinator, graph, params)
    assert result.status == "finished", result.error
    return result.output


def states(view: Any) -> dict[str, str]:
    return {name: node.state for name, node in view.nodes.items()}


# ------------------------------------------------------------------------------------------ the first five minutes


def greet(name: str) -> dict[str, str]:
    return {"text": f"hello {name}"}


def shout(text: str) -> str:
    return text.upper() + "!"


HELLO = {"nodes": [{"node_id": "hi", "type": "greet"}, {"node_id": "loud", "type": "shout", "depends_on": ["hi"]}]}


async def test_the_first_example_says_hello(place: Place) -> None:
    async with running(place, [greet, shout]) as coordinator:
        handle = coordinator.task(await coordinator.create_task(graph=HELLO, params={"name": "Ada"}))
        events = [(event.type, event.node_id) async for event in handle.watch()]
        assert (await handle.result(timeout=WAIT_SEC)).output == "HELLO ADA!"
        assert await handle.status() == "finished"
        assert [event for event in events if event[0] == "succeeded"] == [("succeeded", "hi"), ("succeeded", "loud")]


async def test_whoever_waits_for_a_role_that_nobody_serves_is_told(place: Place) -> None:
    async with running(place, {"greeter": greet}) as coordinator:
        told: asyncio.Queue[str] = asyncio.Queue()
        handle = coordinator.task(await coordinator.create_task(graph={"nodes": [{"node_id": "hi", "type": "greet"}]}))
        waiting = asyncio.create_task(handle.result(timeout=WAIT_SEC, on_wait=told.put_nowait))
        began = time.monotonic()
        # Right after a halt nobody has heard of the worker for long, and the first sentence has no hint.
        while "did you mean" not in (say := await asyncio.wait_for(told.get(), WAIT_SEC)):
            pass
        assert say == "node 'hi' waits: no live worker serves 'greet' (did you mean 'greeter'?)"
        assert time.monotonic() - began < 20
        await handle.cancel()
        with pytest.raises(TaskFailed, match="cancelled"):
            await waiting


# ------------------------------------------------------------------------------------------ nodes

ETL = {
    "name": "etl",
    "schema_version": "2",
    "nodes": [
        {"node_id": "list", "type": "list_files", "inputs": {"folder": {"$param": "folder"}, "limit": 100}},
        {
            "node_id": "load", "type": "load", "foreach": {"$from": "list.files"}, "inputs": {"path": {"$item": ""}},
            "max_parallel": 20,
        },
        {
            "node_id": "merge", "type": "merge",
            "inputs": {"tables": {"$from": "load"}, "title": {"$expr": "'rows of ' + params.folder"}},
            "retry_policy": {
                "max": 5, "backoff_sec": 1, "factor": 2, "cap_sec": 60, "jitter": True, "permanent_on": ["bad_input"],
            },
            "timeout_sec": 30,
        },
        {"node_id": "check", "type": "check", "depends_on": ["merge"]},
        {"node_id": "alert", "type": "alert"},
    ],
    "edges": [
        ["list", "load"],
        {"from": "check", "to": "alert", "when": "output.errors > 0"},
        {"from": "merge", "to": "alert", "on": "failure"},
    ],
    "output": {"rows": {"$from": "merge.rows"}},
}  # fmt: skip


class Files:
    """A folder of tables, and handlers that load and merge them. `most` is how many were loaded at once."""

    def __init__(self, count: int, errors: int = 0, spoilt: bool = False) -> None:
        self._count = count
        self._errors = errors
        self._spoilt = spoilt
        self._now = self.most = self.merges = 0
        self.alerts: list[Any] = []

    def handlers(self) -> dict[str, Any]:
        names = {"list_files": self.list_files, "load": self.load, "merge": self.merge, "check": self.check}
        return {**names, "alert": self.alert}

    async def list_files(self, folder: str, limit: int) -> dict[str, Any]:
        return {"files": [f"{folder}/{n}.csv" for n in range(min(self._count, limit))]}

    async def load(self, path: str) -> dict[str, Any]:
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(0.01)
        self._now -= 1
        return {"path": path, "rows": 10}

    async def merge(self, tables: list[dict[str, Any]], title: str) -> dict[str, Any]:
        self.merges += 1
        if self._spoilt:
            raise flowkit.Permanent("bad_input", "the tables do not fit together")
        return {"rows": sum(table["rows"] for table in tables), "title": title, "first": tables[0]["path"]}

    async def check(self, rows: int, title: str, first: str) -> dict[str, Any]:
        assert (title, first) == ("rows of in", "in/0.csv")
        return {"errors": self._errors}

    async def alert(self, inputs: Any) -> str:
        self.alerts.append(inputs)
        return "sent"


async def test_the_whole_etl_graph_loads_every_file_and_needs_no_alert(place: Place) -> None:
    files = Files(40)
    async with running(place, files.handlers()) as coordinator:
        task_id = await coordinator.create_task(graph=ETL, params={"folder": "in"})
        result = await coordinator.wait_task(task_id, timeout=WAIT_SEC)
        view = await coordinator.get_task(task_id)
    assert (result.status, result.output) == ("finished", {"rows": 400})
    assert view.nodes["alert"].state == "skipped"
    assert files.alerts == []
    assert 1 < files.most <= 20
    assert [view.nodes[f"load[{n}]"].output["path"] for n in range(40)] == [f"in/{n}.csv" for n in range(40)]
    assert view.nodes["load"].output == result.outputs["load"]


async def test_the_etl_graph_alerts_with_what_the_check_found(place: Place) -> None:
    files = Files(3, errors=2)
    async with running(place, files.handlers()) as coordinator:
        result = await run(coordinator, ETL, {"folder": "in"})
    assert result.status == "finished", result.error
    assert files.alerts == [{"check": {"errors": 2}}]


async def test_the_etl_graph_does_not_try_again_what_its_policy_calls_permanent(place: Place) -> None:
    files = Files(3, spoilt=True)
    async with running(place, files.handlers()) as coordinator:
        task_id = await coordinator.create_task(graph=ETL, params={"folder": "in"})
        result = await coordinator.wait_task(task_id, timeout=WAIT_SEC)
        view = await coordinator.get_task(task_id)
    assert files.merges == 1
    assert (result.status, result.error["code"], result.error["node_id"]) == ("failed", "bad_input", "merge")
    # `check` was skipped because of the failure, so its edge is broken, and `alert` wants none of its edges broken.
    assert states(view) | {"merge": "failed", "check": "skipped", "alert": "skipped"} == states(view)


async def test_a_failure_is_handed_to_the_edge_that_is_there_for_it(place: Place) -> None:
    graph = {
        "nodes": [{"node_id": "merge", "type": "merge"}, {"node_id": "alert", "type": "alert"}],
        "edges": [{"from": "merge", "to": "alert", "on": "failure"}],
    }
    files = Files(1, spoilt=True)
    async with running(place, files.handlers()) as coordinator:
        result = await run(coordinator, graph, {"tables": [], "title": ""})
    assert (result.status, result.output) == ("finished", "sent")
    assert files.alerts == [{"error": {"code": "bad_input", "message": "the tables do not fit together"}}]


async def give(inputs: Any) -> Any:
    return inputs


async def const(value: Any) -> Any:
    return value


async def fail() -> None:
    raise flowkit.Permanent("no_luck", "this always fails")


COMMON = {"give": give, "const": const, "fail": fail}


async def test_inputs_are_literals_references_params_and_expressions(place: Place) -> None:
    graph = {
        "nodes": [
            {"node_id": "a.b", "type": "const", "inputs": {"value": {"list": [{"n": 1}, {"n": 2}]}}},
            {"node_id": "one", "type": "give", "depends_on": ["a.b"]},
            {
                "node_id": "all", "type": "give",
                "inputs": {
                    "whole": {"$from": "a.b"}, "part": {"$from": "a.b.list[1].n"}, "param": {"$param": "deep[0].x"},
                    "sum": {"$expr": "nodes['a.b'].output.list[0].n + size(params.deep)"},
                    "plain": {"$literal": {"$from": "nobody"}}, "region": {"$from": "one.region", "default": "eu"},
                },
            },
        ],
        "output": {"one": {"$from": "one"}, "all": {"$from": "all"}},
    }  # fmt: skip
    async with running(place, COMMON) as coordinator:
        output = await output_of(coordinator, graph, {"deep": [{"x": 7}]})
    whole = {"list": [{"n": 1}, {"n": 2}]}
    given = {"whole": whole, "part": 2, "param": 7, "sum": 2, "plain": {"$from": "nobody"}, "region": "eu"}
    assert output == {"one": whole, "all": given}


async def test_an_otherwise_edge_is_taken_when_no_condition_of_its_source_holds(place: Place) -> None:
    graph = {
        "nodes": [{"node_id": name, "type": "give"} for name in ("source", "many", "few", "join")],
        "edges": [
            {"from": "source", "to": "many", "when": "output.n > 10"},
            {"from": "source", "to": "few", "otherwise": True},
            ["many", "join"],
            ["few", "join"],
        ],
    }
    async with running(place, COMMON) as coordinator:
        assert await output_of(coordinator, graph, {"n": 3}) == {"few": {"n": 3}}
        assert await output_of(coordinator, graph, {"n": 30}) == {"many": {"n": 30}}


async def test_a_quorum_runs_on_the_nth_and_cancels_the_losers(place: Place) -> None:
    graph = {
        "nodes": [
            {"node_id": "a", "type": "const", "inputs": {"value": 1}},
            {"node_id": "b", "type": "const", "inputs": {"value": 2}},
            {"node_id": "never", "type": "signal", "inputs": {"name": "never"}},
            {"node_id": "join", "type": "give", "depends_on": ["a", "b", "never"], "fan_in": {"count": 2},
             "losers": "cancel"},
        ],
    }  # fmt: skip
    async with running(place, COMMON) as coordinator:
        task_id = await coordinator.create_task(graph=graph)
        result = await coordinator.wait_task(task_id, timeout=WAIT_SEC)
        view = await coordinator.get_task(task_id)
    assert result.output == {"a": 1, "b": 2}
    assert view.nodes["never"].state == "cancelled"


async def test_an_expression_that_finds_nothing_fails_the_node_that_its_edge_leads_to(place: Place) -> None:
    graph = {
        "nodes": [{"node_id": "a", "type": "give"}, {"node_id": "b", "type": "give"}],
        "edges": [{"from": "a", "to": "b", "when": "output.misssing == 1"}],
    }
    async with running(place, COMMON) as coordinator:
        result = await run(coordinator, graph, {"missing": 1})
    assert (result.status, result.error["code"], result.error["node_id"]) == ("failed", "expr_error", "b")
    assert "misssing" in result.error["message"]


# ------------------------------------------------------------------------------------------ built-in nodes


async def test_a_sleep_of_seconds_or_until_a_time_takes_as_long_as_it_says(place: Place) -> None:
    moment = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    graph = {
        "nodes": [
            {"node_id": "w", "type": "sleep", "inputs": {"seconds": 0.3}},
            {"node_id": "u", "type": "sleep", "inputs": {"until": moment}},
        ]
    }
    async with running(place, COMMON) as coordinator:
        task_id = await coordinator.create_task(graph=graph)
        await coordinator.wait_task(task_id, timeout=WAIT_SEC)
        view = await coordinator.get_task(task_id)
    slept = view.nodes["w"].finished_at - view.nodes["w"].started_at
    assert slept >= 0.29
    assert view.nodes["u"].finished_at >= datetime.fromisoformat(moment).timestamp()


SIGNAL = {
    "nodes": [
        {"node_id": "gate", "type": "give"},
        {"node_id": "ok", "type": "signal", "inputs": {"name": "approval"}, "timeouts": {"total_sec": 86400},
         "depends_on": ["gate"]},
    ],
}  # fmt: skip


async def test_a_signal_is_taken_by_the_node_that_waits_for_it(place: Place) -> None:
    async with running(place, COMMON) as coordinator:
        task_id = await coordinator.create_task(graph=SIGNAL)
        await until("it waits", lambda: waits_for_signal(coordinator, task_id))
        assert await coordinator.signal_task(task_id, "approval", {"by": "Ada"})
        assert (await coordinator.wait_task(task_id, timeout=WAIT_SEC)).output == {"by": "Ada"}
        with pytest.raises(RequestRefused, match="ended"):
            await coordinator.signal_task(task_id, "approval")


async def waits_for_signal(coordinator: Coordinator, task_id: str) -> bool:
    return any(reason.code == "signal" for reason in await coordinator.explain(task_id))


async def test_a_signal_that_comes_first_is_kept_for_its_node(place: Place) -> None:
    gate = {"node_id": "gate", "type": "signal", "inputs": {"name": "go"}}
    graph = {"nodes": [gate, SIGNAL["nodes"][1]]}
    async with running(place, COMMON) as coordinator:
        task_id = await coordinator.create_task(graph=graph)
        assert await coordinator.signal_task(task_id, "approval", "early")
        with pytest.raises(RequestRefused, match="did you mean 'approval'"):
            await coordinator.signal_task(task_id, "aproval")
        assert await coordinator.signal_task(task_id, "go")
        assert (await coordinator.wait_task(task_id, timeout=WAIT_SEC)).output == "early"


async def test_a_signal_that_does_not_fit_its_schema_is_refused(place: Place) -> None:
    schema = {"type": "object", "required": ["by"], "properties": {"by": {"type": "string"}}}
    graph = {"nodes": [{"node_id": "ok", "type": "signal", "inputs": {"name": "approval", "schema": schema}}]}
    async with running(place, COMMON) as coordinator:
        task_id = await coordinator.create_task(graph=graph)
        with pytest.raises(GraphError, match="by"):
            await coordinator.signal_task(task_id, "approval", {"by": 1})
        await coordinator.signal_task(task_id, "approval", {"by": "Ada"})
        assert (await coordinator.wait_task(task_id, timeout=WAIT_SEC)).output == {"by": "Ada"}


INNER = {"nodes": [{"node_id": "hi", "type": "const", "inputs": {"value": {"$param": "n"}}}]}


async def test_a_sub_graph_is_a_task_of_its_own_whose_output_is_the_nodes(place: Place) -> None:
    graph = {"nodes": [{"node_id": "child", "type": "task", "graph": INNER, "inputs": {"n": {"$param": "m"}}}]}
    async with running(place, COMMON) as coordinator:
        task_id = await coordinator.create_task(graph=graph, params={"m": [4]}, labels={"team": "blue"})
        assert (await coordinator.wait_task(task_id, timeout=WAIT_SEC)).output == [4]
        (child,) = (await coordinator.list_tasks(parent=task_id)).heads
        assert (child.labels, child.parent_node) == ({"team": "blue"}, "child")
        assert (await coordinator.wait_task(child.task_id, timeout=WAIT_SEC)).output == [4]
        assert [head.task_id for head in (await coordinator.list_tasks()).heads] == [task_id]


async def test_a_flow_runs_as_a_sub_graph_and_as_a_task(place: Place) -> None:
    async with running(place, COMMON) as coordinator:
        assert await coordinator.put_flow("name", {**INNER, "output": {"v": 1, "n": {"$from": "hi"}}}) == 1
        assert await coordinator.put_flow("name", {**INNER, "output": {"v": 2, "n": {"$from": "hi"}}}) == 2
        graph = {"nodes": [{"node_id": "child", "type": "task", "flow": "name@1", "inputs": {"n": 5}}]}
        assert await output_of(coordinator, graph) == {"v": 1, "n": 5}
        for asked, version in (("name", 2), ("name@1", 1)):
            task_id = await coordinator.create_task(flow=asked, params={"n": 6})
            result = await coordinator.wait_task(task_id, timeout=WAIT_SEC)
            assert result.output == {"v": version, "n": 6}
            assert (await coordinator.get_task(task_id)).flow == f"name@{version}"
        await coordinator.tag_flow("name", 1, "default")
        assert (await run(coordinator, flow="name", params={"n": 7})).output == {"v": 1, "n": 7}


async def test_coordinator_functions_keep_variables_that_expressions_see(place: Place) -> None:
    graph = {
        "nodes": [
            {"node_id": "m", "type": "coordinator_fn", "io": {"fn": "vars.incr", "fn_args": {"key": "n", "by": 1}}},
            {"node_id": "again", "type": "coordinator_fn", "depends_on": ["m"],
             "io": {"fn": "vars.incr", "fn_args": {"key": "n", "by": 4}}},
            {"node_id": "see", "type": "give", "depends_on": ["again"],
             "inputs": {"n": {"$var": "n"}, "more": {"$expr": "vars.n * 2"}}},
        ],
    }  # fmt: skip
    async with running(place, COMMON) as coordinator:
        assert await output_of(coordinator, graph) == {"n": 5, "more": 10}


async def test_an_end_node_ends_the_task_and_cancels_the_rest(place: Place) -> None:
    graph = {
        "nodes": [
            {"node_id": "long", "type": "sleep", "inputs": {"seconds": 3600}},
            {"node_id": "give", "type": "give"},
            {"node_id": "stop", "type": "end", "inputs": {"output": {"$from": "give.n"}, "status": "finished"}},
            {"node_id": "after", "type": "give", "depends_on": ["long"]},
        ]
    }
    async with running(place, COMMON) as coordinator:
        task_id = await coordinator.create_task(graph=graph, params={"n": 8})
        result = await coordinator.wait_task(task_id, timeout=WAIT_SEC)
        view = await coordinator.get_task(task_id)
    assert (result.status, result.output) == ("finished", 8)
    assert states(view) == {"long": "cancelled", "give": "finished", "stop": "finished", "after": "cancelled"}


async def odd(n: int) -> int:
    if n % 2 == 0:
        raise flowkit.Permanent("even", f"{n} is even")
    return n


def numbers(**keys: Any) -> dict[str, Any]:
    node = {"node_id": "m", "type": "odd", "foreach": {"$param": "ns"}, "inputs": {"n": {"$item": ""}}, **keys}
    return {"nodes": [node]}


async def test_a_map_gives_its_outputs_in_the_items_order(place: Place) -> None:
    async with running(place, {"odd": odd, **COMMON}) as coordinator:
        assert await output_of(coordinator, numbers(), {"ns": [5, 3, 1]}) == [5, 3, 1]
        assert await output_of(coordinator, numbers(), {"ns": []}) == []
        collected = await output_of(coordinator, numbers(on_item_failure="collect"), {"ns": [1, 2]})
        assert collected == [{"output": 1}, {"error": {"code": "even", "message": "2 is even"}}]
        assert await output_of(coordinator, numbers(gather="any"), {"ns": [2, 7, 4]}) == [7]
        assert await output_of(coordinator, numbers(gather={"count": 2}, losers="cancel"), {"ns": [2, 7, 9]}) == [7, 9]
        failed = await run(coordinator, numbers(), {"ns": [1, 2, 3]})
        assert (failed.status, failed.error["code"], failed.error["item"]) == ("failed", "item_failed", "m[1]")
        few = await run(coordinator, numbers(gather={"count": 2}), {"ns": [2, 4, 5]})
        assert few.status == "failed"


async def test_a_map_of_sub_graphs_runs_each_item_as_a_task(place: Place) -> None:
    node = {"node_id": "m", "type": "task", "graph": INNER, "foreach": {"$param": "ns"}, "inputs": {"n": {"$item": ""}}}
    async with running(place, COMMON) as coordinator:
        task_id = await coordinator.create_task(graph={"nodes": [node]}, params={"ns": list(range(30))})
        assert (await coordinator.wait_task(task_id, timeout=WAIT_SEC)).output == list(range(30))
        children = (await coordinator.list_tasks(parent=task_id)).heads
        assert sorted(child.parent_node for child in children) == sorted(f"m[{n}]" for n in range(30))


async def test_a_repeat_runs_until_its_condition_holds(place: Place) -> None:
    async def poll(before: Any) -> dict[str, Any]:
        n = 1 if before is None else before["n"] + 1
        return {"n": n, "done": n == 4}

    def graph(most: int) -> dict[str, Any]:
        repeat = {"until": "output.done", "every_sec": 0.05, "max": most}
        return {
            "nodes": [{"node_id": "poll", "type": "poll", "repeat": repeat, "inputs": {"before": {"$previous": ""}}}]
        }

    async with running(place, {"poll": poll}) as coordinator:
        task_id = await coordinator.create_task(graph=graph(100))
        assert (await coordinator.wait_task(task_id, timeout=WAIT_SEC)).output == {"n": 4, "done": True}
        nodes = (await coordinator.get_task(task_id)).nodes
        assert [nodes[f"poll#{n}"].output["n"] for n in range(1, 5)] == [1, 2, 3, 4]
        exhausted = await run(coordinator, graph(2))
        assert (exhausted.status, exhausted.error["code"]) == ("failed", "repeat_exhausted")


# ------------------------------------------------------------------------------------------ reading and steering


async def test_a_watch_replays_what_was_committed_and_goes_on_from_where_it_is_told(place: Place) -> None:
    async with running(place, [greet, shout]) as coordinator:
        task_id = await coordinator.create_task(graph=HELLO, params={"name": "Ada"})
        whole = [event async for event in coordinator.watch(task_id)]
        assert whole[-1].to_state == "finished"
        middle = whole[len(whole) // 2].seq
        rest = [event async for event in coordinator.watch(task_id, since=middle)]
        assert rest == [event for event in whole if event.seq > middle]
        assert 0 < len(rest) < len(whole)


async def test_tasks_are_listed_by_status_labels_and_time(place: Place) -> None:
    async with running(place, COMMON) as coordinator:
        graph = {"nodes": [{"node_id": "n", "type": "give"}]}
        ids = [await coordinator.create_task(graph=graph, labels={"n": str(n % 2)}) for n in range(6)]
        ids.append(await coordinator.create_task(graph={"nodes": [{"node_id": "n", "type": "fail"}]}))
        results = [await coordinator.wait_task(task_id, timeout=WAIT_SEC) for task_id in ids]
        await until("all heads say so", lambda: all_ended(coordinator, len(ids)))
        assert await listed(coordinator, labels={"n": "1"}) == ids[1:6:2]
        assert await listed(coordinator, status="failed") == ids[-1:]
        assert await listed(coordinator, since=results[4].created_at) == ids[4:]
        first = await coordinator.list_tasks(limit=4)
        rest = await coordinator.list_tasks(limit=4, cursor=first.cursor)
        assert [head.task_id for head in (*first.heads, *rest.heads)] == ids[::-1]


async def listed(coordinator: Coordinator, **where: Any) -> list[str]:
    return [head.task_id for head in (await coordinator.list_tasks(**where)).heads][::-1]


async def all_ended(coordinator: Coordinator, count: int) -> bool:
    return len((await coordinator.list_tasks(status=["finished", "failed"])).heads) == count


async def test_only_what_leads_to_the_targets_runs(place: Place) -> None:
    graph = {
        "nodes": [
            {"node_id": "a", "type": "const", "inputs": {"value": 1}},
            {"node_id": "b", "type": "give", "inputs": {"x": {"$from": "a"}}},
            {"node_id": "c", "type": "give", "depends_on": ["b"]},
            {"node_id": "d", "type": "give", "depends_on": ["a"]},
        ]
    }
    async with running(place, COMMON) as coordinator:
        task_id = await coordinator.create_task(graph=graph, targets=["b"])
        await coordinator.wait_task(task_id, timeout=WAIT_SEC)
        view = await coordinator.get_task(task_id)
    assert states(view) == {"a": "finished", "b": "finished", "c": "skipped", "d": "skipped"}
    assert {view.nodes["c"].reason, view.nodes["d"].reason} == {"not_needed"}


async def test_a_node_that_is_cancelled_breaks_its_edges_and_not_its_task(place: Place) -> None:
    graph = {
        "nodes": [
            {"node_id": "wait", "type": "signal", "inputs": {"name": "never"}},
            {"node_id": "after", "type": "give", "depends_on": ["wait"]},
            {"node_id": "other", "type": "const", "inputs": {"value": 1}},
        ]
    }
    async with running(place, COMMON) as coordinator:
        task_id = await coordinator.create_task(graph=graph)
        await until("it waits", lambda: waits_for_signal(coordinator, task_id))
        await coordinator.cancel_task(task_id, node_id="wait", reason="nobody answers")
        result = await coordinator.wait_task(task_id, timeout=WAIT_SEC)
        view = await coordinator.get_task(task_id)
    assert result.status == "finished"
    assert states(view) == {"wait": "cancelled", "after": "skipped", "other": "finished"}
    assert view.nodes["wait"].reason == "nobody answers"


async def test_what_was_done_is_undone_in_reverse_when_the_task_fails(place: Place) -> None:
    undone: list[Any] = []

    async def undo(inputs: Any) -> None:
        undone.append(inputs)

    def step(name: str, value: int, **more: Any) -> dict[str, Any]:
        return {"node_id": name, "type": "const", "inputs": {"value": value}, "compensate": {"type": "undo"}, **more}

    graph = {
        "nodes": [step("book", 1), step("charge", 2, depends_on=["book"]),
                  {"node_id": "ship", "type": "fail", "inputs": {}, "depends_on": ["charge"]}],
    }  # fmt: skip
    async with running(place, {**COMMON, "undo": undo}) as coordinator:
        result = await run(coordinator, graph)
    assert (result.status, result.error["node_id"]) == ("failed", "ship")
    assert undone == [2, 1]


async def test_a_paused_task_starts_nothing_until_it_is_resumed_and_a_restart_runs_the_failed_part(
    place: Place,
) -> None:
    calls: Counter[str] = Counter()

    async def flaky(ctx: flowkit.Context) -> str:
        calls[ctx.node_id] += 1
        if calls[ctx.node_id] == 1 and ctx.node_id == "b":
            raise flowkit.Permanent("no_luck", "not this time")
        return ctx.node_id

    graph = {
        "nodes": [
            {"node_id": "go", "type": "signal", "inputs": {"name": "go"}},
            {"node_id": "a", "type": "flaky", "inputs": {}, "depends_on": ["go"]},
            {"node_id": "b", "type": "flaky", "inputs": {}, "depends_on": ["a"]},
        ]
    }
    async with running(place, {"flaky": flaky}) as coordinator:
        task_id = await coordinator.create_task(graph=graph)
        await until("it waits", lambda: waits_for_signal(coordinator, task_id))
        assert await coordinator.pause_task(task_id)
        await coordinator.signal_task(task_id, "go")
        assert states(await coordinator.get_task(task_id))["a"] in ("ready", "pending")
        assert await coordinator.resume_task(task_id)
        assert (await coordinator.wait_task(task_id, timeout=WAIT_SEC)).status == "failed"
        assert await coordinator.restart_task(task_id, failed_only=True)
        assert (await coordinator.wait_task(task_id, timeout=WAIT_SEC)).output == "b"
    assert calls == {"a": 1, "b": 2}


async def test_a_wrong_graph_is_refused_with_all_that_is_wrong(place: Place) -> None:
    graph = {
        "nodes": [
            {"node_id": "load", "type": "give"},
            {"node_id": "load", "type": "give"},
            {"node_id": "sum", "type": "give", "inputs": {"rows": {"$from": "laod"}}, "dependson": ["x"]},
        ]
    }
    async with running(place, COMMON) as coordinator:
        with pytest.raises(GraphError) as caught:
            await coordinator.create_task(graph=graph)
    problems = {problem.code: problem.place for problem in caught.value.problems}
    assert problems["E_REFERENCE_UNKNOWN"] == "nodes[2].inputs.rows.$from"
    assert problems.keys() >= {"E_NODE_DUPLICATE_ID", "E_REFERENCE_UNKNOWN"}
    assert "did you mean 'load'" in str(caught.value)
    assert "did you mean 'depends_on'" in str(caught.value)
