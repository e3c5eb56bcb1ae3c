"""The five services as processes of their own, started by the command line, and asked over HTTP."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]
ISOLATED = ("FLOWKIT_", "KAFKA_", "HOST", "PORT", "MONGODB", "DB_NAME")
KEY = "sk-canary-5f2d77c1a9"
SCRIPT = (ROOT / "examples" / "node_script.py").read_text()
PATIENCE_SEC = 90.0  # with which a busy machine gets there, too


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def code(self) -> str:
        return str(self.json["code"])


def environment(**more: str) -> dict[str, str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith(ISOLATED)}
    trusted = {"FLOWKIT_CODE_LEVEL": "L1", "FLOWKIT_CODE_TRUSTED": "1"}
    return {**bare, "PYTHONWARNINGS": "error", "PYTHONPATH": str(ROOT), **trusted, **more}


@dataclass
class Service:
    """One of them. `said` is what it has said on stderr."""

    name: str
    folder: Path
    popen: subprocess.Popen[str]
    stderr: Any
    address: str = ""
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def said(self) -> str:
        return os.pread(self.stderr.fileno(), 4_000_000, 0).decode()

    def wait(self, words: str, seconds: float = PATIENCE_SEC) -> str:
        deadline = time.monotonic() + seconds
        while words not in (said := self.said):
            assert time.monotonic() < deadline, f"{self.name}: {words!r} did not come, but: {said}"
            assert self.popen.poll() is None, f"{self.name} ended without {words!r}: {said}"
            time.sleep(0.02)
        return said

    def ready(self) -> Service:
        said = self.wait(" at http")
        found = re.search(rf"{self.name}\b[^\n]*? at (https?://[^\s,]+)", said)
        assert found is not None, said
        self.address = found[1]
        for line in (self.folder / f"flowkit-{self.name}.token").read_text().splitlines():
            if not line.startswith("#"):
                name, _, token = line.split()
                self.tokens[name] = token
        return self

    def ask(self, method: str, path: str, body: Any = None, *, token: str | None = None, raw: bytes | None = None,
            **headers: str) -> Answer:  # fmt: skip
        """One request as the operator, or with another token; "" is none."""
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        said = {} if data is None else {"Content-Type": "application/json"}
        shown = self.tokens["operator"] if token is None else token
        if shown:
            said["Authorization"] = f"Bearer {shown}"
        parts = urlsplit(self.address)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        try:
            connection.request(method, path, data, {**said, **headers})
            got = connection.getresponse()
            return Answer(got.status, got.read().decode(), {name.lower(): value for name, value in got.getheaders()})
        finally:
            connection.close()

    def good(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        answer = self.ask(method, path, body, **more)
        assert answer.status < 300, f"{method} {path}: {answer.status} {answer.text}\n{self.said}"
        return answer.json

    def until(self, path: str, holds: Any, seconds: float = PATIENCE_SEC) -> Any:
        deadline = time.monotonic() + seconds
        while not holds(found := self.good("GET", path)):
            assert time.monotonic() < deadline, f"{path}: {found}\n{self.said}"
            time.sleep(0.05)
        return found

    def well(self, seconds: float = PATIENCE_SEC) -> None:
        """Wait until it and all that it depends on are well."""
        deadline = time.monotonic() + seconds
        while (answer := self.ask("GET", "/health", token="")).status != 200:
            assert time.monotonic() < deadline, f"{answer.text}\n{self.said}"
            time.sleep(0.05)

    def until_there(self, path: Path, seconds: float = PATIENCE_SEC) -> None:
        deadline = time.monotonic() + seconds
        while not path.exists() or not path.stat().st_size:
            assert time.monotonic() < deadline, f"{path} did not come\n{self.said}"
            time.sleep(0.05)

    def end(self, number: int = signal.SIGTERM, seconds: float = 20.0) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(seconds)

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(10)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
        self.stderr.close()


class Site:
    """A folder with services in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.services: dict[str, Service] = {}

    def begin(self, name: str, *words: str, **env: str) -> Service:
        """Start one, and go on at once; it listens on a free port unless it is told another."""
        return self.spawn(name, "service", name, *words, **{"PORT": "0", **env})

    def spawn(self, name: str, *words: str, **env: str) -> Service:
        """Start another command of FlowKit's, under this name, and go on at once."""
        stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
        popen = subprocess.Popen(
            [sys.executable, "-m", "flowkit", *words], cwd=self.folder, env=environment(**env),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, text=True,
        )  # fmt: skip
        self.services[name] = Service(name, self.folder, popen, stderr)
        return self.services[name]

    def start(self, name: str, *words: str, **env: str) -> Service:
        return self.begin(name, *words, **env).ready()

    def run(self, *words: str, said: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """A command, to its end; `said` is what it is told on stdin."""
        return subprocess.run(
            [sys.executable, *words], cwd=self.folder, env=environment(**env), capture_output=True, text=True,
            timeout=60, check=False, input=said,
        )  # fmt: skip

    def by_hand(self, npu: Service, inputs: Any, *names: str, script: str = SCRIPT,
                runner_id: str = "") -> tuple[str, subprocess.CompletedProcess[str]]:  # fmt: skip
        """A script run by hand, with a pass for these secrets; and the id of its run."""
        runner_id = runner_id or str(uuid.uuid4())
        (self.folder / "script.py").write_text(script)
        (self.folder / "input.json").write_text(json.dumps(inputs))
        words = [word for name in names for word in ("--secret", name)]
        made = self.run("-m", "flowkit", "service", "npu", "--pass", runner_id, *words)
        assert made.returncode == 0, made.stderr
        done = self.run("script.py", "input.json", runner_id, npu.address, "greeter",
                        FLOWKIT_NODE_TOKEN=made.stdout.strip())  # fmt: skip
        return runner_id, done

    def close(self) -> None:
        for service in self.services.values():
            service.popen.terminate()
        for service in self.services.values():
            service.close()


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def packed(source: str) -> str:
    return base64.b64encode(source.encode()).decode()


def step(name: str, source: str, flow_lvl: Any = 0) -> dict[str, Any]:
    return {"name": name, "code": packed(source), "flow_lvl": flow_lvl}


def held(gate: Path, then: str, first: str = "") -> str:
    """A script with the SDK that does something, runs until there is the file `gate`, and then does something else."""
    wait = f"while not os.path.exists({str(gate)!r}):\n    await asyncio.sleep(0.02)"
    return sdk("\n".join(["import asyncio, os", *([first] if first else []), wait, then]))


def sdk(body: str) -> str:
    """A script with the SDK, whose main function has this body; `inputs` are its inputs."""
    lines = "".join(f"    {line}\n" for line in ["inputs = node.get_inputs()", *body.splitlines()])
    begin = "from flowkit.node import Node\nfrom flowkit.log import Logger\nnode = Node()\nlogger = Logger(node)\n"
    return f"{begin}\nasync def main():\n{lines}\nnode.register_main(main)\nnode.run()\n"
