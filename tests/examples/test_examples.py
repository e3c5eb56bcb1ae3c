"""Every example runs as a user runs it, and prints what its page says."""

from __future__ import annotations

import asyncio
import csv
import importlib.util
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.examples.pages import FENCE, ROOT, agrees

EXAMPLES = ROOT / "examples"
LIMIT_SEC = 100


def test_the_quickstart(tmp_path: Path) -> None:
    assert run("quickstart.py", folder=tmp_path) == "HELLO ADA!\n"


def test_the_etl_prints_what_its_page_shows(tmp_path: Path) -> None:
    printed = run("etl/etl.py", folder=tmp_path)

    assert agrees(shown_in("etl/README.md"), printed)


def test_the_etl_adds_up(tmp_path: Path) -> None:
    tea = 0.0
    for path in (EXAMPLES / "etl" / "data").glob("*.csv"):
        for row in csv.DictReader(path.read_text().splitlines()):
            if row["item"].strip().lower() == "tea" and row["quantity"].isdigit() and row["price"] != "n/a":
                tea += int(row["quantity"]) * float(row["price"])

    assert f"{'tea':8} {tea:9.2f}\n" in run("etl/etl.py", folder=tmp_path)


@pytest.mark.xdist_group("default_names")  # of topics
def test_the_quick_example(kafka_address: str, mongo_url: str, tmp_path: Path) -> None:
    services = {"KAFKA_BOOTSTRAP_SERVERS": kafka_address, "MONGO_URL": mongo_url}

    assert run("quick_example.py", folder=tmp_path, **services) == "finished {'echo': 'hello world'}\n"


async def test_two_processes_and_one_that_asks(
    kafka_address: str, kafka_prefix: str, mongo_url: str, tmp_path: Path
) -> None:
    services = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka_address,
        "FLOWKIT_TOPIC_PREFIX": kafka_prefix,
        "MONGO_URL": database_of(mongo_url),
    }

    def play() -> tuple[str, str]:
        with living("two_processes/coordinator.py", **services), living("two_processes/worker.py", **services):
            printed = run("two_processes/submit.py", folder=tmp_path, **services)
            task_id = printed.split()[1]
            again = run("two_processes/submit.py", "--id", task_id, folder=tmp_path, **services)
        return printed, again

    printed, again = await asyncio.to_thread(play)

    page = re.sub(r"task \S+", "task ...", shown_in("two_processes/README.md"))
    assert agrees(page, printed)
    assert again == "'to be or not to be' has 6 words\n"


# FastAPI, without a server: the app is called as a server calls it.


@pytest.fixture
async def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("fastapi")
    httpx = pytest.importorskip("httpx2")
    monkeypatch.setenv("ORDERS_DB", str(tmp_path / "orders.db"))
    app = load("fastapi_app/app.py").app
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://shop") as client,
    ):
        yield client


async def test_an_order_is_accepted_run_and_answered_for(shop: Any) -> None:
    accepted = await shop.post("/orders", json={"item": "coffee", "quantity": 2})
    order = accepted.json()["id"]

    result = await shop.get(f"/orders/{order}/result")
    status = await shop.get(f"/orders/{order}")

    assert accepted.status_code == 202
    assert (result.status_code, result.json()) == (200, {"output": "6.40 paid at node charge"})
    assert status.json() == {"status": "finished", "nodes": dict.fromkeys(("price", "charge", "receipt"), "finished")}


async def test_an_order_that_fails_says_why(shop: Any) -> None:
    order = (await shop.post("/orders", json={"item": "gold"})).json()["id"]

    result = await shop.get(f"/orders/{order}/result")

    assert result.status_code == 422
    assert result.json()["detail"] == {"code": "unknown_item", "message": "we do not sell 'gold'"}


async def test_the_same_key_gives_the_same_order_and_another_order_is_refused(shop: Any) -> None:
    key = {"Idempotency-Key": "a"}
    first = await shop.post("/orders", json={"item": "cake"}, headers=key)
    second = await shop.post("/orders", json={"item": "cake"}, headers=key)
    other = await shop.post("/orders", json={"item": "coffee"}, headers=key)

    assert first.json() == second.json()
    assert other.status_code == 409


async def test_an_unknown_order_is_not_found(shop: Any) -> None:
    assert (await shop.get("/orders/none")).status_code == 404
    assert (await shop.get("/orders/none/result")).status_code == 404


# What the tests are made of.


def run(script: str, *arguments: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / script), *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_SEC,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def living(script: str, **environment: str) -> Iterator[None]:
    """A process that works until it is told to end, and then ends well."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", str(EXAMPLES / script)],
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield
        assert process.poll() is None, "it ended by itself"
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    finally:
        process.kill()
        process.communicate()


def load(script: str) -> Any:
    path = EXAMPLES / script
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Annotations are looked up in the module that a function says it is from.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def shown_in(page: str) -> str:
    fences = FENCE.finditer((EXAMPLES / page).read_text())
    return next(fence[3] for fence in fences if fence[2] == "text")


def database_of(mongo_url: str) -> str:
    """The URL with a database that no other test uses."""
    return urlunsplit(urlsplit(mongo_url)._replace(path=f"/flowkit_test_{uuid.uuid4().hex[:16]}"))
