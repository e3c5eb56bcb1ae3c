"""The worker as users embed it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

import flowkit
from flowkit.backend import Backend
from flowkit.config import WorkerConfig
from flowkit.errors import ConfigError
from flowkit.worker import EchoHandler, Worker
from flowkit.worker.heart import Renewer
from tests.worker.stand import PatchyBus, PatchyStore, Stand


async def greet(name: str) -> str:
    return f"hello {name}"


async def shout(text: str) -> str:
    return text.upper()


class Cluster:
    """A backend that is not embedded, on memory."""

    def __init__(self) -> None:
        self.stand = Stand([greet])
        self.store = PatchyStore()
        self.bus = PatchyBus(self.stand.broker)
        self.embedded = False
        self.file = None
        self.pool = ""
        self.workers: list[Any] = []
        self.users = 0

    async def start(self) -> None:
        self.users += 1

    async def stop(self) -> None:
        self.users -= 1


def worker_on(cluster: Cluster, **options: Any) -> Worker:
    return Worker(backend=cluster, cfg=WorkerConfig(**options.pop("cfg", {})), **options)  # type: ignore[arg-type]


def test_roles_choose_among_the_handlers(tmp_path: Path) -> None:
    handlers = {"greet": greet, "shout": shout}
    assert list(Worker(db=tmp_path / "a.db", handlers=handlers).handlers) == ["greet", "shout"]
    assert Worker(db=tmp_path / "a.db", handlers=handlers, roles=["shout"]).handlers == {"shout": shout}
    cfg = WorkerConfig(roles=["greet"])
    worker = Worker(db=tmp_path / "a.db", cfg=cfg, handlers=handlers)
    assert worker.cfg.roles == ["greet"]
    assert worker.cfg is not cfg, "the caller's settings are his own"


def test_a_role_without_a_handler_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no handler for the role 'gret' \(did you mean 'greet'\?\)"):
        Worker(db=tmp_path / "a.db", roles=["gret"], handlers=[greet])


@pytest.mark.parametrize("handlers", [None, [], {}])
def test_a_worker_needs_handlers(handlers: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a worker needs handlers"):
        Worker(db=tmp_path / "a.db", handlers=handlers)


def test_labels_come_with_the_worker_or_its_settings(tmp_path: Path) -> None:
    cfg = WorkerConfig(labels={"zone": "eu"})
    assert Worker(db=tmp_path / "a.db", cfg=cfg, handlers=[greet]).cfg.labels == {"zone": "eu"}
    assert Worker(db=tmp_path / "a.db", cfg=cfg, handlers=[greet], labels={"zone": "us"}).cfg.labels == {"zone": "us"}
    assert cfg.labels == {"zone": "eu"}


@pytest.mark.parametrize(
    ("labels", "hint"),
    [
        ({"gpu": True}, r"not 'gpu': True: write {'gpu': 'true'}"),
        ({"cards": 4}, r"not 'cards': 4: write {'cards': '4'}"),
        ({"": "x"}, r"not '': 'x'$"),
        ({7: "x"}, r"not 7: 'x'$"),
    ],
)
def test_labels_that_are_no_texts_are_refused_with_what_to_write(
    labels: dict[Any, Any], hint: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=hint):
        Worker(db=tmp_path / "a.db", handlers=[greet], labels=labels)
    with pytest.raises(ConfigError, match=hint):
        Worker(db=tmp_path / "a.db", handlers=[greet], cfg=WorkerConfig(labels=labels))


def test_echo_comes_by_itself(tmp_path: Path) -> None:
    assert isinstance(Worker(db=tmp_path / "a.db", roles=["echo"]).handlers["echo"], EchoHandler)
    own = {"echo": greet}
    assert Worker(db=tmp_path / "a.db", roles=["echo"], handlers=own).handlers == own
    assert isinstance(Worker(db=tmp_path / "a.db", cfg=WorkerConfig(roles=["echo"])).handlers["echo"], EchoHandler)


def test_it_has_a_name_and_a_version(tmp_path: Path) -> None:
    cfg = WorkerConfig(worker_id="w-1", worker_version="7")
    worker = Worker(db=tmp_path / "a.db", cfg=cfg, handlers=[greet])
    assert (worker.worker_id, worker.worker_version, worker.active) == ("w-1", "7", [])
    assert Worker(db=tmp_path / "a.db", handlers=[greet]).worker_id.startswith("w-")


async def test_it_starts_and_stops_with_its_backend() -> None:
    cluster = Cluster()
    worker = worker_on(cluster, handlers=[greet])
    await worker.stop()
    async with worker:
        assert cluster.users == 1
        with pytest.raises(ConfigError, match="started already"):
            await worker.start()
    assert cluster.users == 0
    await worker.start()
    await worker.stop_now()
    await worker.stop()
    assert cluster.users == 0


async def test_a_start_that_fails_gives_the_backend_back() -> None:
    cluster = Cluster()

    async def refuses(*_: Any) -> Any:
        raise RuntimeError("no tail today")

    cluster.bus.tail = refuses  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="no tail today"):
        await worker_on(cluster, handlers=[greet]).start()
    assert cluster.users == 0


async def test_left_with_an_error_it_hands_back_at_once() -> None:
    began = asyncio.get_running_loop().time()
    with pytest.raises(KeyError):
        async with worker_on(Cluster(), handlers=[greet], cfg={"drain_sec": 60.0}):
            raise KeyError
    assert asyncio.get_running_loop().time() - began < 30


@pytest.mark.parametrize("signals", [1, 2])
async def test_a_first_signal_drains_and_a_second_stops(signals: int) -> None:
    cluster = Cluster()
    worker = worker_on(cluster, handlers=[greet])
    drained = asyncio.Event()

    async def slow_stop(timeout: float | None = None) -> None:
        drained.set()
        await asyncio.sleep(0.05 if signals == 1 else 100)

    worker.stop = slow_stop  # type: ignore[method-assign]
    running = asyncio.ensure_future(worker.run_forever())
    async with asyncio.timeout(30):
        while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # before it listens, the signal would end us all
            await asyncio.sleep(0)
    assert not running.done()
    os.kill(os.getpid(), signal.SIGTERM)
    await drained.wait()
    assert not running.done()
    if signals == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(30):
        await running
    assert cluster.users == 0


async def test_a_handed_over_client_is_used_in_its_own_loop_only() -> None:
    cluster = Cluster()
    worker = Worker(db=object(), backend=cluster, handlers=[greet])  # type: ignore[arg-type]
    store: Renewer = worker._heart_store()
    assert await store.renew(None) is flowkit.ports.Outcome.UNKNOWN  # type: ignore[attr-defined, arg-type]


async def test_embedded_a_handler_that_blocks_everything_runs_once() -> None:
    async def hogs() -> str:
        time.sleep(0.5)
        await asyncio.sleep(0.02)
        return "once"

    short = {"heartbeat_sec": 0.02, "lease_ttl_sec": 0.1}
    cfg, worker_cfg = flowkit.CoordinatorConfig(**short), WorkerConfig(**short)
    async with flowkit.Embedded(handlers=[hogs], cfg=cfg, worker_cfg=worker_cfg) as engine:
        task = await engine.submit({"nodes": [{"node_id": "a", "type": "hogs"}]})
        assert (await task.result()).output == "once"
        assert (await engine.coordinator.get_task(task.id)).nodes["a"].attempts == 1


def test_the_public_names_are_where_they_are_documented_to_be() -> None:
    import flowkit.worker
    from flowkit.worker.handlers.base import Handler, RunContext
    from flowkit.worker.runner import Worker as SameWorker
    from flowkit.worker.runner import WorkerConfig as SameConfig

    assert SameWorker is Worker is flowkit.Worker
    assert SameConfig is WorkerConfig is flowkit.worker.WorkerConfig
    assert flowkit.worker.RoleHandler is Handler
    assert flowkit.worker.Context is RunContext is flowkit.Context
    for name in flowkit.worker.__all__:
        assert getattr(flowkit.worker, name)
    with pytest.raises(AttributeError):
        _ = flowkit.worker.nothing  # type: ignore[attr-defined]


def test_importing_the_worker_is_light() -> None:
    script = "import sys, flowkit.worker.worker; print({'pydantic', 'aiokafka', 'pymongo'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_sigterm_ends_a_worker_process_in_good_order(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import asyncio, signal
        from flowkit.worker import Worker
        async def main():
            worker = Worker(db={str(tmp_path / "a.db")!r}, handlers={{"a": lambda: None}})
            running = asyncio.ensure_future(worker.run_forever())
            while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                await asyncio.sleep(0.01)
            print("ready")
            await running
            print("ended")
        asyncio.run(main())
    """)
    worker = subprocess.Popen([sys.executable, "-u", "-c", script], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    worker.send_signal(signal.SIGTERM)
    assert worker.stdout.read() == "ended\n"
    assert worker.wait(timeout=60) == 0
    worker.stdout.close()


def test_the_backend_is_the_facades_own_business() -> None:
    assert Backend.__module__ == "flowkit.backend"
