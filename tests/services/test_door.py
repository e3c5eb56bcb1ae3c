"""What stands before every service: strangers, what is too large or no JSON, and where one may listen."""

from __future__ import annotations

import socket
import time
import uuid
from typing import Any
from urllib.parse import urlsplit

import pytest

from flowkit.errors import ConfigError
from flowkit.services.keys import Keys, Principal
from flowkit.services.npu import NpuService
from flowkit.services.settings import KINDS, read_settings
from flowkit.telemetry import Telemetry
from tests.services.stand import KEY, Service, Site, packed

SERVICES = ("control-unit", "trace-monitor", "node-runner", "secret-manager", "npu")
SOME_ID = "12345678-1234-5678-1234-567812345678"
VERBS = {
    "control-unit": [("POST", "/fcb/add"), ("GET", f"/fcb/{SOME_ID}"), ("POST", f"/fcb/{SOME_ID}/pause")],
    "trace-monitor": [("POST", "/trace?flow_id=x"), ("GET", f"/trace/{SOME_ID}"), ("GET", f"/flow/{SOME_ID}"),
                      ("GET", "/flows"), ("GET", "/traces"), ("DELETE", f"/trace/{SOME_ID}")],
    "node-runner": [("POST", "/nodes/add-node"), ("POST", "/npu/add"), ("POST", "/npu/pool/x"), ("GET", "/npu/all"),
                    ("POST", f"/npu/log/{SOME_ID}"), ("POST", f"/npu/result/{SOME_ID}")],
    "secret-manager": [("POST", "/set"), ("GET", "/get/API_KEY"), ("DELETE", "/delete/API_KEY"), ("GET", "/keys")],
    "npu": [("POST", "/run-node"), ("POST", f"/log/{SOME_ID}"), ("POST", f"/result/{SOME_ID}"),
            ("GET", f"/result/{SOME_ID}"), ("POST", f"/secret/{SOME_ID}"), ("POST", f"/cancel/{SOME_ID}")],
}  # fmt: skip
POST = {"control-unit": "/fcb/add", "trace-monitor": "/trace?flow_id=x", "node-runner": "/nodes/add-node",
        "secret-manager": "/set", "npu": "/run-node"}  # fmt: skip
LARGEST = {"control-unit": 16, "trace-monitor": 4, "node-runner": 16, "secret-manager": 0.5, "npu": 8}


@pytest.mark.parametrize("name", SERVICES)
def test_every_verb_needs_a_token_and_only_health_does_not(five: Site, name: str) -> None:
    service = five.services[name]

    answers = [service.ask(method, path, token=token) for method, path in VERBS[name]
               for token in ("", "x" * 40, "é" * 20)]  # fmt: skip
    health = service.ask("GET", "/health", token="")

    assert {(one.status, one.code) for one in answers} == {(401, "E_TOKEN")}
    assert answers[0].headers["www-authenticate"] == "Bearer"
    assert (health.status, health.json["status"]) == (200, "ok")
    assert health.json["checks"]


@pytest.mark.parametrize("name", SERVICES)
def test_hostile_bodies_are_refused_and_leave_the_service_well(five: Site, name: str) -> None:
    service = five.services[name]
    path = POST[name]
    deep = b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"

    def status(raw: bytes, **headers: str) -> tuple[int, str]:
        answer = service.ask("POST", path, raw=raw, **headers)
        return answer.status, answer.code

    assert status(deep) == (400, "E_JSON")
    assert status(b'{"inputs": ' + b"[" * 70 + b"]" * 70 + b"}") == (400, "E_JSON")
    assert status(b'{"a": NaN}') == (400, "E_JSON")
    assert status(b'{"a": ' + b"9" * 5000 + b"}") == (400, "E_JSON")
    assert status(b"\xff\xfe{}") == (400, "E_JSON")
    assert status(b"{") == (400, "E_JSON")
    assert status(b"key=API_KEY", **{"Content-Type": "application/x-www-form-urlencoded"}) == (415, "E_CONTENT_TYPE")
    assert status(b"{}", **{"Content-Type": "text/plain"}) == (415, "E_CONTENT_TYPE")
    assert status(b"[]")[0] == 422
    assert status(b'"text"')[0] == 422
    assert status(b"")[0] == 422
    assert service.good("GET", "/health", token="")["status"] == "ok"


@pytest.mark.parametrize("name", SERVICES)
def test_more_than_may_be_sent_is_not_read(five: Site, name: str) -> None:
    service = five.services[name]
    parts = urlsplit(service.address)
    head = f"POST {POST[name]} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.tokens['operator']}\r\n"
    kind = "Content-Type: application/json\r\n"
    too_many = int(LARGEST[name] * 1024 * 1024) + 1

    with socket.create_connection((parts.hostname, parts.port), timeout=20) as told:
        told.sendall(f"{head}{kind}Content-Length: {10**12}\r\n\r\n".encode())
        first = told.recv(4096)
    answer = b""
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as chunked:
        chunked.sendall(f"{head}{kind}Transfer-Encoding: chunked\r\n\r\n{too_many:x}\r\n".encode())
        try:
            chunked.sendall(b"[" * too_many + b"\r\n0\r\n\r\n")
            answer = chunked.recv(4096)
        except (ConnectionError, TimeoutError):
            answer = answer or b"HTTP/1.1 413 closed"  # it may hang up before all of it is sent

    assert first.startswith(b"HTTP/1.1 413")
    assert answer.startswith(b"HTTP/1.1 413")
    assert service.good("GET", "/health", token="")["status"] == "ok"


@pytest.mark.parametrize("name", SERVICES)
def test_unknown_verbs_have_the_nearest_one(five: Site, name: str) -> None:
    service = five.services[name]
    method, path = VERBS[name][0]

    unknown = service.ask(method, f"{path.partition('?')[0]}/and/more", {})
    wrong = service.ask("PUT", path, {})

    assert (unknown.status, unknown.code) == (404, "E_VERB")
    assert "did you mean" in unknown.text
    assert (wrong.status, wrong.code) == (405, "E_VERB")


def test_wrong_types_say_where_and_show_no_value(five: Site) -> None:
    runner_id = str(uuid.uuid4())
    good: dict[str, Any] = {"node_name": "n", "code": packed("x = 1"), "inputs": {}, "runner_id": runner_id}
    wrong = [{**good, "inputs": [KEY]}, {**good, "runner_id": KEY}, {**good, "runner_id": 7}, {**good, "code": ""},
             {**good, "node_name": "a\nb"}, {**good, "node_name": "x" * 129}]  # fmt: skip

    for service, path in ((five.services["npu"], "/run-node"), (five.services["node-runner"], "/nodes/add-node")):
        answers = [service.ask("POST", path, body) for body in wrong]
        assert [one.status for one in answers] == [422] * len(wrong)
        assert "body.inputs" in answers[0].text
        assert KEY not in answers[0].text


def test_a_token_is_taken_once_the_services_file_has_it_and_is_good_there_alone(five: Site) -> None:
    theirs = {service.tokens["operator"] for service in five.services.values()}

    assert len(theirs) == 5
    for service in five.services.values():
        for token in theirs - {service.tokens["operator"]}:
            assert service.ask("GET", "/keys", token=token).status == 401


def test_who_asks_one_thing_may_not_do_another(five: Site) -> None:
    runner = five.services["node-runner"]
    unit, npu = runner.tokens["control-unit"], runner.tokens["npu"]
    address = {"address": "http://127.0.0.1:1", "id": "thief"}

    answers = [
        runner.ask("POST", "/npu/add", address, token=unit),
        runner.ask("POST", "/npu/pool/thief", {}, token=unit),
        runner.ask("POST", f"/npu/result/{SOME_ID}", {}, token=unit),
        runner.ask("POST", f"/npu/log/{SOME_ID}", token=unit),
        runner.ask("POST", "/nodes/add-node", {"node_name": "x", "code": "x", "runner_id": SOME_ID}, token=npu),
        runner.ask("GET", "/npu/all", token=npu),
    ]

    assert [one.code for one in answers] == ["E_FORBIDDEN"] * 6
    assert runner.good("GET", "/npu/all")["count"] == 1


@pytest.mark.slow
def test_a_body_that_does_not_come_is_not_waited_for(five: Site) -> None:
    service = five.services["npu"]
    parts = urlsplit(service.address)
    head = f"POST /run-node HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {service.tokens['operator']}\r\n"

    began = time.monotonic()
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as slow:
        slow.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
        answer = slow.recv(4096)

    assert answer.startswith(b"HTTP/1.1 408")
    assert 15 < time.monotonic() - began < 40


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"HOST": "0.0.0.0"}, "would let other machines send tokens in the open"),
        ({"TLS_CERT": "cert.pem"}, "TLS needs both TLS_CERT and TLS_KEY"),
        ({"PORT": "http"}, "PORT is a number from 0 to 65535"),
        ({"SECRET_MANAGER": "ftp://x"}, "SECRET_MANAGER is an address such as"),
        ({"SECRET_MANAGER": "http://10.1.2.3:8000"}, "use https://"),
        ({"PARALLEL_PROCESS": "0"}, "PARALLEL_PROCESS is a number from 1 to 1000"),
        ({"QUEUE": "1.5"}, "QUEUE is a whole number"),
        ({"VENV_PATH": "nowhere"}, "VENV_PATH is a virtual environment"),
        ({"EXECUTION_ENV_PATH": "nowhere"}, "EXECUTION_ENV_PATH is a virtual environment"),
        ({"NODE_RUNNER_ADDR": "127.0.0.1:1", "HOST": "0.0.0.0", "WITHOUT_TLS": "1"}, "set SELF_ADDR"),
    ],
)
def test_what_would_not_do_is_said_at_the_start(asked: dict[str, str], says: str) -> None:
    settings = read_settings(KINDS["npu"], None, {}, {"PORT": "0", **asked})
    keys = Keys([(Principal("operator"), "x" * 32)])

    with pytest.raises(ConfigError, match=says):
        NpuService(settings, keys, Telemetry())


def test_an_address_that_is_taken_is_said(five: Site, site: Site) -> None:
    taken: Service = five.services["npu"]
    done = site.run("-m", "flowkit", "service", "npu", PORT=str(urlsplit(taken.address).port))

    assert done.returncode == 2
    assert "cannot listen on 127.0.0.1: Address already in use" in done.stderr
