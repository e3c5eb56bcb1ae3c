"""`flowkit tasks`: what there is, how it goes, and how to steer it, on a file."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from flowkit.cli.tasks import STATUSES
from flowkit.client import Client
from flowkit.core.model import TaskStatus
from flowkit.embedded import Embedded
from flowkit.ports import Head, Outcome
from tests.cli.conftest import HELLO, Cli, command, node

DB = ("--db", "flow.db")
SHOWN = """\
task TASK  hello  finished
  created     TIME by local
  ended       TIME, after SECONDS
  labels      by=cron
  params      {"name": "Ada"}
nodes: 2 finished
  hi       finished   SECONDS
  └─ loud  finished   SECONDS
output:
"HELLO ADA!"
"""
FAILED = """\
task TASK  failed
  created     TIME by local
  ended       TIME, after SECONDS
nodes: 1 failed, 1 skipped
  a     failed     SECONDS  ValueError: no such column
  └─ b  skipped    a node before it failed
error at node 'a': ValueError: no such column
traceback of node 'a', attempt 1:
  Traceback (most recent call last):
"""
WATCHED = """\
CLOCK  #1    (task)            running    created
CLOCK  #1    hi                running    leased to WORKER
CLOCK  #2    hi                finished   succeeded in SECONDS: {"text": "hello Ada"}
CLOCK  #2    loud              running    leased to WORKER
CLOCK  #3    loud              finished   succeeded in SECONDS: "HELLO ADA!"
CLOCK  #3    (task)            finished   ended
"""


def settled(text: str) -> str:
    """Ids and times, which differ each time, as they stand in the golden texts."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "TASK", text)
    text = re.sub(r"(\d{4}-)?\b\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r"\d\d:\d\d:\d\d\.\d{3}", "CLOCK", text)
    text = re.sub(r"\bw-[0-9a-f]{8}", "WORKER", text)
    return re.sub(r"\d+(\.\d)? m?s\b", "SECONDS", text)


def ran(cli: Cli, *words: object) -> str:
    """Run a graph on the file; its task's id."""
    cli("run", *words, "--handlers", "app", *DB, "--quiet")
    task_id: str = cli("tasks", "list", *DB, "--json").json["tasks"][0]["task_id"]
    return task_id


def asked(act: Callable[[Client], Awaitable[Any]]) -> Any:
    """What a client does on the file, while nobody coordinates it."""

    async def use() -> Any:
        async with Client(db="flow.db") as client:
            return await act(client)

    return asyncio.run(use())


def created(**more: Any) -> str:
    task_id: str = asked(lambda client: client.create_task(graph=HELLO, params={"name": "Ada"}, **more))
    return task_id


def coordinate_until(done: Callable[[Embedded], Awaitable[bool]]) -> None:
    """Let this process coordinate the file, with no handlers, until something is so."""

    async def use() -> None:
        async with Embedded("flow.db") as engine, asyncio.timeout(60):
            while not await done(engine):
                await asyncio.sleep(0.02)

    asyncio.run(use())


# Lists.


def test_tasks_are_listed_newest_first(cli: Cli) -> None:
    ran(cli, "hello.json", "-p", "name=Ada", "--label", "by=cron")
    later = created()

    lines = cli("tasks", "list", *DB).out.splitlines()

    assert re.fullmatch(r"ID +STATUS +NAME +CREATED +TOOK +LABELS", lines[0])
    assert settled(lines[1]).split() == ["TASK", "queued", "hello", "TIME", "SECONDS"]
    assert later in lines[1]
    assert settled(lines[2]).split() == ["TASK", "finished", "hello", "TIME", "SECONDS", "by=cron"]


def test_tasks_are_listed_for_machines(cli: Cli) -> None:
    ran(cli, "hello.json", "-p", "name=Ada", "--label", "by=cron")

    page = cli("tasks", "list", *DB, "--json").json

    assert page["cursor"] is None
    (task,) = page["tasks"]
    assert (task["status"], task["name"], task["labels"]) == ("finished", "hello", {"by": "cron"})
    assert (task["tenant"], task["priority"], task["error"]) == ("default", 0, None)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (("--status", "finished"), 1), (("--status", "queued", "--status", "finished"), 2), (("--status", "failed"), 0),
        (("--label", "by=cron"), 1), (("--label", "by=cron", "--label", "x=y"), 0), (("--name", "hello"), 2),
        (("--name", "other"), 0), (("--since", "1h"), 2), (("--since", "2999-01-01"), 0), (("--limit", "1"), 1),
    ],
)  # fmt: skip
def test_a_list_may_be_narrowed(filters: tuple[str, ...], found: int, cli: Cli) -> None:
    ran(cli, "hello.json", "-p", "name=Ada", "--label", "by=cron")
    created()
    assert len(cli("tasks", "list", *DB, *filters, "--json").json["tasks"]) == found


def test_children_are_listed_only_with_their_parent(cli: Cli) -> None:
    mother = created()
    child = Head("child", 0, "g", flow="etl@3", parent=mother, parent_node="n", parent_attempt=1, depth=1)

    async def adopt(client: Client) -> None:
        assert await client.backend.store.insert_heads([child]) == [Outcome.OK]
        assert [head.task_id for head in (await client.list_tasks(parent=None)).heads] == [mother, "child"]

    asked(adopt)

    def ids(*words: str) -> list[str]:
        return [task["task_id"] for task in cli("tasks", "list", *DB, *words, "--json").json["tasks"]]

    assert ids() == [mother]
    assert ids("--parent", mother) == ["child"]
    assert ids("--parent", "last", "--flow", "etl") == ["child"]
    assert ids("--parent", mother, "--flow", "etl@2") == []
    assert ids("--flow", "etl") == []
    (told,) = cli("tasks", "list", *DB, "--parent", mother, "--json").json["tasks"]
    said = [told[name] for name in ("flow", "parent", "parent_node", "parent_attempt", "depth")]
    assert said == ["etl@3", mother, "n", 1, 1]


def test_a_list_goes_on_behind_a_cursor(cli: Cli) -> None:
    ids = [created() for _ in range(3)]

    first = cli("tasks", "list", *DB, "--limit", "2")
    (cursor,) = re.findall(r"there are more: --cursor (\S+)", first.err)
    second = cli("tasks", "list", *DB, "--limit", "2", "--cursor", cursor)

    assert [task_id in first.out for task_id in ids] == [False, True, True]
    assert [task_id in second.out for task_id in ids] == [True, False, False]
    assert second.err == ""


def test_an_empty_list_says_so(cli: Cli) -> None:
    created()
    assert cli("tasks", "list", *DB, "--status", "failed").err == "flowkit: no tasks like that\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--status", "finnished"), "no status 'finnished' (did you mean 'finished'?)"),
        (("--since", "soon"), "'soon' is no time"),
        (("--cursor", "x"), "--cursor: 'x' is not what `tasks list` printed"),
        (("--label", "x"), "--label takes NAME=VALUE"),
    ],
)
def test_a_wrong_filter_is_refused(words: tuple[str, ...], said: str, cli: Cli) -> None:
    created()
    answer = cli("tasks", "list", *DB, *words)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err


def test_the_statuses_are_the_model_s() -> None:
    assert tuple(TaskStatus) == STATUSES


# One task.


def test_a_finished_task_is_shown(cli: Cli) -> None:
    task_id = ran(cli, "hello.json", "-p", "name=Ada", "--label", "by=cron")

    shown = cli("tasks", "show", task_id, *DB)

    assert (shown.code, shown.err) == (0, "")
    assert settled(shown.out) == SHOWN


def test_a_failed_task_is_shown_with_its_traceback(cli: Cli, write: Callable[..., Path]) -> None:
    task_id = ran(cli, write(node("a", "fail"), node("b", "greet", "a", inputs={"name": "Ada"})))

    shown = settled(cli("tasks", "show", task_id, *DB).out)

    assert shown.startswith(FAILED)
    assert shown.rstrip().endswith("ValueError: no such column")


def test_a_task_is_shown_for_machines(cli: Cli) -> None:
    task_id = ran(cli, "hello.json", "-p", "name=Ada")

    view = cli("tasks", "show", task_id, *DB, "--json").json

    assert (view["task_id"], view["status"], view["output"]) == (task_id, "finished", "HELLO ADA!")
    assert view["nodes"]["hi"]["output"] == {"text": "hello Ada"}
    assert view["nodes"]["hi"]["attempts"] == 1


def test_transitions_are_replayed(cli: Cli) -> None:
    task_id = ran(cli, "hello.json", "-p", "name=Ada")

    assert settled(cli("tasks", "watch", task_id, *DB).out) == WATCHED
    assert settled(cli("tasks", "watch", task_id, *DB, "--since", "2").out) == "".join(WATCHED.splitlines(True)[-2:])
    events = [json.loads(line) for line in cli("tasks", "watch", task_id, *DB, "--json").out.splitlines()]
    assert [(event["seq"], event["type"], event["node_id"]) for event in events] == [
        (1, "created", ""), (1, "leased", "hi"), (2, "succeeded", "hi"), (2, "leased", "loud"),
        (3, "succeeded", "loud"), (3, "ended", ""),
    ]  # fmt: skip


def test_what_waits_is_explained(cli: Cli) -> None:
    task_id = created()

    told = cli("tasks", "explain", task_id, *DB)

    assert told.out == (
        "ready        node 'hi' is ready for a worker of role 'greet'\nwaiting_for  node 'loud' waits for 'hi'\n"
    )
    assert "no coordinator runs on this file: `flowkit worker MODULE --db flow.db` goes on with its tasks" in told.err
    assert cli("tasks", "explain", task_id, *DB, "--json").json[1] == {
        "node_id": "loud", "code": "waiting_for", "message": "node 'loud' waits for 'hi'",
    }  # fmt: skip


def test_of_an_ended_task_nothing_waits(cli: Cli) -> None:
    task_id = ran(cli, "hello.json", "-p", "name=Ada")

    told = cli("tasks", "explain", task_id, *DB)

    assert (told.out, told.err) == ("nothing waits: the task is finished\n", "")


@pytest.mark.parametrize("verb", ["show", "explain", "watch", "cancel", "pause", "resume", "restart", "delete"])
def test_an_unknown_task_is_said(verb: str, cli: Cli) -> None:
    created()
    answer = cli("tasks", verb, "nobody", *DB)
    assert (answer.code, answer.out, answer.err) == (1, "", "flowkit: there is no task 'nobody' [E_TASK_UNKNOWN]\n")


def test_a_file_that_is_not_there_is_not_made(cli: Cli, folder: Path) -> None:
    answer = cli("tasks", "list", "--db", "typo.db")

    assert answer.code == 2
    assert "there is no file typo.db" in answer.err
    assert not (folder / "typo.db").exists()


def test_without_a_database_it_says_where_it_looked(folder: Path) -> None:
    nobody = {"FLOWKIT_MONGO_URL": "mongodb://127.0.0.1:1", "FLOWKIT_CONNECT_TIMEOUT_SEC": "1"}

    answer = command(folder, "tasks", "list", **nobody)

    assert answer.code == 1
    assert "no --db was named, so it was looked for in MongoDB; for tasks in a file: --db flow.db" in answer.err
    assert "[E_STORE_UNAVAILABLE]; `flowkit doctor` tells more" in answer.err


# Steering, while nobody coordinates: what is asked is written down, and acted on later.


@pytest.mark.parametrize("verb", ["pause", "resume", "restart"])
def test_a_request_that_nobody_hears_is_kept_and_said_to_be(verb: str, cli: Cli) -> None:
    task_id = created()

    answer = cli("tasks", verb, task_id, *DB)

    assert answer.code == 0
    assert answer.out == f"the request to {verb} task {task_id} is written; nobody has acted on it yet\n"
    assert "no coordinator runs on this file" in answer.err
    assert [r.kind for r in asked(lambda client: client.api.store.read_requests(task_id))] == [verb]
    assert f"asked, and nobody has acted on it yet: {verb}" in cli("tasks", "show", task_id, *DB).err


def test_a_cancelled_task_is_cancelled_by_the_next_coordinator(cli: Cli) -> None:
    task_id = created()

    answer = cli("tasks", "cancel", task_id, *DB, "--reason", "a mistake")
    assert answer.out == f"task {task_id} is asked to stop\n"
    assert cli("tasks", "show", task_id, *DB, "--json").json["status"] == "queued"

    async def cancelled(engine: Embedded) -> bool:
        return (await engine.coordinator.get_task(task_id)).status == "cancelled"

    coordinate_until(cancelled)
    view = cli("tasks", "show", task_id, *DB, "--json").json
    assert {node["reason"] for node in view["nodes"].values()} == {"a mistake"}


def test_how_long_what_runs_has_to_stop_can_be_said(cli: Cli) -> None:
    task_id = created()
    assert cli("tasks", "cancel", task_id, *DB, "--grace", "2.5").code == 0

    (request,) = asked(lambda client: client.api.store.read_requests(task_id))
    assert json.loads(request.args)["grace_sec"] == 2.5


def test_a_task_that_has_ended_is_deleted_though_nobody_coordinates(cli: Cli) -> None:
    task_id = ran(cli, "hello.json", "-p", "name=Ada")

    answer = cli("tasks", "delete", task_id, *DB)

    assert (answer.code, answer.out, answer.err) == (0, f"task {task_id} is deleted\n", "")
    assert cli("tasks", "list", *DB).err == "flowkit: no tasks\n"
    assert cli("tasks", "show", task_id, *DB).code == 1


def test_a_deletion_for_machines(cli: Cli) -> None:
    task_id = ran(cli, "hello.json", "-p", "name=Ada")

    assert cli("tasks", "delete", "last", *DB, "--json").json == {"task_id": task_id, "deleted": True}


def test_a_task_that_has_not_ended_is_not_deleted(cli: Cli) -> None:
    task_id = created()

    answer = cli("tasks", "delete", task_id, *DB)

    assert (answer.code, answer.out) == (1, "")
    assert "it is queued; cancel it first, and wait for its end [E_REQUEST_REFUSED]" in answer.err


def test_steering_for_machines(cli: Cli) -> None:
    task_id = created()

    assert cli("tasks", "pause", task_id, *DB, "--json").json == {
        "task_id": task_id, "asked": "pause", "applied": False, "status": "queued", "coordinated": False,
    }  # fmt: skip
    assert cli("tasks", "cancel", task_id, *DB, "--json").json["applied"] is None


def test_an_unknown_node_is_not_cancelled(cli: Cli) -> None:
    answer = cli("tasks", "cancel", created(), *DB, "--node", "lowd")

    assert answer.code == 2
    assert "has no node 'lowd' (did you mean 'loud'?)" in answer.err


def test_the_newest_task_needs_no_id(cli: Cli) -> None:
    created()
    task_id = created()

    assert cli("tasks", "show", "last", *DB).out.startswith(f"task {task_id}  hello  queued\n")
    assert cli("tasks", "cancel", "last", *DB).out == f"task {task_id} is asked to stop\n"


def test_where_there_are_no_tasks_there_is_no_newest(cli: Cli) -> None:
    asked(lambda client: client.list_tasks())
    assert cli("tasks", "show", "last", *DB).err == "flowkit: there are no tasks yet [E_TASK_UNKNOWN]\n"


def test_a_task_that_has_ended_is_not_asked_to_stop(cli: Cli) -> None:
    task_id = ran(cli, "hello.json", "-p", "name=Ada")

    answer = cli("tasks", "cancel", task_id, *DB)

    assert (answer.code, answer.err) == (0, "")
    assert answer.out == f"task {task_id} is finished already: nothing is left to stop\n"
    assert asked(lambda client: client.api.store.read_requests(task_id)) == []


@pytest.mark.parametrize("words", [("--from", "loudd"), ("--input", "loudd={}")])
def test_a_restart_that_names_no_node_of_the_task_is_refused_though_nobody_coordinates(
    words: tuple[str, ...], cli: Cli
) -> None:
    task_id = ran(cli, "hello.json", "-p", "name=Ada")

    answer = cli("tasks", "restart", task_id, *words, *DB)

    assert answer.code == 2
    assert answer.err == f"flowkit: task {task_id} has no node 'loudd' (did you mean 'loud'?) [E_USAGE]\n"
    assert asked(lambda client: client.api.store.read_requests(task_id)) == []
