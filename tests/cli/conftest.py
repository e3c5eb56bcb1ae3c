"""A folder with a graph and its handlers, and the command line, run in this process and as processes of its own."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flowkit.cli import main

APP = """
import asyncio, os, time, flowkit

def greet(name):
    return {"text": f"hello {name}"}

def shout(text):
    return text.upper() + "!"

def fail():
    raise ValueError("no such column")

def flaky(ctx):
    if ctx.attempt < 3:
        raise RuntimeError("not yet")
    return ctx.attempt

def noisy():
    print("a handler prints")
    return 1

def raw():
    return b"\\x00\\xff"

async def wait(seconds=30.0, value=None):
    await asyncio.sleep(seconds)
    return value

# Says that it waits for a file, and does.
async def held(path):
    open(path + ".wanted", "w").close()
    while not os.path.exists(path):
        await asyncio.sleep(0.02)

def note(path, text="ran"):
    with open(path, "a") as file:
        file.write(text + "\\n")
    return text
"""
HELLO: dict[str, Any] = {
    "name": "hello",
    "nodes": [{"node_id": "hi", "type": "greet"}, {"node_id": "loud", "type": "shout", "depends_on": ["hi"]}],
}
ISOLATED = ("FLOWKIT_", "KAFKA_", "NO_COLOR", "FORCE_COLOR")


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Ran]


def node(name: str, role: str, *after: str, **more: Any) -> dict[str, Any]:
    return {"node_id": name, "type": role, "inputs": {}} | ({"depends_on": list(after)} if after else {}) | more


def furnish(folder: Path) -> None:
    (folder / "app.py").write_text(APP)
    (folder / "hello.json").write_text(json.dumps(HELLO))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, with `app.py` and `hello.json`; what is imported from it is forgotten afterwards."""
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(ISOLATED)]:
        monkeypatch.delenv(name)
    root, path, modules = logging.getLogger(), list(sys.path), set(sys.modules)
    level, handlers = root.level, list(root.handlers)
    yield tmp_path
    root.setLevel(level)
    root.handlers = handlers
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def cli(folder: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command in this process."""

    def run(*words: object) -> Ran:
        capsys.readouterr()
        code = main([str(word) for word in words])
        said = capsys.readouterr()
        return Ran(code, said.out, said.err)

    return run


@pytest.fixture
def write(folder: Path) -> Callable[..., Path]:
    """Writes a graph of these nodes to `graph.json`."""

    def graph(*nodes: dict[str, Any], **more: Any) -> Path:
        path = folder / "graph.json"
        path.write_text(json.dumps({"nodes": list(nodes), **more}))
        return path

    return graph


def environment(**more: str) -> dict[str, str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith(ISOLATED)}
    return bare | {"PYTHONWARNINGS": "error"} | more


class Process:
    """A command as a process of its own; what it says is read while it runs."""

    def __init__(self, folder: Path, words: tuple[object, ...], more: dict[str, str]) -> None:
        self._out, self._err = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "flowkit", *map(str, words)],
            cwd=folder, env=environment(**more), stdin=subprocess.DEVNULL, stdout=self._out, stderr=self._err,
        )  # fmt: skip

    @property
    def err(self) -> str:
        return os.pread(self._err.fileno(), 1_000_000, 0).decode()

    def heard(self, words: str, seconds: float = 60.0) -> str:
        """What it has said on stderr, once these words have come."""
        deadline = time.monotonic() + seconds
        while words not in (said := self.err):
            assert time.monotonic() < deadline, f"{words!r} did not come, but: {said}"
            assert self.popen.poll() is None, f"it ended without {words!r}: {said}"
            time.sleep(0.02)
        return said

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def finish(self, seconds: float = 60.0) -> Ran:
        """Wait for its end."""
        code = self.popen.wait(seconds)
        return Ran(code, os.pread(self._out.fileno(), 1_000_000, 0).decode(), self.err)

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self._out.close()
        self._err.close()


def command(folder: Path, *words: object, **more: str) -> Ran:
    """Runs a command as a process of its own, to its end."""
    process = Process(folder, words, more)
    try:
        return process.finish()
    finally:
        process.close()


Begin = Callable[..., Process]


@pytest.fixture
def begin(folder: Path) -> Iterator[Begin]:
    """Starts commands that end with the test, at the latest."""
    begun: list[Process] = []

    def run(*words: object, **more: str) -> Process:
        begun.append(Process(folder, words, more))
        return begun[-1]

    yield run
    for process in begun:
        process.close()
