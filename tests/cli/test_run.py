"""`flowkit run`, on a file or a temporary one, in this process."""

from __future__ import annotations

import asyncio
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowkit.cli import run
from flowkit.coordinator.coordinator import Coordinator
from tests.cli.conftest import HELLO, Cli, node

Write = Callable[..., Path]


def settled(text: str) -> str:
    """Ids and times, which differ each time, as they stand in the golden texts."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "TASK", text)
    return re.sub(r"\d+(\.\d)? m?s\b", "TIME", text)


# How it ends.


def test_the_output_goes_to_stdout_and_all_else_to_stderr(cli: Cli) -> None:
    ran = cli("run", "hello.json", "--handlers", "app", "--param", "name=Ada")

    assert (ran.code, ran.out) == (0, '"HELLO ADA!"\n')
    assert settled(ran.err) == (
        "flowkit: task TASK: 2 nodes\n"
        "  hi            finished   TIME\n"
        "  loud          finished   TIME\n"
        "flowkit: task TASK finished in TIME: 2 finished\n"
    )


def test_the_whole_result_as_json(cli: Cli) -> None:
    result = cli("run", "hello.json", "--handlers", "app", "-p", "name=Ada", "--json").json

    assert result["status"] == "finished"
    assert result["outputs"] == {"hi": {"text": "hello Ada"}, "loud": "HELLO ADA!"}
    assert result["error"] is None
    assert 0 < result["seconds"] == pytest.approx(result["ended_at"] - result["created_at"])


def test_a_failed_run_says_where_and_why(cli: Cli, write: Write) -> None:
    graph = write(
        node("a", "greet", inputs={"name": "Ada"}), node("b", "fail"), node("c", "greet", "b", inputs={"name": "Cy"})
    )

    ran = cli("run", graph, "--handlers", "app")

    assert (ran.code, ran.out) == (1, "")
    assert "flowkit: failed at node 'b': ValueError: no such column\nTraceback" in ran.err
    assert 'raise ValueError("no such column")' in ran.err
    assert "  c             skipped    node 'b' before it failed\n" in ran.err
    assert "1 failed, 1 finished, 1 skipped" in ran.err
    assert "--resume" not in ran.err, "nothing of it is kept"


def test_a_failed_run_has_a_json_result_too(cli: Cli, write: Write) -> None:
    ran = cli("run", write(node("b", "fail")), "--handlers", "app", "--json")

    assert (ran.code, ran.json["status"], ran.json["error"]["code"]) == (1, "failed", "ValueError")


def test_a_timeout_is_exit_code_3_and_says_what_it_waited_for(cli: Cli, write: Write) -> None:
    ran = cli("run", write(node("slow", "wait")), "--handlers", "app", "--timeout", "0.3")

    assert ran.code == 3
    assert "did not end within 0.3 s: node 'slow' " in ran.err
    assert "nothing is kept, because the task was in no file: name one with --db" in ran.err


def test_attempts_and_what_they_wait_for_are_told(cli: Cli, write: Write) -> None:
    graph = write(node("f", "flaky", retry_policy={"max": 3, "backoff_sec": 0.2, "factor": 1, "jitter": False}))

    ran = cli("run", graph, "--handlers", "app")

    assert ran.code == 0
    assert settled(ran.err).splitlines()[1:4] == [
        "  f             waiting    TIME  RuntimeError: not yet; again in TIME",
        "  f             waiting    attempt 2  TIME  RuntimeError: not yet; again in TIME",
        "  f             finished   attempt 3  TIME",
    ]


def test_quiet_leaves_only_what_must_be_said(cli: Cli, write: Write) -> None:
    assert cli("run", "hello.json", "--handlers", "app", "-p", "name=Ada", "--quiet").err == ""
    assert cli("run", write(node("b", "fail")), "--handlers", "app", "-q").err.startswith("flowkit: failed at node 'b'")


def test_what_handlers_print_does_not_get_into_the_output(cli: Cli, write: Write) -> None:
    ran = cli("run", write(node("n", "noisy")), "--handlers", "app")

    assert ran.out == "1\n"
    assert "a handler prints\n" in ran.err


def test_bytes_are_said_in_base64(cli: Cli, write: Write) -> None:
    assert cli("run", write(node("r", "raw")), "--handlers", "app").json == {"base64": "AP8="}


# What is run.


def test_only_what_a_target_needs_is_run(cli: Cli) -> None:
    ran = cli("run", "hello.json", "--handlers", "app:greet", "-p", "name=Ada", "--target", "hi", "--json")

    assert ran.code == 0, "nobody needs a handler for the rest"
    assert ran.json["outputs"] == {"hi": {"text": "hello Ada"}}
    assert "  loud          skipped    no target needs it\n" in ran.err


def test_an_unknown_target_is_refused(cli: Cli) -> None:
    ran = cli("run", "hello.json", "--handlers", "app", "--target", "luod")

    assert ran.code == 2
    assert "E_TARGET_UNKNOWN at targets[0]: no node 'luod' (did you mean 'loud'?)" in ran.err


def test_graph_and_params_may_come_from_stdin(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(HELLO)))
    assert cli("run", "-", "--handlers", "app", "-p", "name=Ada").out == '"HELLO ADA!"\n'
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"name": "Bob"}'))
    assert cli("run", "hello.json", "--handlers", "app", "--params", "-").out == '"HELLO BOB!"\n'


def test_the_project_names_handlers_and_settings(cli: Cli, folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[tool.flowkit]\nhandlers = "app"\ndb = "flow.db"\n')

    assert cli("run", "hello.json", "-p", "name=Ada").out == '"HELLO ADA!"\n'
    assert (folder / "flow.db").exists()


# What is refused, before anything is started.


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run",), "name a GRAPH to run, or a flow: --flow NAME, or a task to go on with: --resume TASK [E_USAGE]"),
        (("run", "hello.json", "--resume", "T"), "name a GRAPH to run, or a flow"),
        (("run", "hello.json", "--flow", "etl"), "name a GRAPH to run, or a flow"),
        (("run", "--flow", "etl"), "--flow needs --db: the file where the flow is"),
        (("run", "--flow", "etl", "--db", "nowhere.db"), "there is no file nowhere.db"),
        (("run", "-", "--params", "-"), "stdin cannot be both the graph and the params"),
        (("run", "--resume", "T"), "--resume needs --db"),
        (("run", "--resume", "T", "--db", "none.db"), "there is no file none.db"),
        (("run", "--resume", "T", "--db", "x.db", "-p", "a=1"), "--param does not go with --resume"),
        (("run", "hello.json", "-p", "Ada"), "--param takes NAME=VALUE, not 'Ada' [E_CONFIG]"),
        (("run", "hello.json", "--label", "x"), "--label takes NAME=VALUE"),
        (("run", "hello.json", "--priority", "high"), "argument --priority: 'high' is not a whole number"),
        (("run", "--resume", "T", "--priority", "0"), "--priority does not go with --resume: the task has its own"),
        (("run", "hello.json", "--handlers", "nix"), "there is no module 'nix'"),
        (("run", "hello.json", "--handlers", "app", "--set", "slots=x"), "WorkerConfig.slots must be int, not 'x'"),
    ],
)
def test_bad_usage_is_said_and_nothing_is_run(words: tuple[str, ...], said: str, cli: Cli) -> None:
    ran = cli(*words)

    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_a_bad_graph_is_refused_with_all_its_problems(cli: Cli, write: Write) -> None:
    ran = cli("run", write(node("a", "greet", "z"), {"node_id": "b"}), "--handlers", "app")

    assert ran.code == 2
    assert "E_PARENT_UNKNOWN at nodes[0].depends_on[0]" in ran.err
    assert "E_KEY_MISSING at nodes[1]" in ran.err


@pytest.mark.parametrize(
    ("handlers", "said"),
    [
        ((), "E_NO_HANDLER at nodes[0].type: nobody serves 'greet': name the module with the functions, --handlers"),
        (("--handlers", "app:shout"), "E_NO_HANDLER at nodes[0].type: no handler for 'greet'; there are: shout"),
        (("--handlers", "names:GREETS"), "no handler for 'greet' (did you mean 'greets'?); there are: greets"),
    ],
)
def test_a_node_that_nobody_could_run_is_refused(handlers: tuple[str, ...], said: str, cli: Cli, folder: Path) -> None:
    (folder / "names.py").write_text("def f(): ...\nGREETS = {'greets': f}\n")

    ran = cli("run", "hello.json", *handlers, "-p", "name=Ada")

    assert ran.code == 2
    assert said in ran.err


def test_debug_shows_tracebacks(cli: Cli, folder: Path) -> None:
    from flowkit.cli.console import UsageError

    with pytest.raises(UsageError):
        cli("run", "none.json", "--debug")


# What is kept.


def listed(cli: Cli, db: str = "flow.db") -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = cli("tasks", "list", "--db", db, "--json").json["tasks"]
    return tasks


def test_a_failed_task_goes_on_where_it_failed(cli: Cli, folder: Path, write: Write) -> None:
    graph = write(
        node("a", "note", inputs={"path": "ran.txt", "text": "a"}), node("b", "broken", "a"),
        node("c", "note", "b", inputs={"path": "ran.txt", "text": "c"}),
    )  # fmt: skip
    (folder / "first.py").write_text("def broken():\n    raise ValueError('not yet')\n")
    (folder / "second.py").write_text("def broken():\n    return 'mended'\n")

    first = cli("run", graph, "--handlers", "app", "--handlers", "first", "--db", "flow.db")
    (task,) = listed(cli)
    hint = f"flowkit run --resume {task['task_id']} --handlers app --handlers first --db flow.db"
    assert (first.code, hint in first.err) == (1, True)

    ran = cli("run", "--resume", task["task_id"], "--handlers", "app", "--handlers", "second", "--db", "flow.db")

    assert (ran.code, ran.out) == (0, '"c"\n')
    assert "failed: what did not finish runs again" in ran.err
    assert (folder / "ran.txt").read_text() == "a\nc\n", "what had finished did not run again"


def test_a_finished_task_gives_its_output_again(cli: Cli) -> None:
    cli("run", "hello.json", "--handlers", "app", "-p", "name=Ada", "--db", "flow.db")
    (task,) = listed(cli)

    again = cli("run", "--resume", task["task_id"], "--db", "flow.db")

    assert (again.code, again.out) == (0, '"HELLO ADA!"\n')


def test_a_task_left_by_a_timeout_goes_on(
    cli: Cli, folder: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "DRAIN_SEC", 0.1)
    graph = write(node("slow", "held", inputs={"path": "go"}), node("next", "note", "slow",
                  inputs={"path": "ran.txt"}))  # fmt: skip
    first = cli("run", graph, "--handlers", "app", "--db", "flow.db", "--timeout", "0.3")
    (task,) = listed(cli)
    assert first.code == 3
    assert f"the task is kept, go on with: flowkit run --resume {task['task_id']}" in first.err

    (folder / "go").touch()
    ran = cli("run", "--resume", task["task_id"], "--handlers", "app", "--db", "flow.db")

    assert (ran.code, ran.out) == (0, '"ran"\n')


def test_a_paused_task_goes_on(cli: Cli, folder: Path) -> None:
    async def paused() -> str:
        async with Coordinator(db=folder / "flow.db") as coordinator:
            task_id = await coordinator.create_task(graph=HELLO, params={"name": "Ada"})
            async with asyncio.timeout(60):
                while (await coordinator.get_task(task_id)).status == "queued":
                    await asyncio.sleep(0.01)
            await coordinator.pause_task(task_id)
            return task_id

    ran = cli("run", "--resume", asyncio.run(paused()), "--handlers", "app", "--db", "flow.db")

    assert (ran.code, ran.out) == (0, '"HELLO ADA!"\n')
    assert "was paused: it goes on" in ran.err


def test_a_restart_that_was_asked_for_meanwhile_comes_first(cli: Cli, folder: Path, write: Write) -> None:
    graph = write(node("a", "note", inputs={"path": "ran.txt"}))
    cli("run", graph, "--handlers", "app", "--db", "flow.db")
    (task,) = listed(cli)
    cli("tasks", "restart", task["task_id"], "--db", "flow.db")

    refused = cli("run", "--resume", task["task_id"], "--db", "flow.db")
    assert refused.code == 2, "now it needs its handlers again"
    assert cli("run", "--resume", task["task_id"], "--handlers", "app", "--db", "flow.db").code == 0
    assert (folder / "ran.txt").read_text() == "ran\nran\n"


def test_an_unknown_task_is_said(cli: Cli) -> None:
    cli("run", "hello.json", "--handlers", "app", "-p", "name=Ada", "--db", "flow.db")

    ran = cli("run", "--resume", "nobody", "--handlers", "app", "--db", "flow.db")

    assert (ran.code, ran.err) == (1, "flowkit: there is no task 'nobody' [E_TASK_UNKNOWN]\n")


def test_an_idempotency_key_gives_the_same_task(cli: Cli, folder: Path, write: Write) -> None:
    graph = write(node("a", "note", inputs={"path": "ran.txt"}))
    words = ("run", graph, "--handlers", "app", "--db", "flow.db", "--idempotency-key", "nightly", "--label", "by=cron",
             "--priority", "-3")  # fmt: skip

    assert [cli(*words).code for _ in range(2)] == [0, 0]

    assert (folder / "ran.txt").read_text() == "ran\n"
    (task,) = listed(cli)
    assert (task["labels"], task["priority"]) == ({"by": "cron"}, -3)
    other = cli(*words, "-p", "x=1")
    assert (other.code, "E_IDEMPOTENCY_CONFLICT" in other.err) == (2, True)


def test_a_task_may_be_left_to_others(cli: Cli, folder: Path) -> None:
    ran = cli("run", "hello.json", "-p", "name=Ada", "--db", "flow.db", "--detach")

    assert (ran.code, ran.err) == (0, "")
    assert [task["task_id"] for task in listed(cli)] == [ran.out.strip()]
    assert cli("run", "--resume", "last", "--handlers", "app", "--db", "flow.db").out == '"HELLO ADA!"\n'
    assert list(cli("run", "hello.json", "--db", "flow.db", "--detach", "--json").json) == ["task_id"]


@pytest.mark.parametrize("words", [("hello.json",), ("--resume", "T", "--db", "hello.json")])
def test_a_task_is_left_to_others_only_where_it_is_kept(words: tuple[str, ...], cli: Cli) -> None:
    ran = cli("run", *words, "--detach")
    assert (ran.code, "--detach creates a task and leaves it to others" in ran.err) == (2, True)
