"""Nodes bring their own code: it runs as a program, and its node is a node like any other."""

from __future__ import annotations

import asyncio
import logging
import textwrap
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import flowkit
from flowkit.coordinator.views import TaskResult, TaskView
from flowkit.worker.worker import Worker


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


async def test_a_timeout_and_a_cancel_end_the_program_and_say_what_it_used(engine: flowkit.Embedded) -> None:
    slow = code("import time\ndef main(inputs):\n    time.sleep(60)", retry_policy={"max": 1})

    late, view = await whole(engine, {"node_id": "a", **slow, "timeout_sec": 1})
    task = await engine.submit({"nodes": [{"node_id": "a", **slow}]})
    async with asyncio.timeout(30):
        while (await task.view()).nodes["a"].state != "running":
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)
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
    assert usage["wall_sec"] > 0.2


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


async def test_secrets_without_a_manager_fail_the_node_and_say_so(engine: flowkit.Embedded) -> None:
    result, _ = await whole(engine, {"node_id": "a", **code("x = '{{{secret::KEY}}}'"), "secrets": ["KEY"]})

    assert result.error is not None
    assert result.error["code"] == "no_secret_manager"


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
