"""What an operator's policies, and a flow's own, do to code: at the door, where it is placed, in the worker, and where
its secrets come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import flowkit
from flowkit import Coordinator, CoordinatorConfig, Embedded, GraphError, WorkerConfig
from flowkit.errors import SecretRefused
from flowkit.ports import SecretUse
from tests.integration.site import Site, until
from tests.integration.test_code import code

ONE = "def main(inputs):\n    return 1"


def said(**policies: Any) -> str:
    return json.dumps(policies)


def engine(folder: Path, policy: str = "", *, of_worker: str = "") -> Embedded:
    worker = WorkerConfig(code_level="L1", code_trusted=True, code_policy=of_worker)
    return Embedded(folder / "flow.db", cfg=CoordinatorConfig(code_policy=policy), worker_cfg=worker)


def one(**more: Any) -> dict[str, Any]:
    return {"nodes": [{"node_id": "a", **code(ONE, retry_policy={"max": 1}), **more}]}


async def test_the_door_refuses_what_no_worker_may_run(tmp_path: Path) -> None:
    policy = said(tenants={"default": {"memory_mb": 512}}, flows={"etl": {"network": "none"}})
    reach = one(sandbox={"network": ["api.example.com:443"]})
    async with engine(tmp_path, policy) as running:
        with pytest.raises(GraphError, match=r"E_POLICY at nodes\[0\].sandbox.memory_mb: .*'default' allows 512"):
            await running.submit(one(sandbox={"memory_mb": 1024}))
        with pytest.raises(GraphError, match=r"E_POLICY at nodes\[0\].sandbox.network: .*flow 'etl' allows none"):
            await running.coordinator.put_flow("etl", reach)
        assert await running.coordinator.put_flow("other", reach) == 1
        with pytest.raises(GraphError, match=r"E_POLICY"):
            await running.coordinator.validate_graph(one(sandbox={"memory_mb": 1024}))


async def test_a_worker_holds_to_its_own_policies_and_to_those_that_came_with_the_attempt(tmp_path: Path) -> None:
    """The door was another's: it knew nothing of them."""
    async with engine(tmp_path, of_worker=said(every={"cpu": 0.5})) as running:
        refused = await (await running.submit(one(sandbox={"cpu": 1}))).wait(60)
        unsaid = await (await running.submit(one())).wait(60)
    assert refused.error is not None
    assert refused.error["code"] == "E_POLICY"
    assert refused.error["message"] == "the code asks for 1 cores, and the policy of all code allows 0.5 at most"
    assert unsaid.status == "finished"

    async with Coordinator(db=tmp_path / "flow.db") as coordinator:  # nobody runs code here, and nothing is bounded
        await coordinator.put_flow("etl", one(sandbox={"wall_sec": 100}))
        task_id = await coordinator.create_task(flow="etl")
    async with engine(tmp_path, said(flows={"etl": {"wall_sec": 10}})) as running:
        with pytest.raises(GraphError, match="E_POLICY"):
            await running.submit(flow="etl")
        late = await running.coordinator.wait_task(task_id, timeout=60)
    assert late.error is not None
    assert late.error["message"] == "the code asks for 100 seconds, and the policy of flow 'etl' allows 10 at most"


async def test_what_is_usual_is_bounded_too(tmp_path: Path) -> None:
    hungry = "def main(inputs):\n    return len(bytearray(150 * 1024 * 1024))"
    slow = "import time\ndef main(inputs):\n    time.sleep(600)"
    for source, bound, becomes in ((hungry, {"memory_mb": 64}, "oom"), (slow, {"wall_sec": 1}, "timeout")):
        async with engine(tmp_path, said(every=bound)) as running:
            task = await running.submit({"nodes": [{"node_id": "a", **code(source, retry_policy={"max": 1})}]})
            end = await task.wait(60)
        assert end.error and end.error["code"] == becomes


async def test_a_level_that_a_policy_asks_for_is_waited_for_and_said_whose_it_is(tmp_path: Path) -> None:
    async with engine(tmp_path, said(tenants={"default": {"level": "L2"}})) as running:
        with pytest.raises(GraphError, match=r"E_POLICY at nodes\[0\].sandbox.level: .*asks for level L1"):
            await running.submit(one(sandbox={"level": "L1"}))
        task = await running.submit(one())
        say = await until("it is explained", lambda: why(task), timeout=30)
    assert "has the labels flowkit.sandbox=L2 or L3; the nearest, " in say
    assert say.endswith("has flowkit.sandbox=L1 (the policy of tenant 'default' asks for L2 at least)")


async def why(task: flowkit.TaskHandle) -> str:
    return next((one.message for one in await task.explain() if one.code == "no_worker"), "")


async def test_a_worker_below_the_level_that_is_given_an_attempt_all_the_same_refuses_it(tmp_path: Path) -> None:
    async with engine(tmp_path, of_worker=said(every={"level": "L3"})) as running:
        result = await (await running.submit(one())).wait(60)
    assert result.error is not None
    assert result.error["code"] == "level_unavailable"
    assert result.error["message"] == "the policy of all code asks for L3 at least, and this worker has L1"


async def test_a_graph_s_own_policy_holds_for_the_graphs_in_it_and_so_does_that_of_its_flow(tmp_path: Path) -> None:
    child = {"nodes": [{"node_id": "in", **code(ONE)}]}
    graph = {"nodes": [{"node_id": "t", "type": "task", "graph": child}], "policy": {"level": "L3"}}
    async with engine(tmp_path, said(flows={"etl": {"level": "L2"}})) as running:
        task = await running.submit(graph)
        await running.coordinator.put_flow("etl", {**graph, "policy": {"cpu": 4}})
        of_flow = await running.submit(flow="etl")
        for parent, level in ((task, "L3"), (of_flow, "L2")):
            inner = await until("the child is there", lambda parent=parent: child_of(running, parent), timeout=30)
            say = await until("it is explained", lambda inner=inner: why(inner), timeout=30)
            assert f"(the graph's `policy` asks for {level} at least)" in say


async def child_of(running: Embedded, parent: flowkit.TaskHandle) -> flowkit.TaskHandle | None:
    found = (await running.coordinator.list_tasks(parent=parent.id)).heads
    return running.coordinator.task(found[0].task_id) if found else None


async def test_secrets_are_kept_from_code_that_a_policy_does_not_allow_them(tmp_path: Path) -> None:
    pytest.importorskip("cryptography")
    key = one(secrets=["API_KEY"])
    only = said(tenants={"default": {"secrets": ["DB_*"]}})
    async with engine(tmp_path, only) as running:
        await running.secrets.set("API_KEY", "a-value-of-a-kind")
        with pytest.raises(GraphError, match=r"E_POLICY at nodes\[0\].secrets: .*'API_KEY', and .* allows only DB_\*"):
            await running.submit(key)
        # Whoever gets past the door, and the worker, is refused by the manager, and that is on record.
        manager = running.secrets.manager
        use = SecretUse("default", "t", "a", 1, "token", "w")
        with pytest.raises(SecretRefused, match="secret 'API_KEY': the policy of tenant 'default' allows only"):
            await manager.resolve("default", ["API_KEY"], use, listed=["API_KEY"])
        refused = (await running.secrets.audit()).rows[0]
    assert (refused.action, refused.outcome) == ("use", "E_SECRET_REFUSED")


@pytest.mark.parametrize(("said_by", "graph"), [("node", {}), ("policy", {"policy": {"on_leak": "fail"}})])
async def test_an_output_with_a_secret_in_it_fails_where_that_is_said(
    tmp_path: Path, said_by: str, graph: dict[str, Any]
) -> None:
    pytest.importorskip("cryptography")
    more = {"on_leak": "fail"} if said_by == "node" else {}
    leak = "key = '{{{secret::API_KEY}}}'\ndef main(inputs):\n    print(key)\n    "
    sources = {
        "output": leak + "return {'deep': [key]}",
        "bytes": leak + "return b'x' + key.encode()",
        "batch": leak + "yield key",
        "next": leak + "import flowkit; return flowkit.Next([key], 1)",
        "clean": leak + "return len(key)",
    }
    nodes = [{"node_id": name, **code(source), "secrets": ["API_KEY"], **more} for name, source in sources.items()]
    async with engine(tmp_path) as running:
        await running.secrets.set("API_KEY", "a-value-of-a-kind")
        task = await running.submit({"nodes": nodes, **graph})
        await task.wait(60)
        view = await task.view()
    failed = {name: (node.error["code"], node.attempts) for name, node in view.nodes.items() if node.error}
    assert failed == dict.fromkeys(("output", "bytes", "batch", "next"), ("secret_in_output", 1))
    assert view.nodes["clean"].output == 17


@pytest.mark.kafka
@pytest.mark.mongo
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
async def test_on_a_cluster_a_worker_that_is_not_shut_in_far_enough_gets_none_of_a_tenant_s_code(site: Site) -> None:
    """Two workers serve the role; whoever creates the task knows of no policy."""
    policy = said(tenants={"default": {"level": "L2"}})
    low = {"roles": ["code"], "code_level": "L1", "code_trusted": True}
    async with (
        site.coordinator(code_policy=policy) as coordinator,
        site.worker(None, **low, worker_id="low"),
        site.client() as client,
    ):
        task_id = await client.create_task(graph=one())
        say = await until("it is explained", lambda: why(coordinator.task(task_id)), timeout=30)
        assert "(the policy of tenant 'default' asks for L2 at least)" in say
        async with site.worker(None, roles=["code"], code_level="L3", worker_id="high"):
            result = await client.wait_task(task_id, timeout=60)
            trace = await client.traces.show(task_id)
    assert result.status == "finished"
    assert [attempt.record.worker for attempt in trace.attempts] == ["high"]
