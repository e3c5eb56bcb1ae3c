"""The trace monitor: its verbs over what is posted, and over what the engine has recorded."""

from __future__ import annotations

import json
import uuid
from typing import Any

from tests.services.stand import Service, Site


def post(monitor: Service, flow_id: str, name: str, flow_lvl: str = "1", **more: Any) -> dict[str, Any]:
    body = {"node_name": name, "runner_id": str(uuid.uuid4()), "code_base64": "eCA9IDE=", "status": "DONE",
            "inputs": {"a": [None]}, "logs": ["one", "two"],
            "outputs": {"nodes": ["b"], "outputs": {"n": 1}, "status": "DONE", "message": "m"}, **more}  # fmt: skip
    said: dict[str, Any] = monitor.good("POST", f"/trace?flow_id={flow_id}&flow_lvl={flow_lvl}", body)
    return {**said, "runner_id": body["runner_id"]}


def check_posted(monitor: Service) -> None:
    flow_id = str(uuid.uuid4())

    first, second = post(monitor, flow_id, "a"), post(monitor, flow_id, "b", flow_lvl="top")

    assert (first["flow_id"], first["flow_lvl"], first["current_sequence"]) == (flow_id, 1, 1)
    assert (second["flow_lvl"], second["current_sequence"]) == ("top", 2)
    trace = monitor.good("GET", f"/trace/{first['runner_id']}")
    assert (trace["trace_id"], trace["inputs"], trace["logs"]) == (first["trace_id"], {"a": [None]}, ["one", "two"])
    assert trace["outputs"] == {"nodes": ["b"], "outputs": {"n": 1}, "status": "DONE", "message": "m"}
    flow = monitor.good("GET", f"/flow/{flow_id}")
    assert (flow["flow_id"], flow["total_nodes"], flow["execution_path"]) == (flow_id, 2, ["a", "b"])
    assert [row["trace_id"] for row in flow["traces"]] == [first["trace_id"], second["trace_id"]]
    assert flow_id in [one["flow_id"] for one in monitor.good("GET", "/flows")["flows"]]
    assert monitor.good("GET", "/traces?limit=1")["traces"][0]["trace_id"] == second["trace_id"]
    assert monitor.good("DELETE", f"/trace/{first['trace_id']}")["message"] == "deleted"
    assert monitor.good("GET", f"/flow/{flow_id}")["execution_path"] == ["b"]
    assert monitor.ask("DELETE", f"/trace/{first['trace_id']}").status == 404


def test_traces_are_posted_read_by_run_and_by_flow_and_deleted(five: Site) -> None:
    check_posted(five.services["trace-monitor"])


def test_who_may_post_may_not_read(five: Site) -> None:
    monitor = five.services["trace-monitor"]
    token = monitor.tokens["control-unit"]
    reads = [
        ("GET", "/flows"),
        ("GET", "/traces"),
        ("GET", f"/flow/{uuid.uuid4()}"),
        ("DELETE", f"/trace/{uuid.uuid4()}"),
    ]

    assert [monitor.ask(method, path, token=token).code for method, path in reads] == ["E_FORBIDDEN"] * 4


def test_what_is_not_there_and_what_is_wrong(five: Site) -> None:
    monitor = five.services["trace-monitor"]

    unknown = [f"/trace/{uuid.uuid4()}", f"/flow/{uuid.uuid4()}"]
    answers = [monitor.ask("GET", path) for path in (*unknown, "/trace/no-uuid", "/traces?limit=0", "/traces?limit=x")]
    no_flow = monitor.ask("POST", "/trace", {"node_name": "a", "runner_id": str(uuid.uuid4())})

    assert [one.status for one in answers] == [404, 404, 422, 422, 422]
    assert (no_flow.status, no_flow.code) == (422, "E_REQUEST")
    assert "query.flow_id" in no_flow.text


def test_a_task_of_any_graph_has_traces_which_go_only_with_it(site: Site) -> None:
    graph = {"name": "own", "nodes": [{"node_id": "one", "type": "code", "code": {
        "source": "def main(inputs):\n    print('hello')\n    return {'n': inputs['n'] + 1}"}}]}  # fmt: skip
    (site.folder / "graph.json").write_text(json.dumps(graph))
    ran = site.run("-m", "flowkit", "run", "graph.json", "-p", "n=1", "--db", "flowkit.db", "--json")
    assert ran.returncode == 0, ran.stderr
    monitor = site.start("trace-monitor")
    task_id = json.loads(ran.stdout)["task_id"]

    flow = monitor.good("GET", f"/flow/{task_id}")
    row = flow["traces"][0]
    refused = monitor.ask("DELETE", f"/trace/{row['trace_id']}")

    assert (flow["total_nodes"], flow["execution_path"]) == (1, ["one"])
    assert (row["inputs"], row["outputs"]["outputs"], row["status"]) == ({"n": 1}, {"n": 2}, "DONE")
    assert row["logs"] == ["[INFO] hello"]
    assert monitor.good("GET", f"/trace/{row['runner_id']}") == row
    assert [one["flow_id"] for one in monitor.good("GET", "/flows")["flows"]] == [task_id]
    assert monitor.good("GET", "/traces")["traces"][0]["runner_id"] == row["runner_id"]
    assert (refused.status, refused.code) == (409, "E_RECORDED")
