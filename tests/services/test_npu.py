"""A node processing unit: nodes that it is sent, and scripts that are run by hand against it."""

from __future__ import annotations

import time
import uuid
from typing import Any

from tests.services.stand import KEY, Service, Site, held, packed, sdk


def run_node(npu: Service, source: str, inputs: Any = None, **more: Any) -> str:
    runner_id = str(uuid.uuid4())
    body = {"node_name": "step", "code": packed(source), "inputs": inputs or {}, "runner_id": runner_id, **more}
    assert npu.good("POST", "/run-node", body)["runner_id"] == runner_id
    return runner_id


def ended(said: dict[str, Any]) -> bool:
    return said["status"] in ("DONE", "ERROR")


def result(npu: Service, runner_id: str) -> dict[str, Any]:
    found: dict[str, Any] = npu.until(f"/result/{runner_id}", ended)
    return found


def test_a_node_is_run_and_what_it_said_and_gave_can_be_read(five: Site) -> None:
    npu = five.services["npu"]
    body = 'return ["next"], {"sum": sum(inputs["rows"]), "none": None}, "m"'
    source = sdk(f'await logger.warning("nearly there")\n{body}')

    found = result(npu, run_node(npu, source, {"rows": [1, 2, 3.5]}))

    assert (found["nodes"], found["message"], found["status"]) == (["next"], "m", "DONE")
    assert found["outputs"] == {"sum": 6.5, "none": None}
    assert found["usage"]["verdict"] == "finished"
    line = npu.good("GET", f"/log/{found['runner_id']}")["logs"][0]
    assert line.startswith(f"[WARNING][step][{found['runner_id']}][20")
    assert line.endswith("] nearly there")


def test_what_fails_has_its_own_traceback_and_what_hangs_its_end(five: Site) -> None:
    npu = five.services["npu"]

    raised = result(npu, run_node(npu, "def main(inputs):\n    return 1 / inputs['n']", {"n": 0}))
    shape = result(npu, run_node(npu, sdk("return 1")))
    unit = run_node(npu, "import time\ndef main(inputs):\n    time.sleep(600)")
    assert npu.good("POST", f"/cancel/{unit}")["cancelled"] is True
    stopped = result(npu, unit)

    assert (raised["status"], raised["code"]) == ("ERROR", "ZeroDivisionError")
    assert 'File "step.py", line 2, in main' in raised["traceback"]
    assert "main() must return three things" in shape["message"]
    assert (stopped["status"], stopped["code"]) == ("ERROR", "cancelled")


def test_so_many_run_at_a_time_and_so_many_wait_and_no_more_are_taken(site: Site) -> None:
    npu = site.start("npu", PARALLEL_PROCESS="1", QUEUE="1")
    go = site.folder / "go"
    first, second = run_node(npu, held(go, 'return [], {}, ""')), run_node(npu, "def main(inputs):\n    return {}")

    more = {"node_name": "x", "code": "x = 1", "inputs": {}}
    third = npu.ask("POST", "/run-node", {**more, "runner_id": str(uuid.uuid4())})
    twice = npu.ask("POST", "/run-node", {**more, "runner_id": first})

    assert (third.status, third.code, third.headers["retry-after"]) == (503, "E_BUSY", "1")
    assert (twice.status, twice.code) == (409, "E_RUNNER_ID")
    assert npu.good("GET", f"/result/{second}")["status"] == "QUEUED"
    go.touch()
    assert [result(npu, one)["status"] for one in (first, second)] == ["DONE", "DONE"]


def test_what_runs_for_too_long_is_ended(site: Site) -> None:
    npu = site.start("npu", WALL_SEC="1")

    assert result(npu, run_node(npu, "import time\ndef main(inputs):\n    time.sleep(600)"))["code"] == "timeout"


def test_the_documented_script_runs_by_hand_and_its_key_stays_with_it(five: Site) -> None:
    npu = five.services["npu"]

    runner_id, done = five.by_hand(npu, {"name": "Ada"}, "API_KEY")
    found = npu.good("GET", f"/result/{runner_id}")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (found["nodes"], found["outputs"], found["message"], found["status"]) == (
        ["shout"], {"greeting": "hello Ada"}, "greeted", "DONE"
    )  # fmt: skip
    assert found["logs"][0].startswith(f"[INFO][greeter][{runner_id}][20")
    assert found["logs"][0].endswith("] greeting Ada with [REDACTED]")
    assert found["logs"][1].endswith("] done | Context: letters=9")
    assert KEY not in str(found) + npu.said + five.services["secret-manager"].said


def test_a_key_that_a_script_gives_away_by_hand_is_covered(five: Site) -> None:
    script = sdk('key = "{{{secret::API_KEY}}}"\nreturn [key], {"key": key, "hex": key.encode().hex()}, f"used {key}"')

    runner_id, done = five.by_hand(five.services["npu"], {}, "API_KEY", script=script)
    found = five.services["npu"].good("GET", f"/result/{runner_id}")

    assert done.returncode == 0, done.stderr
    assert (found["nodes"], found["outputs"]) == (["[REDACTED]"], {"key": "[REDACTED]", "hex": "[REDACTED]"})
    assert found["message"] == "used [REDACTED]"


def test_a_script_looks_up_what_its_pass_is_for_and_nothing_else(five: Site) -> None:
    npu = five.services["npu"]

    runner_id, done = five.by_hand(npu, {"name": "Ada"})
    found = npu.good("GET", f"/result/{runner_id}")

    assert found["status"] == "ERROR"
    assert "may not look up 'API_KEY'" in found["message"]
    assert "--secret NAME" in done.stderr


def test_a_pass_is_good_for_its_own_run_and_for_one_result(five: Site) -> None:
    npu = five.services["npu"]
    mine, other = str(uuid.uuid4()), str(uuid.uuid4())
    pass_ = five.run("-m", "flowkit", "service", "npu", "--pass", mine).stdout.strip()
    said = {"nodes": [], "outputs": {}, "message": "", "status": "DONE"}
    old = five.run("-m", "flowkit", "service", "npu", "--pass", mine, "--valid", "0.001").stdout.strip()

    time.sleep(0.01)
    answers = [
        npu.ask("POST", f"/log/{mine}?message=hello%20there", token=pass_),
        npu.ask("POST", f"/log/{other}?message=x", token=pass_),
        npu.ask("POST", f"/result/{mine}", said, token=npu.tokens["operator"]),
        npu.ask("POST", f"/result/{mine}", said, token=pass_[:-1] + ("0" if pass_[-1] != "0" else "1")),
        npu.ask("POST", f"/result/{mine}", said, token=old),
        npu.ask("GET", f"/result/{mine}", token=pass_),
        npu.ask("POST", f"/result/{mine}", {**said, "status": "FINE"}, token=pass_),
        npu.ask("POST", f"/result/{mine}", said, token=pass_),
        npu.ask("POST", f"/result/{mine}", said, token=pass_),
        npu.ask("POST", f"/secret/{mine}", {"name": "API_KEY"}, token=pass_),
    ]

    assert [one.status for one in answers] == [200, 401, 401, 401, 401, 401, 422, 200, 409, 403]
    assert npu.good("GET", f"/log/{mine}")["logs"] == ["hello there"]


def test_the_code_has_an_environment_of_its_own(site: Site) -> None:
    import sys

    packages = site.folder / "venv" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "only_there.py").write_text("ANSWER = 42")
    npu = site.start("npu", VENV_PATH="venv")

    found = result(npu, run_node(npu, "import only_there\ndef main(inputs):\n    return {'answer': only_there.ANSWER}"))

    assert found["outputs"] == {"answer": 42}, found


def test_sigterm_lets_what_runs_end_and_takes_nothing_more(site: Site) -> None:
    npu = site.start("npu")
    go, mark = site.folder / "go", site.folder / "ended"
    runner_id = run_node(npu, held(go, f"open({str(mark)!r}, 'w').close()\nreturn [], {{}}, ''"))
    npu.until(f"/result/{runner_id}", lambda said: said["status"] == "RUNNING")

    npu.popen.terminate()
    npu.wait("draining")
    more = {"node_name": "x", "code": packed("x = 1"), "inputs": {}, "runner_id": str(uuid.uuid4())}
    late = npu.ask("POST", "/run-node", more)
    health = npu.ask("GET", "/health")

    assert (late.status, late.code) == (503, "E_DRAINING")
    assert (health.status, health.json["status"]) == (503, "draining")
    go.touch()
    assert npu.popen.wait(60) == 0
    assert mark.exists()
    assert "stopped" in npu.said
