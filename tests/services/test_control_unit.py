"""The control unit: flows whose nodes choose by name what is next, and how they are steered."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.services.stand import KEY, SCRIPT, Service, Site, held, sdk, step

PASS_ON = sdk('return inputs["to"], {"to": [], "seen": inputs.get("seen", 0) + 1}, ""')


def add(unit: Service, begin: str, inputs: dict[str, Any], **sources: str) -> str:
    nodes = {name: step(name, source) for name, source in sources.items()}
    said = unit.good("POST", "/fcb/add", {"nodes": nodes, "curr_inp": inputs, "curr_node": nodes[begin]})
    return str(said["flow_id"])


def view(unit: Service, flow_id: str, *statuses: str) -> dict[str, Any]:
    wanted = statuses or ("finished", "failed", "cancelled")
    found: dict[str, Any] = unit.until(f"/fcb/{flow_id}", lambda said: said["status"] in wanted)
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A control unit by itself: its nodes run in its own process."""
    site = Site(tmp_path_factory.mktemp("alone"))
    try:
        yield site.start("control-unit", MAX_HOPS="4")
    finally:
        site.close()


def test_a_node_that_is_named_twice_runs_twice_with_the_outputs_of_who_named_it(alone: Service) -> None:
    flow_id = add(alone, "first", {"to": ["second", "second", "third"]}, first=PASS_ON, second=PASS_ON, third=PASS_ON)

    found = view(alone, flow_id)

    assert found["status"] == "finished", found
    assert {name: node["runs"] for name, node in found["nodes"].items()} == {"first": 1, "second": 2, "third": 1}


def test_names_may_have_spaces_and_dots_and_plain_functions_end_their_branch(alone: Service) -> None:
    names = {"Node 1": sdk('return ["a.b", "Node 2"], {"n": 1}, ""'), "a.b": "def main(inputs):\n    return inputs",
             "Node 2": "async def main(inputs):\n    return None", "node 2": "x = 1"}  # fmt: skip
    nodes = {name: step(name, source) for name, source in names.items()}
    said = alone.good("POST", "/fcb/add", {"nodes": nodes, "curr_inp": {}, "curr_node": nodes["Node 1"]})

    found = view(alone, said["flow_id"])

    assert found["status"] == "finished", found
    states = {name: node["state"] for name, node in found["nodes"].items()}
    assert states == {"Node 1": "DONE", "a.b": "DONE", "Node 2": "DONE", "node 2": "pending"}


def test_a_circle_without_an_end_is_ended_and_says_so(alone: Service) -> None:
    found = view(alone, add(alone, "again", {}, again=sdk('return ["again"], {}, ""')))

    assert (found["status"], found["error"]["code"]) == ("failed", "max_hops")
    assert "after 4 hops nodes still named 'again' as next: end the circle" in found["error"]["message"]
    assert found["nodes"]["again"]["runs"] == 4


def test_a_name_that_the_flow_has_not_fails_it_with_the_nearest_one(alone: Service) -> None:
    found = view(alone, add(alone, "load", {"to": ["stoer"]}, load=PASS_ON, store=PASS_ON))

    assert found["status"] == "failed"
    assert "node 'load' named 'stoer' as next" in found["error"]["message"]
    assert "did you mean 'store'?" in found["error"]["message"]


def test_a_node_that_fails_ends_its_flow_with_its_error_and_it_runs_again_when_asked(
    alone: Service, tmp_path: Path
) -> None:
    mended = tmp_path / "mended"
    body = f'import os\nif not os.path.exists("{mended}"):\n    raise LookupError("no such shop")\nreturn [], {{}}, ""'
    flow_id = add(alone, "first", {"to": ["shop"]}, first=PASS_ON, shop=sdk(body))
    failed = view(alone, flow_id)
    mended.touch()

    alone.good("POST", f"/fcb/{flow_id}/restart")
    found = view(alone, flow_id, "finished")

    assert failed["status"] == "failed"
    assert "LookupError: no such shop" in failed["error"]["message"]
    assert failed["nodes"]["shop"] == {"state": "ERROR", "runs": 1}
    assert found["nodes"] == {"first": {"state": "DONE", "runs": 1}, "shop": {"state": "DONE", "runs": 1}}


def test_a_flow_is_paused_resumed_and_cancelled(alone: Service, tmp_path: Path) -> None:
    slow = held(tmp_path / "go", 'return ["last"], {}, ""')
    flow_id = add(alone, "slow", {}, slow=slow, last=sdk('return [], {}, ""'))
    alone.until(f"/fcb/{flow_id}", lambda said: said["nodes"].get("slow", {}).get("state") == "RUNNING")

    paused = alone.good("POST", f"/fcb/{flow_id}/pause")
    (tmp_path / "go").touch()
    alone.until(f"/fcb/{flow_id}", lambda said: said["nodes"]["slow"]["state"] == "DONE")
    time.sleep(0.5)  # the next one is not placed
    during = alone.good("GET", f"/fcb/{flow_id}")
    resumed = alone.good("POST", f"/fcb/{flow_id}/resume")
    found = view(alone, flow_id)
    late = alone.ask("POST", f"/fcb/{flow_id}/pause")
    endless = add(alone, "slow", {}, slow=sdk('import asyncio\nawait asyncio.sleep(600)\nreturn [], {}, ""'))
    alone.good("POST", f"/fcb/{endless}/cancel")

    assert (paused["message"], resumed["message"]) == ("paused", "resumed")
    assert during["status"] == "paused"
    assert during["nodes"].get("last", {"runs": 0})["runs"] == 0
    assert (found["status"], found["nodes"]["last"]["runs"]) == ("finished", 1)
    assert (late.status, late.code) == (409, "E_REQUEST_REFUSED")
    assert view(alone, endless)["status"] == "cancelled"


def test_a_node_by_itself_looks_its_secret_up_in_the_file_of_the_flow(alone: Service) -> None:
    words = ("-m", "flowkit", "secrets", "set", "API_KEY", "--db", "flowkit.db")
    assert Site(alone.folder).run(*words, said=KEY).returncode == 0

    found = view(alone, add(alone, "greeter", {"name": "Ada"}, greeter=SCRIPT, shout=sdk('return [], {}, ""')))

    assert found["status"] == "finished", found
    assert "greeting Ada with [REDACTED]" in alone.said
    assert KEY not in alone.said


def test_what_is_no_flow_is_not_found(alone: Service) -> None:
    for verb in ("pause", "resume", "cancel", "restart"):
        answer = alone.ask("POST", f"/fcb/00000000-0000-0000-0000-000000000000/{verb}")
        assert (answer.status, answer.code) == (404, "E_TASK_UNKNOWN")


def test_outputs_may_be_large(alone: Service) -> None:
    body = 'next_ = ["grow"] if inputs["size"] < 9 else []\nblob = "x" * (inputs["size"] * 100_000)\n'
    grow = sdk(body + 'return next_, {"size": inputs["size"] + 4, "blob": blob}, ""')

    found = view(alone, add(alone, "grow", {"size": 1}, grow=grow))

    assert found["status"] == "finished", found
    assert found["nodes"]["grow"]["runs"] == 3


def test_a_flow_that_is_wrong_is_refused_with_the_place(alone: Service) -> None:
    good = step("a", "x = 1")
    wrong = [
        {"nodes": {}, "curr_inp": {}},
        {"nodes": {"b": good}, "curr_inp": {}, "curr_node": good},
        {"nodes": {"a": {"name": "a"}}, "curr_inp": {}, "curr_node": good},
        {"nodes": {"a": good}, "curr_inp": [1], "curr_node": good},
        {"nodes": {}, "curr_inp": {}, "curr_node": {**good, "code": "//8="}},
        {"nodes": {"a": good}, "curr_inp": {}, "curr_node": {**good, "code": "y = 2"}},
        {"nodes": {}, "curr_inp": {}, "curr_node": {**good, "code": "x = '{{{secret::no such name}}}'"}},
    ]

    answers = [alone.ask("POST", "/fcb/add", body) for body in wrong]

    assert [one.status for one in answers] == [422] * 7, [one.text for one in answers]
    assert "body.curr_node: Field required" in answers[0].text
    assert "nodes.b.name is 'a'" in answers[1].text
    assert "body.nodes.a.code" in answers[2].text


@pytest.mark.slow  # what was killed holds its leases for as long as they last
def test_flows_go_on_where_they_were_when_the_control_unit_starts_again(site: Site) -> None:
    unit = site.start("control-unit")
    slow = held(site.folder / "go", 'return ["last"], {}, ""')
    flow_id = add(unit, "slow", {}, slow=slow, last=sdk('return [], {}, ""'))
    done = add(unit, "last", {}, last=sdk('return [], {}, ""'))
    view(unit, done)
    unit.popen.kill()
    unit.popen.wait()
    (site.folder / "go").touch()

    again = site.start("control-unit")
    site.services["killed"] = unit
    found = view(again, flow_id)

    assert (found["status"], found["nodes"]["last"]["runs"]) == ("finished", 1)
    assert again.good("GET", f"/fcb/{done}")["nodes"]["last"]["runs"] == 1
