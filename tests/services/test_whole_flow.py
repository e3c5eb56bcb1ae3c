"""A flow as a user of the predecessors ran it: through all five services, by the names of their verbs."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest

from tests.services.conftest import start_five
from tests.services.stand import KEY, SCRIPT, Site, sdk, step
from tests.services.test_secret_manager import check_verbs as check_verbs_of_secrets
from tests.services.test_trace_monitor import check_posted

COUNT = sdk("""
n = inputs["n"] + 1
await logger.info(f"counted to {n}")
if n < 3:
    return ["count"], {"n": n}, "again"
return ["left", "right"], {"n": n}, "on"
""")
ENDS = sdk('return [], {"end": inputs["n"], "list": [1, None, {"a": "b"}]}, "done"')


def flow(begin: str, inputs: dict[str, Any], **sources: str) -> dict[str, Any]:
    nodes = {name: step(name, source, level) for level, (name, source) in enumerate(sources.items())}
    return {"nodes": nodes, "curr_inp": inputs, "curr_node": nodes[begin]}


def ended(said: dict[str, Any]) -> bool:
    return said["status"] in ("finished", "failed", "cancelled")


def run_through(here: Site) -> None:
    unit, monitor, npu = (here.services[name] for name in ("control-unit", "trace-monitor", "npu"))
    before = npu.good("GET", "/health")
    assert before["status"] == "ok", before

    said = unit.good("POST", "/fcb/add", flow("count", {"n": 0}, count=COUNT, left=ENDS, right=ENDS))
    view = unit.until(f"/fcb/{said['flow_id']}", ended)

    assert view["status"] == "finished", view
    assert {name: (node["state"], node["runs"]) for name, node in view["nodes"].items()} == {
        "count": ("DONE", 3), "left": ("DONE", 1), "right": ("DONE", 1)
    }  # fmt: skip
    found = monitor.until(f"/flow/{said['flow_id']}", lambda flow: all(row["logs"] for row in flow["traces"][:3]))
    assert found["total_nodes"] == 5
    assert found["execution_path"][:3] == ["count", "count", "count"]
    assert sorted(found["execution_path"][3:]) == ["left", "right"]
    first, last = found["traces"][0], found["traces"][-1]
    assert (first["inputs"], first["outputs"]["nodes"], first["status"]) == ({"n": 0}, ["count"], "DONE")
    assert first["outputs"]["outputs"] == {"n": 1}
    assert first["outputs"]["message"] == "again"
    assert base64.b64decode(first["code_base64"]).decode() == COUNT
    assert "counted to 1" in first["logs"][0]
    assert last["outputs"]["outputs"] == {"end": 3, "list": [1, None, {"a": "b"}]}
    assert last["flow_lvl"] in (1, 2)
    assert monitor.good("GET", f"/trace/{first['runner_id']}")["trace_id"] == first["trace_id"]
    assert said["flow_id"] in [one["flow_id"] for one in monitor.good("GET", "/flows")["flows"]]
    units = here.services["node-runner"].good("GET", "/npu/all")
    assert units["count"] == 1


def keep_the_key(here: Site) -> None:
    """The documented script, in a flow: its key is looked up, and is nowhere afterwards."""
    unit, monitor = here.services["control-unit"], here.services["trace-monitor"]
    shout = sdk('return [], {"text": inputs["greeting"].upper()}, "shouted"')

    said = unit.good("POST", "/fcb/add", flow("greeter", {"name": "Ada"}, greeter=SCRIPT, shout=shout))
    view = unit.until(f"/fcb/{said['flow_id']}", ended)
    found = monitor.until(f"/flow/{said['flow_id']}", lambda flow: bool(flow["traces"][0]["logs"]))

    assert view["status"] == "finished", view
    assert found["traces"][1]["outputs"]["outputs"] == {"text": "HELLO ADA"}
    assert "greeting Ada with [REDACTED]" in found["traces"][0]["logs"][0]
    assert KEY not in str(found) + str(view)
    assert not [service.name for service in here.services.values() if KEY in service.said]
    assert not [path for path in here.folder.iterdir() if path.is_file() and KEY.encode() in path.read_bytes()]


def test_a_flow_goes_through_all_five_and_comes_in_a_circle(five: Site) -> None:
    run_through(five)


def test_the_documented_script_uses_a_secret_and_leaves_it_nowhere(five: Site) -> None:
    keep_the_key(five)


def test_a_cancelled_flow_ends_the_program_that_runs_for_it(five: Site) -> None:
    unit, npu = five.services["control-unit"], five.services["npu"]
    hang = sdk('import asyncio\nawait logger.info("hanging")\nawait asyncio.sleep(600)\nreturn [], {}, ""')
    said = unit.good("POST", "/fcb/add", flow("hang", {}, hang=hang))
    busy = npu.until("/health", lambda health: "1 now" in health["checks"]["sandbox"]["detail"])

    unit.good("POST", f"/fcb/{said['flow_id']}/cancel")
    view = unit.until(f"/fcb/{said['flow_id']}", ended)

    assert busy["status"] == "ok"
    assert view["status"] == "cancelled"
    npu.until("/health", lambda health: "0 now" in health["checks"]["sandbox"]["detail"])


@pytest.mark.kafka
@pytest.mark.mongo
def test_the_same_on_mongodb_and_kafka(
    tmp_path: Path, mongo_url: str, kafka_address: str, kafka_prefix: str, mongo_database: Any
) -> None:
    here = Site(tmp_path)
    database = {"MONGODB": mongo_url, "DB_NAME": mongo_database.name, "KAFKA_BOOTSTRAP_SERVERS": kafka_address,
                "FLOWKIT_TOPIC_PREFIX": kafka_prefix, "FLOWKIT_GROUP": f"{kafka_prefix}coordinators",
                "FLOWKIT_MASTER_KEYS": f"k1={base64.b64encode(os.urandom(32)).decode()}"}  # fmt: skip
    try:
        start_five(here, database)
        run_through(here)
        keep_the_key(here)
        check_posted(here.services["trace-monitor"])
        check_verbs_of_secrets(here.services["secret-manager"])
    finally:
        here.close()
