"""The node runner: a node's code is run to its end on a unit, or by itself, with the secrets that it asks for."""

from __future__ import annotations

import signal
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from tests.services.stand import KEY, Answer, Service, Site, free_port, packed, sdk


def add_node(runner: Service, source: str, inputs: Any = None, runner_id: str = "") -> Answer:
    body = {"node_name": "step", "code": packed(source), "inputs": inputs or {},
            "runner_id": runner_id or str(uuid.uuid4())}  # fmt: skip
    return runner.ask("POST", "/nodes/add-node", body)


def test_a_node_runs_to_its_end_and_comes_back_with_its_log_and_outputs(five: Site) -> None:
    runner = five.services["node-runner"]
    source = sdk('await logger.info("hello")\nreturn ["b"], {"rows": [1, None]}, "well"')
    before = runner.good("GET", "/npu/all")["npus"][0]

    said = add_node(runner, source, {"n": 1}).json

    assert (said["node_name"], said["code"], said["inputs"], said["status"]) == (
        "step",
        packed(source),
        {"n": 1},
        "DONE",
    )
    assert said["outputs"] == {"nodes": ["b"], "outputs": {"rows": [1, None]}, "message": "well", "status": "DONE"}
    assert "hello" in said["logs"][0]
    after = runner.until("/npu/all", lambda seen: seen["npus"][0]["successful_tasks"] > before["successful_tasks"])
    assert {"id", "address", "status", "uptime", "successful_tasks", "failed_tasks", "queued_tasks"} == set(
        after["npus"][0]
    )


def test_code_may_come_as_it_is(five: Site) -> None:
    source = "def main(inputs):\n    return {'twice': 2 * inputs['n']}"
    body = {"node_name": "plain", "code": source, "inputs": {"n": 2}, "runner_id": str(uuid.uuid4())}

    assert five.services["node-runner"].good("POST", "/nodes/add-node", body)["outputs"]["outputs"] == {"twice": 4}


def test_a_node_that_fails_comes_back_as_an_error(five: Site) -> None:
    said = add_node(five.services["node-runner"], sdk('raise LookupError("nothing there")')).json

    assert (said["status"], said["error_code"], said["outputs"]["status"]) == ("ERROR", "LookupError", "ERROR")
    assert said["outputs"] == {"nodes": [], "outputs": {}, "message": "nothing there", "status": "ERROR"}
    assert "LookupError: nothing there" in said["traceback"]


def test_a_secret_is_looked_up_never_pasted_and_never_comes_back(five: Site) -> None:
    runner = five.services["node-runner"]
    said = add_node(runner, sdk('key = "{{{secret::API_KEY}}}"\nreturn [], {"key": key, "length": len(key)}, key'))
    missing = add_node(runner, 'x = "{{{secret::NOWHERE}}}"')

    assert said.json["outputs"]["outputs"] == {"key": "[REDACTED]", "length": len(KEY)}
    assert KEY not in said.text
    assert (missing.status, missing.code) == (422, "E_SECRET_UNKNOWN"), missing.text
    assert "'NOWHERE'" in missing.text


def test_without_a_unit_the_node_runner_runs_nodes_itself(site: Site) -> None:
    runner = site.start("node-runner")

    said = add_node(runner, "def main(inputs):\n    return {'here': True}")

    assert said.json["outputs"]["outputs"] == {"here": True}
    assert runner.good("GET", "/npu/all") == {"count": 0, "npus": []}
    assert "none is registered; nodes run here" in runner.good("GET", "/health")["checks"]["units"]["detail"]


def test_a_unit_introduces_itself_reports_and_gives_back_a_result_by_the_documented_verbs(five: Site) -> None:
    runner = five.services["node-runner"]
    token = runner.tokens["npu"]

    unknown = runner.ask("POST", "/npu/pool/npu-of-old", {"uptime": 1.0}, token=token)
    nobody = runner.ask("POST", f"/npu/result/{uuid.uuid4()}", {"status": "DONE"}, token=token)
    no_log = runner.ask("POST", f"/npu/log/{uuid.uuid4()}?log=x", token=token)
    far = runner.ask("POST", "/npu/add", {"address": "http://10.0.0.1:80", "id": "far"}, token=token)
    wrong = runner.ask("POST", "/npu/add", {"address": "file:///etc/passwd", "id": "x"}, token=token)
    figures = runner.ask("POST", "/npu/pool/npu-of-old", {"queued_tasks": -1}, token=token)

    assert [one.status for one in (unknown, nobody, no_log, far, wrong, figures)] == [404, 404, 404, 422, 422, 422]
    assert "another machine" in far.text
    assert runner.good("GET", "/npu/all")["count"] == 1


def slow_at_first(marks: Path) -> str:
    """Code that leaves a mark, and takes long only the first time."""
    return f"""
import os, time
def main(inputs):
    with open({str(marks)!r}, "a") as file:
        file.write("x")
    time.sleep(30 if os.path.getsize({str(marks)!r}) < 2 else 0)
    return {{}}
"""


@pytest.mark.slow
def test_a_unit_that_stops_gives_back_what_it_did_not_end(site: Site) -> None:
    port = free_port()
    runner = site.begin("node-runner", PORT=port)
    first = site.start("npu", NODE_RUNNER_ADDR=f"127.0.0.1:{port}", DRAIN_SEC="0.2")
    runner.ready().until("/npu/all", lambda said: said["count"] == 1)
    marks = site.folder / "marks"
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(add_node(runner, slow_at_first(marks))))
    asking.start()
    first.until_there(marks)
    site.services["first"] = first

    second = site.start("npu", NODE_RUNNER_ADDR=f"127.0.0.1:{port}")
    runner.until("/npu/all", lambda said: said["count"] == 2)
    ended = first.end()
    asking.join(40)

    assert ended == 0
    assert answers[0].json["status"] == "DONE", answers[0].text
    assert marks.read_text() == "xx"
    second.well()


@pytest.mark.slow
def test_a_unit_that_is_killed_costs_a_run_and_not_the_node(site: Site) -> None:
    port = free_port()
    runner = site.begin("node-runner", PORT=port)
    npu = site.begin("npu", NODE_RUNNER_ADDR=f"127.0.0.1:{port}")
    runner.ready(), npu.ready()
    runner.until("/npu/all", lambda said: said["count"] == 1)
    answers: list[Answer] = []
    marks = site.folder / "marks"
    asking = threading.Thread(target=lambda: answers.append(add_node(runner, slow_at_first(marks))))
    asking.start()
    npu.until_there(marks)

    first = site.services["first"] = npu
    second = site.start("npu", NODE_RUNNER_ADDR=f"127.0.0.1:{port}")
    runner.until("/npu/all", lambda said: said["count"] == 2)  # before the first is missed, however slow this machine
    first.end(signal.SIGKILL)
    asking.join(40)

    assert first.popen.returncode == -signal.SIGKILL
    assert answers[0].json["status"] == "DONE", answers[0].text
    assert "was lost; the node runs again elsewhere" in answers[0].json["logs"][0]
    assert marks.read_text() == "xx"
    assert second.good("GET", "/health")["status"] == "ok"
