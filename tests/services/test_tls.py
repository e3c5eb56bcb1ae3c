"""Services on other machines: over TLS, with an authority of one's own."""

from __future__ import annotations

import http.client
import json
import ssl
import uuid

import pytest

from deploy.local.certificates import Authority
from tests.services.stand import Site, packed


@pytest.mark.slow
def test_a_unit_behind_tls_runs_nodes_for_a_runner_that_trusts_its_authority(site: Site) -> None:
    authority = Authority(site.folder / "ca")
    mine = authority.issue("npu", hosts=("127.0.0.1", "localhost"))
    runner = site.start("node-runner")
    trusting = {"TLS_CERT": str(mine.cert), "TLS_KEY": str(mine.key), "HOST": "0.0.0.0", "SELF_ADDR": "localhost"}
    npu = site.start("npu", NODE_RUNNER_ADDR=runner.address, **trusting)
    assert npu.address.startswith("https://0.0.0.0:")
    port = int(npu.address.rpartition(":")[2])

    runner.until("/npu/all", lambda said: said["count"] == 1)
    context = ssl.create_default_context(cafile=str(authority.ca))
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=20)
    connection.request("GET", "/health")
    health = json.loads(connection.getresponse().read())
    connection.close()
    # The runner has not been told of the authority: it does not speak to the unit, and runs nothing by itself.
    body = {"node_name": "x", "code": packed("def main(inputs):\n    return {}"), "inputs": {}}
    distrusted = runner.ask("POST", "/nodes/add-node", {**body, "runner_id": str(uuid.uuid4())})
    runner.close()
    trusts = site.start("node-runner", PORT=runner.address.rpartition(":")[2], SSL_CERT_FILE=str(authority.ca))
    trusts.until("/npu/all", lambda said: said["count"] == 1)
    ran = trusts.good("POST", "/nodes/add-node", {**body, "runner_id": str(uuid.uuid4())})

    assert health["checks"]["sandbox"]["status"] == "ok"
    assert (distrusted.status, distrusted.code) == (503, "E_NO_NPU")
    assert ran["status"] == "DONE", ran
    trusts.until("/npu/all", lambda said: said["npus"][0]["successful_tasks"] == 1)
