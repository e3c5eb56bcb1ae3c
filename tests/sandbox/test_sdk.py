"""The SDK of node scripts: by hand over HTTP, inside over the channel, and light in both."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from flowkit.sandbox.lines import NothingSecret
from tests.sandbox.stand import RUNNER, Notes, run

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "node_script.py"
KEY = "sk-not-for-anybody"
LIGHTEST_SEC = 0.15
MOST_MODULES = 130


class Npu:
    """A node processing unit that notes what it is told."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str | None]] = []
        self.lines: list[str] = []
        self.results: list[dict[str, Any]] = []
        self.failing = 0
        self.refusing = False
        npu = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                npu.hear(self)

            def do_GET(self) -> None:
                npu.hear(self)

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def hear(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if self.failing:
            self.failing -= 1
            request.send_response(503)
            request.end_headers()
            return
        self.asked.append((request.command or "", parts.path, request.headers.get("Authorization")))
        self.lines += parse_qs(parts.query).get("message", [])
        if parts.path.startswith("/result/"):
            self.results.append(json.loads(body))
        secret = parts.path.startswith("/secret/")
        refused = secret and self.refusing
        request.send_response(403 if refused else 200)
        request.end_headers()
        if secret:
            said = {"detail": "its pass is not for it"} if refused else {"value": KEY}
            request.wfile.write(json.dumps(said).encode())

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


@pytest.fixture
def npu() -> Iterator[Npu]:
    unit = Npu()
    yield unit
    unit.stop()


def by_hand(script: Path, npu: Npu, inputs: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "input.json").write_text(json.dumps(inputs))
    command = [sys.executable, str(script), str(folder / "input.json"), RUNNER, npu.address, "greeter"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "FLOWKIT_NODE_TOKEN": "token-of-this-attempt"}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)


def test_the_documented_script_runs_by_hand(npu: Npu, tmp_path: Path) -> None:
    done = by_hand(SCRIPT, npu, {"name": "Ada"}, tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    said = {"nodes": ["shout"], "outputs": {"greeting": "hello Ada"}, "message": "greeted", "status": "DONE"}
    assert npu.results == [said]
    assert {path for _, path, _ in npu.asked} == {f"/secret/{RUNNER}", f"/log/{RUNNER}", f"/result/{RUNNER}"}
    assert {token for _, _, token in npu.asked} == {"Bearer token-of-this-attempt"}
    head, _, rest = npu.lines[0].partition("][20")
    assert head == f"[INFO][greeter][{RUNNER}"
    assert rest.endswith(f"] greeting Ada with {KEY}")  # the unit covers it
    assert npu.lines[1].endswith("] done | Context: letters=9")


@pytest.mark.parametrize("value", ["'; raise SystemExit('run') #", '"""', "{name}", "\\n"])
def test_a_secret_by_hand_never_becomes_code(
    value: str, npu: Npu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.KEY", value)
    body = "KEY = '{{{secret::API_KEY}}}'\nasync def main():\n    return [], {'key': KEY}, f'{len(KEY)}'"

    done = by_hand(script(tmp_path, body), npu, {}, tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert npu.results == [{"nodes": [], "outputs": {"key": value}, "message": str(len(value)), "status": "DONE"}]


def test_a_secret_that_is_refused_by_hand_is_an_error_which_says_so(npu: Npu, tmp_path: Path) -> None:
    npu.refusing = True

    by_hand(SCRIPT, npu, {"name": "Ada"}, tmp_path)

    assert npu.results[0]["status"] == "ERROR"
    assert npu.results[0]["message"].endswith("refused it (403): its pass is not for it")


def test_a_script_without_placeholders_is_run_once(npu: Npu, tmp_path: Path) -> None:
    body = "print('once')\nasync def main():\n    return [], {}, ''"

    plain = by_hand(script(tmp_path, body), npu, {}, tmp_path)
    anew = by_hand(script(tmp_path, f"{body}\nkey = '{{{{{{secret::A}}}}}}'"), npu, {}, tmp_path)

    assert (plain.stdout, anew.stdout) == ("once\n", "once\n")  # what stands behind `Node()` runs once as well


def test_an_address_that_is_none_is_said_and_fails_nothing_else(tmp_path: Path) -> None:
    path = script(tmp_path, "async def main():\n    return [], {}, ''")
    (tmp_path / "input.json").write_text("{}")
    words = [sys.executable, str(path), str(tmp_path / "input.json"), RUNNER, "http://127.0.0.1:10x", "greeter"]

    done = subprocess.run(
        words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
    )

    assert done.returncode == 0
    assert "it is no address of a node processing unit" in done.stderr
    assert "Traceback" not in done.stderr


def script(folder: Path, body: str) -> Path:
    begin = "from flowkit.node import Node\nfrom flowkit.log import Logger\nnode = Node()\nlogger = Logger(node)\n"
    path = folder / "script.py"
    path.write_text(f"{begin}{body}\nnode.register_main(main)\nnode.run()\n")
    return path


def test_an_exception_by_hand_is_an_error_with_its_message(npu: Npu, tmp_path: Path) -> None:
    body = "async def main():\n    try:\n        1 / 0\n    except ZeroDivisionError as error:\n"
    body += "        await logger.error('failed', include_traceback=True)\n        raise LookupError('nothing there')"

    done = by_hand(script(tmp_path, body), npu, {}, tmp_path)

    assert npu.results == [{"nodes": [], "outputs": {}, "message": "nothing there", "status": "ERROR"}]
    assert "ZeroDivisionError: division by zero" in npu.lines[0]
    assert "LookupError: nothing there" in done.stderr


@pytest.mark.parametrize("returned", ["None", "('a', {}, '')", "(['a'], {})", "(['a'], [], '')", "([1], {}, '')"])
async def test_a_wrong_shape_is_said_by_hand_and_inside(returned: str, npu: Npu, tmp_path: Path) -> None:
    path = script(tmp_path, f"async def main():\n    return {returned}")

    await asyncio.to_thread(by_hand, path, npu, {}, tmp_path)
    inside = await run(path.read_text(), {})

    assert npu.results[0]["status"] == "ERROR"
    assert npu.results[0]["message"].startswith("main() must return three things")
    assert inside.failure is not None
    assert (inside.failure.code, inside.failure.permanent) == ("ValueError", True)
    assert inside.failure.message == npu.results[0]["message"]


def test_a_unit_that_stumbles_is_asked_again(npu: Npu, tmp_path: Path) -> None:
    npu.failing = 1

    by_hand(script(tmp_path, "async def main():\n    return [], {}, 'fine'"), npu, {}, tmp_path)

    assert [one["message"] for one in npu.results] == ["fine"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x"], "four arguments"),
        (["{}", "no-uuid", "http://127.0.0.1:1", "n"], "runner_id must be a UUID"),
        (["nowhere.json", RUNNER, "http://127.0.0.1:1", "n"], "cannot read the inputs"),
    ],
)
def test_wrong_arguments_are_said(words: list[str], message: str, tmp_path: Path) -> None:
    path = script(tmp_path, "async def main():\n    return [], {}, ''")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}

    done = subprocess.run([sys.executable, str(path), *words], capture_output=True, text=True, env=env, check=False)

    assert done.returncode == 1
    assert message in done.stderr


async def test_only_an_async_function_can_be_the_main_one() -> None:
    source = "from flowkit import Node\nnode = Node()\nnode.register_main(lambda: 1)"

    outcome = await run(source, {})

    assert outcome.failure is not None
    assert (outcome.failure.type, outcome.failure.permanent) == ("AssertionError", True)


async def test_an_error_inside_has_the_traceback_of_the_script_alone() -> None:
    source = "from flowkit.node import Node\nnode = Node()\nasync def main():\n    raise KeyError('x')\n"
    source += "node.register_main(main)\nnode.run()\n"

    outcome = await run(source, {})

    assert outcome.failure is not None
    assert outcome.failure.traceback.splitlines() == [
        "Traceback (most recent call last):",
        '  File "step.py", line 4, in main',
        "    raise KeyError('x')",
        "KeyError: 'x'",
    ]


class Covering(NothingSecret):
    """A redactor that covers one value where it stands whole."""

    def text(self, text: str, /) -> str:
        return text.replace(KEY, "[REDACTED]")

    def value(self, value: Any, /) -> Any:
        return json.loads(self.text(json.dumps(value)))


async def test_the_documented_script_runs_inside_and_its_key_stays_there() -> None:
    notes = Notes()

    outcome = await run(SCRIPT.read_text(), {"name": "Ada"}, secrets={"API_KEY": KEY}, redactor=Covering(), notes=notes)

    assert outcome.result is not None
    assert outcome.result.output == {"greeting": "hello Ada"}
    assert (outcome.result.next, outcome.result.message) == (("shout",), "greeted")
    assert notes.lines == [("info", "greeting Ada with [REDACTED]"), ("info", "done | Context: letters=9")]


async def test_a_secret_in_the_source_is_looked_up_wherever_a_value_may_stand() -> None:
    source = """
import os
key = {{{secret::KEY}}}
texts = ["{{{secret::KEY}}}", 'a {{{secret::KEY}}} b', f"{len(key)} {{{secret::KEY}}} {key!r:>5}", b"{{{secret::KEY}}}"]
def main(inputs):
    "not looked up: {{{secret::KEY}}}"
    return [key, *texts[:3], texts[3].decode(), main.__doc__, os.path.exists("pasted")]
"""
    nasty = "'\"; open('pasted', 'w'); \\ {key} {{x}}"

    outcome = await run(source, {}, secrets={"KEY": nasty})

    assert outcome.failure is None
    assert outcome.result is not None
    assert outcome.result.output == [
        *(nasty, nasty, f"a {nasty} b", f"{len(nasty)} {nasty} {nasty!r:>5}", nasty),
        "not looked up: {{{secret::KEY}}}",
        False,
    ]


@pytest.mark.parametrize("source", ["def {{{secret::KEY}}}(): pass", "{{{secret::KEY}}} = 1", "x.{{{secret::KEY}}}",
                                    "match 1:\n    case '{{{secret::KEY}}}': pass"])  # fmt: skip
async def test_a_secret_is_no_name_and_no_pattern(source: str) -> None:
    outcome = await run(source, {}, secrets={"KEY": "x"})

    assert outcome.failure is not None
    assert outcome.failure.type == "SyntaxError"
    assert "may stand only where a value may" in outcome.failure.message


async def test_a_secret_that_the_node_does_not_name_is_refused() -> None:
    outcome = await run("def main(inputs):\n    return '{{{secret::OTHER}}}'", {}, secrets={"KEY": "x"})

    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.permanent) == ("secret_unavailable", True)
    assert outcome.failure.message == "the node may not have the secret 'OTHER'; its `secrets` are: KEY"


def test_the_sdk_loads_nothing_heavy_and_takes_no_time() -> None:
    listing = "import sys, flowkit.node, flowkit.log, flowkit.npu_control; print(*sys.modules)"
    begin = f"import sys; sys.path[:0] = [{str(ROOT)!r}]; "

    loaded = _python(begin + listing).split()

    ours = {name for name in loaded if name.partition(".")[0] == "flowkit"}
    assert ours == {"flowkit", "flowkit.node", "flowkit.log", "flowkit.npu_control"}
    assert not {"http.client", "urllib.request", "ssl", "inspect", "dataclasses", "logging.config"} & set(loaded) - {
        "ssl", "inspect", "dataclasses",  # asyncio's own
    }  # fmt: skip
    assert len(loaded) - len(_python("import sys, asyncio; print(*sys.modules)").split()) < MOST_MODULES

    for _ in range(3):  # on a busy machine even the best of three may be unlucky
        bare = min(_seconds("import asyncio") for _ in range(3))
        full = min(_seconds(f"{begin}import asyncio, flowkit.node, flowkit.log") for _ in range(3))
        if full - bare < LIGHTEST_SEC:
            return
    pytest.fail(f"the SDK costs {full - bare:.3f} s beyond asyncio")


def _python(code: str) -> str:
    interpreter = os.path.realpath(sys.executable)
    return subprocess.run([interpreter, "-I", "-S", "-c", code], capture_output=True, text=True, check=True).stdout


def _seconds(code: str) -> float:
    begin = time.perf_counter()
    _python(code)
    return time.perf_counter() - begin
