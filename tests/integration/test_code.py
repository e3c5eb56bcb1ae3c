"""Nodes bring their own code: it runs as a program, and its node is a node like any other."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import textwrap
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import flowkit
from flowkit.coordinator.coordinator import Coordinator
from flowkit.coordinator.views import TaskResult, TaskView
from flowkit.sandbox.lines import NothingSecret
from flowkit.worker.worker import Worker
from tests.integration.site import Site, until
from tests.sandbox.test_environments import wheel


def code(source: str, runtime: str = "python", **more: Any) -> dict[str, Any]:
    return {"type": "code", "code": {"runtime": runtime, "source": textwrap.dedent(source).lstrip("\n")}, **more}


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[flowkit.Embedded]:
    steps = tmp_path / "steps"
    steps.mkdir()
    (steps / "double.py").write_text("def main(inputs):\n    return inputs['n'] * 2\n")
    (tmp_path / "outside.py").write_text("def main(inputs):\n    return 'outside'\n")
    (steps / "link.py").symlink_to(tmp_path / "outside.py")
    cfg = flowkit.WorkerConfig(code_level="L1", code_trusted=True, code_dir=str(steps))
    async with flowkit.Embedded(tmp_path / "flow.db", handlers=[plus_one], worker_cfg=cfg) as running:
        yield running


def plus_one(n: int) -> int:
    return n + 1


async def whole(engine: flowkit.Embedded, *nodes: Mapping[str, Any], **options: Any) -> tuple[TaskResult, TaskView]:
    graph = {"nodes": list(nodes), **options.pop("graph", {})}
    task = await engine.submit(graph, **options)
    result = await task.wait(timeout=60)
    return result, await task.view()


async def test_code_stands_between_handlers_and_its_usage_is_recorded(engine: flowkit.Embedded) -> None:
    result, view = await whole(
        engine,
        {"node_id": "first", "type": "plus_one", "inputs": {"n": 1}},
        {"node_id": "own", **code("async def main(inputs):\n    return {'n': inputs['n'] * 10}"),
         "inputs": {"n": {"$from": "first"}}},
        {"node_id": "last", "type": "plus_one", "depends_on": ["own"]},
    )  # fmt: skip

    assert (result.status, result.output) == ("finished", 21)
    usage = view.nodes["own"].usage
    assert usage is not None
    assert (usage["verdict"], usage["level"]) == ("finished", "L1")
    assert usage["wall_sec"] > 0
    assert usage["peak_memory_bytes"] > 1_000_000
    assert view.nodes["first"].usage is None


async def test_a_failure_is_told_as_the_code_sees_it_and_tried_again_by_its_policy(engine: flowkit.Embedded) -> None:
    boom = code("def main(inputs):\n    raise OSError('no route')", retry_policy={"max": 2, "backoff_sec": 0})

    result, view = await whole(engine, {"node_id": "boom", **boom})

    assert result.status == "failed"
    node = view.nodes["boom"]
    assert node.attempts == 2
    assert node.error is not None
    assert (node.error["code"], node.error["message"], node.error["type"]) == ("OSError", "no route", "OSError")
    assert node.error["traceback"].splitlines()[1] == '  File "boom.py", line 2, in main'
    assert node.usage is not None
    assert node.usage["verdict"] == "exception"


async def test_out_of_memory_it_is_tried_again_with_more_until_that_is_all(engine: flowkit.Embedded) -> None:
    hungry = "def main(inputs):\n    return len(bytearray({mb} * 1024 * 1024))"
    more = {"sandbox": {"memory_mb": 64}, "on_oom": {"memory": "*2", "max_mb": 256}, "retry_policy": {"max": 1}}

    enough, view = await whole(engine, {"node_id": "a", **code(hungry.format(mb=150)), **more})
    never, failed = await whole(engine, {"node_id": "a", **code(hungry.format(mb=300)), **more})

    assert (enough.status, enough.output) == ("finished", 150 * 1024 * 1024)
    assert view.nodes["a"].attempts == 3
    assert never.status == "failed"
    assert failed.nodes["a"].attempts == 3
    assert failed.nodes["a"].error is not None
    assert failed.nodes["a"].error["code"] == "oom"
    assert failed.nodes["a"].error["message"].startswith("it needs more memory than its 256 MiB")


async def test_a_timeout_and_a_cancel_end_the_program_and_say_what_it_used(
    engine: flowkit.Embedded, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    source = f"import time\ndef main(inputs):\n    open({str(begun)!r}, 'w').close()\n    time.sleep(600)"
    slow = code(source, retry_policy={"max": 1})

    for timeout_sec in (1, 20):
        late, view = await whole(engine, {"node_id": "a", **slow, "timeout_sec": timeout_sec})
        if begun.exists():  # else its time was over before that: this machine is busy
            break
    begun.unlink()
    task = await engine.submit({"nodes": [{"node_id": "a", **slow}]})
    await until("it runs", begun.exists)
    await task.cancel(reason="enough")
    cancelled = await task.wait(timeout=30)

    assert late.status == "failed"
    assert view.nodes["a"].error is not None
    assert view.nodes["a"].error["code"] == "timeout"
    assert view.nodes["a"].usage is not None
    assert view.nodes["a"].usage["verdict"] == "timeout"
    assert cancelled.status == "cancelled"
    usage = (await task.view()).nodes["a"].usage
    assert usage is not None
    assert usage["verdict"] == "cancelled"
    assert usage["wall_sec"] > 0


async def test_code_in_a_file_is_read_by_the_worker_and_only_from_its_folder(engine: flowkit.Embedded) -> None:
    def of(file: str) -> dict[str, Any]:
        return {"node_id": "a", "type": "code", "code": {"file": file}, "inputs": {"n": 4}}

    good, _ = await whole(engine, of("double.py"))
    gone, _ = await whole(engine, of("nowhere.py"))
    outside, _ = await whole(engine, of("link.py"))

    assert good.output == 8
    assert gone.error is not None
    assert gone.error["code"] == outside.error["code"] == "code_missing"  # type: ignore[index]


async def test_large_code_and_large_values_travel_apart(engine: flowkit.Embedded) -> None:
    source = f"TEXT = {'x' * 300_000!r}\ndef main(inputs):\n    return [len(TEXT), len(inputs['rows']), 'y' * 200_000]"

    result, _ = await whole(engine, {"node_id": "a", **code(source), "inputs": {"rows": list(range(50_000))}})

    assert result.status == "finished"
    assert result.output[:2] == [300_000, 50_000]
    assert len(result.output[2]) == 200_000


async def test_items_run_code_side_by_side_and_bytes_pass_through(engine: flowkit.Embedded) -> None:
    result, _ = await whole(
        engine,
        {"node_id": "each", **code("def main(inputs):\n    return bytes([inputs['n']])"), "foreach": [1, 2, 3],
         "inputs": {"n": {"$item": ""}}},
        {"node_id": "sum", **code("def main(inputs):\n    return sum(part[0] for part in inputs['parts'])"),
         "inputs": {"parts": {"$from": "each"}}},
    )  # fmt: skip

    assert result.output == 6


async def total(rows: Any) -> int:
    return sum([row["n"] async for row in rows])


async def test_what_code_yields_is_a_stream_for_handlers_and_code_reads_none(tmp_path: Path) -> None:
    make = code("def main(inputs):\n    for n in range(500):\n        yield {'n': n}")
    one = code("def main(inputs):\n    return {'n': 7}")
    sum_up = {"type": "total", "start_when": "first_batch"}
    cfg = flowkit.WorkerConfig(code_level="L1", code_trusted=True)
    async with flowkit.Embedded(tmp_path / "flow.db", handlers=[total], worker_cfg=cfg) as engine:
        result, _ = await whole(
            engine,
            {"node_id": "make", **make},
            {"node_id": "one", **one},
            {"node_id": "many", **sum_up, "inputs": {"rows": {"$stream": "make"}}},
            {"node_id": "few", **sum_up, "inputs": {"rows": {"$stream": "one"}}},
        )

        assert result.outputs == {"make": {"batches": 500}, "one": {"n": 7}, "many": 124_750, "few": 7}
        with pytest.raises(flowkit.GraphError, match="'read' cannot read a stream"):
            read = {"node_id": "read", **one, "inputs": {"rows": {"$stream": "make"}}}
            await engine.submit({"nodes": [{"node_id": "make", **make}, read]})


async def test_the_returned_names_choose_among_the_successors(engine: flowkit.Embedded) -> None:
    chooser = code("""
        from flowkit.node import Node
        node = Node()
        async def main():
            return ["right"], {"n": node.get_inputs()["n"] + 1}, "went right"
        node.register_main(main)
        node.run()
    """)
    end = code("def main(inputs):\n    return inputs['n']")

    result, view = await whole(
        engine,
        {"node_id": "choose", **chooser, "inputs": {"n": 1}},
        {"node_id": "left", **end, "depends_on": ["choose"]},
        {"node_id": "right", **end, "depends_on": ["choose"]},
    )

    assert {name: node.state for name, node in view.nodes.items()} == {
        "choose": "finished", "left": "skipped", "right": "finished",
    }  # fmt: skip
    assert result.outputs["right"] == 2


async def test_what_code_says_while_it_runs_is_logged_with_its_node(
    engine: flowkit.Embedded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "flowkit.handler")
    source = """
        import sys
        from flowkit.log import Logger
        from flowkit.node import Node
        node = Node()
        logger = Logger(node)
        async def main():
            print("printed")
            print("wrong", file=sys.stderr)
            await logger.log_with_context("debug", "logged", {"rows": 3})
            return [], {}, ""
        node.register_main(main)
        node.run()
    """

    await whole(engine, {"node_id": "a", **code(source)})

    said = [record for record in caplog.records if record.name == "flowkit.handler"]
    lines = {(record.levelname, record.getMessage(), getattr(record, "node_id", "")) for record in said}
    assert lines == {
        ("INFO", "printed", "a"), ("WARNING", "wrong", "a"), ("DEBUG", "logged | Context: rows=3", "a"),
    }  # fmt: skip


async def test_code_is_run_by_nobody_where_the_operator_has_not_said_that_it_is_trusted(tmp_path: Path) -> None:
    cfg = flowkit.WorkerConfig(roles=["code"], code_level="L1")
    with pytest.raises(flowkit.FlowKitError, match="FLOWKIT_CODE_TRUSTED=1"):
        await Worker(cfg=cfg).start()

    cfg = flowkit.WorkerConfig(code_level="L1")
    async with flowkit.Embedded(tmp_path / "flow.db", handlers=[plus_one], worker_cfg=cfg) as engine:
        assert engine.worker is not None
        assert not engine.worker.serves_code
    async with flowkit.Embedded(tmp_path / "flow.db", worker_cfg=cfg) as engine:
        assert engine.worker is None


async def test_a_level_that_no_worker_has_is_waited_for_and_named(engine: flowkit.Embedded) -> None:
    node = {"node_id": "a", **code("def main(inputs): return 1"), "sandbox": {"level": "L3"}}
    task = await engine.submit({"nodes": [node]})
    async with asyncio.timeout(30):
        while not (reasons := [one for one in await task.explain() if one.code == "no_worker"]):
            await asyncio.sleep(0.05)

    assert "no live worker that serves 'code' has the labels flowkit.sandbox=L3" in reasons[0].message
    assert "has flowkit.sandbox=L1" in reasons[0].message


# ------------------------------------------------------------------------------------------ secrets

KEY = "sk-0123456789-canary"


class Vault:
    """A secret manager of the test's own, which notes who asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    async def resolve(self, job: Any, names: Any) -> dict[str, str]:
        self.asked.append((job.node, tuple(names)))
        return {name: KEY for name in names if name == "API_KEY"}

    def redactor(self, values: Any) -> Any:
        assert list(values) == [KEY]
        return Covering()


class Covering(NothingSecret):
    def text(self, text: str, /) -> str:
        return text.replace(KEY, "[REDACTED]")

    def value(self, value: Any, /) -> Any:
        return json.loads(self.text(json.dumps(value)))


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Coordinator, Vault, Path]]:
    """A coordinator, and a worker with a secret manager, on one file."""
    vault, file = Vault(), tmp_path / "flow.db"
    cfg = flowkit.WorkerConfig(roles=["code"], code_level="L1", code_trusted=True)
    async with Coordinator(db=file) as coordinator, Worker(db=file, cfg=cfg, secrets=vault):
        yield coordinator, vault, file


async def test_the_documented_script_is_a_node_and_its_key_stays_in_its_program(
    pair: tuple[Coordinator, Vault, Path], caplog: pytest.LogCaptureFixture
) -> None:
    coordinator, vault, file = pair
    caplog.set_level(logging.DEBUG)
    script = (Path(__file__).parents[2] / "examples" / "node_script.py").read_text()
    greet = {"node_id": "greet", "type": "code", "code": {"source": script}, "secrets": ["API_KEY"]}
    shout = {
        "node_id": "shout",
        **code("def main(inputs):\n    return inputs['greeting'].upper()"),
        "depends_on": ["greet"],
    }
    graph = {"nodes": [greet, shout], "output": {"text": {"$from": "shout"}}}

    task_id = await coordinator.create_task(graph=graph, params={"name": "Ada"})
    result = await coordinator.wait_task(task_id, timeout=60)

    assert result.output == {"text": "HELLO ADA"}
    assert vault.asked == [("greet", ("API_KEY",))]
    assert "greeting Ada with [REDACTED]" in caplog.text
    assert KEY not in caplog.text
    stored = b"".join(path.read_bytes() for path in file.parent.iterdir())
    assert KEY.encode() not in stored


async def test_a_secret_in_the_inputs_gets_to_the_program_alone_and_only_where_the_graph_says_so(
    pair: tuple[Coordinator, Vault, Path],
) -> None:
    coordinator, _, file = pair
    forge = {"node_id": "forge", **code("def main(inputs):\n    return {'$secret': 'API_KEY'}")}
    use = {
        "node_id": "use",
        **code("def main(inputs):\n    return [len(inputs['keys'][1]['key']), inputs['forged'], inputs['keys'][1]]"),
        "inputs": {"keys": [1, {"key": {"$secret": "API_KEY"}}], "forged": {"$from": "forge"}},
        "secrets": ["API_KEY"],
    }

    task_id = await coordinator.create_task(graph={"nodes": [forge, use]}, params={})
    result = await coordinator.wait_task(task_id, timeout=60)

    assert result.output == [len(KEY), {"$secret": "API_KEY"}, {"key": "[REDACTED]"}]
    assert KEY.encode() not in b"".join(path.read_bytes() for path in file.parent.iterdir())


async def test_a_secret_that_is_not_there_fails_for_good(pair: tuple[Coordinator, Vault, Path]) -> None:
    coordinator, _, _ = pair
    node = {"node_id": "a", **code("x = '{{{secret::OTHER}}}'"), "secrets": ["OTHER"]}

    task_id = await coordinator.create_task(graph={"nodes": [node]}, params={})
    view = (await coordinator.wait_task(task_id, timeout=60), await coordinator.get_task(task_id))[1]

    assert view.nodes["a"].attempts == 1
    assert view.nodes["a"].error is not None
    assert view.nodes["a"].error["code"] == "secret_unavailable"


# ------------------------------------------------------------------------------------------ packages, levels, a cluster


async def test_required_packages_are_there_and_a_wrong_one_fails_for_good(tmp_path: Path) -> None:
    wheel(tmp_path / "index", "greeting", "1.0", "WORD = 'hello'\n")
    cfg = flowkit.WorkerConfig(
        code_level="L1", code_trusted=True, code_index=str(tmp_path / "index"), code_cache=str(tmp_path / "cache")
    )
    source = "import greeting\ndef main(inputs):\n    return greeting.WORD"

    def of(requirement: str) -> dict[str, Any]:
        return {"node_id": "a", "type": "code", "code": {"source": source, "requirements": [requirement]}}

    async with flowkit.Embedded(tmp_path / "flow.db", worker_cfg=cfg) as engine:
        good, _ = await whole(engine, of("greeting>=1,<2"))
        wrong, view = await whole(engine, of("greeting>=2"))

    assert good.output == "hello"
    assert wrong.error is not None
    assert wrong.error["code"] == "requirements"
    assert view.nodes["a"].attempts == 1


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
async def test_without_a_word_code_runs_as_far_shut_in_as_it_can_be(tmp_path: Path) -> None:
    source = "import os\ndef main(inputs):\n    return [os.path.exists('/etc/shadow'), os.getpid() < 10]"

    async with flowkit.Embedded(tmp_path / "flow.db", worker_cfg=flowkit.WorkerConfig()) as engine:
        result, view = await whole(engine, {"node_id": "a", **code(source)}, {"node_id": "b", **code(source)})

    assert result.status == "finished", result.error
    assert view.nodes["a"].usage is not None
    assert view.nodes["a"].usage["level"] in ("L2", "L3")
    assert result.outputs["b"][0] is False


@pytest.mark.kafka
@pytest.mark.mongo
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
async def test_code_runs_on_kafka_and_mongodb(site: Site) -> None:
    settings = {"roles": ["code"], "code_level": "L1", "code_trusted": True}
    big = code(f"TEXT = {'x' * 200_000!r}\ndef main(inputs):\n    return [len(TEXT), inputs['n']]")
    graph = {
        "nodes": [
            {"node_id": "js", **code("exports.main = (inputs) => inputs.n + 1", "node"), "sandbox": {"memory_mb": 512}},
            {"node_id": "sh", **code('flowkit_result "$(flowkit_input n)1"', "bash"), "inputs": {"n": {"$from": "js"}}},
            {"node_id": "big", **big, "inputs": {"n": {"$from": "sh"}}},
        ]
    }

    async with site.coordinator() as coordinator, site.worker(None, **settings):
        task_id = await coordinator.create_task(graph=graph, params={"n": 1})
        result = await coordinator.wait_task(task_id, timeout=120)
        view = await coordinator.get_task(task_id)

    assert result.status == "finished", result.error
    assert result.output == [200_000, 21]
    assert all(node.usage is not None and node.usage["verdict"] == "finished" for node in view.nodes.values())


async def test_a_stored_secret_gets_to_its_program_with_a_ticket_and_each_use_is_on_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("cryptography")
    caplog.set_level(logging.DEBUG)
    script = (Path(__file__).parents[2] / "examples" / "node_script.py").read_text()
    greet = {"node_id": "greet", "type": "code", "code": {"source": script}, "secrets": ["API_KEY"]}
    echo = {
        "node_id": "shout",
        **code("def main(inputs):\n    key = inputs['key'].encode()\n    return [key.decode(), key.hex()]"),
        "inputs": {"key": {"$secret": "API_KEY"}}, "secrets": ["API_KEY"], "depends_on": ["greet"],
    }  # fmt: skip
    other = {"node_id": "other", **code("x = '{{{secret::NOWHERE}}}'"), "secrets": ["NOWHERE"]}
    cfg = flowkit.WorkerConfig(code_level="L1", code_trusted=True)
    async with flowkit.Embedded(tmp_path / "flow.db", worker_cfg=cfg) as engine:
        await engine.secrets.set("API_KEY", KEY)
        result, _ = await whole(engine, greet, echo, params={"name": "Ada"})
        missing, view = await whole(engine, other)
        record = await engine.secrets.audit()

    assert result.status == "finished", result.error
    assert result.outputs["shout"] == ["[REDACTED]", "[REDACTED]"]
    assert "greeting Ada with [REDACTED]" in caplog.text
    assert missing.error is not None
    assert (missing.error["code"], view.nodes["other"].attempts) == ("E_SECRET_UNKNOWN", 1)
    assert KEY not in caplog.text
    assert KEY.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert "greet" in repr(record)
