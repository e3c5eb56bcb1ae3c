"""The commands as processes of their own: signals, pipes, terminals, and what survives them.

Who only looks at what they did, or asks something of them, does so in this process.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.cli.conftest import Begin, Cli, Ran, command, environment, node

Write = Callable[..., Path]
DB = ("--db", "flow.db")


def wait_for(sign: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not sign():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.02)


def task_of(cli: Cli) -> str:
    found = re.search(r"[0-9a-f]{8}-[0-9a-f-]{27}", cli("tasks", "list", *DB).out)
    assert found
    return found[0]


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


# flowkit run


def test_a_run_that_is_interrupted_goes_on_elsewhere(begin: Begin, folder: Path, write: Write, cli: Cli) -> None:
    graph = write(
        node("first", "note", inputs={"path": "ran.txt", "text": "first"}),
        node("slow", "held", "first", inputs={"path": "go"}),
        node("last", "note", "slow", inputs={"path": "ran.txt", "text": "last"}),
    )
    run = begin("run", graph, "--handlers", "app", *DB)
    wait_for((folder / "go.wanted").exists, "the second node")
    run.signal(signal.SIGINT)
    run.heard("interrupted")
    (folder / "go").touch()
    ran = run.finish()

    task_id = task_of(cli)
    assert (ran.code, ran.out) == (130, "")
    hint = f"interrupted; the task is kept, go on with: flowkit run --resume {task_id} --handlers app --db flow.db"
    assert hint in ran.err
    assert lines_of(folder / "ran.txt") == ["first"]

    again = command(folder, *hint.partition("flowkit ")[2].split())

    assert (again.code, again.out) == (0, '"last"\n')
    assert lines_of(folder / "ran.txt") == ["first", "last"], "what had finished did not run again"


def test_the_second_interrupt_ends_at_once(begin: Begin, folder: Path, write: Write, cli: Cli) -> None:
    run = begin("run", write(node("slow", "held", inputs={"path": "go"})), "--handlers", "app", *DB)
    run.heard("slow          running")
    run.signal(signal.SIGINT)
    run.heard("interrupted")
    run.signal(signal.SIGINT)

    ran = run.finish()

    assert (ran.code, ran.err.splitlines()[-1]) == (130, "flowkit: stopping at once")
    shown = cli("tasks", "show", task_of(cli), *DB).out
    assert re.search(r"slow +running", shown), "the first one alone would have waited for it, and then given it back"


def test_a_killed_run_goes_on_elsewhere(begin: Begin, folder: Path, write: Write, cli: Cli) -> None:
    graph = write(
        node("first", "note", inputs={"path": "ran.txt"}),
        node("next", "note", "first", inputs={"path": "next.txt"}),  # it runs once the end of the first is recorded
        node("slow", "wait", "next", inputs={"seconds": 1.0, "value": 5}),
    )
    run = begin("run", graph, "--handlers", "app", *DB)
    wait_for(lambda: lines_of(folder / "next.txt"), "the second node")
    run.signal(signal.SIGKILL)
    run.finish()

    # Only from now on: a lease as short as that does not outlive a machine that halts for a moment.
    words = ("--handlers", "app", *DB, "--set", "lease_ttl_sec=2", "--set", "heartbeat_sec=0.5")
    again = command(folder, "run", "--resume", task_of(cli), *words)

    assert (again.code, again.out) == (0, "5\n")
    assert lines_of(folder / "ran.txt") == ["ran"]


def test_whoever_stops_reading_gets_no_traceback(folder: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nobody:
        done = subprocess.run(
            [sys.executable, "-m", "flowkit", "schema"], cwd=folder, stdout=nobody, stderr=subprocess.PIPE,
            env=environment(), check=False,
        )  # fmt: skip

    assert (done.returncode, done.stderr) == (141, b"")


def test_an_old_encoding_is_no_obstacle(folder: Path, write: Write) -> None:
    graph = write(node("a", "wait", inputs={"seconds": 0, "value": "née \u202e\x1b[31m漢"}))

    ran = command(folder, "run", graph, "--handlers", "app", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")

    assert (ran.code, ran.out) == (0, '"n\\u00e9e \\u202e\\u001b[31m\\u6f22"\n')


# In a terminal.


def in_terminal(folder: Path, *words: object, until: str = "", then: Path | None = None, **more: str) -> Ran:
    """A command whose stdout and stderr are a terminal of 100 columns. Once it has shown `until`, the file `then` is
    made."""
    main, side = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "flowkit", *map(str, words)], cwd=folder, stdin=subprocess.DEVNULL, stdout=side,
        stderr=side,
        env=environment(TERM="xterm-256color", COLUMNS="100", LINES="30", **more),
    )  # fmt: skip
    os.close(side)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal is an error
        while data := os.read(main, 65536):
            shown += data
            if then is not None and until in plain(shown.decode(errors="ignore")):
                then.touch()
    os.close(main)
    return Ran(process.wait(60), shown.decode(), "")


def plain(shown: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)


def test_a_terminal_shows_a_live_tree(folder: Path, write: Write) -> None:
    graph = write(node("a", "held", inputs={"path": "go"}), node("b", "fail", "a", continue_on_failure=True))

    ran = in_terminal(folder, "run", graph, "--handlers", "app", until="● a", then=folder / "go")

    shown = plain(ran.out)
    assert ran.code == 0
    assert "● a" in shown
    assert "✓ a" in shown
    assert "└─ ✗ b" in shown
    assert "ValueError: no such column" in shown
    assert "\x1b[1A" in ran.out, "it is drawn in place"
    assert shown.rstrip().endswith("null"), "the output comes last"


def test_no_color_means_plain_lines(folder: Path) -> None:
    ran = in_terminal(folder, "run", "hello.json", "--handlers", "app", "-p", "name=Ada", NO_COLOR="1")

    assert ran.code == 0
    assert "\x1b" not in ran.out
    assert '"HELLO ADA!"' in ran.out


# flowkit worker, on a file


def test_sigterm_drains_a_worker(begin: Begin, folder: Path, write: Write, cli: Cli) -> None:
    graph = write(
        node("slow", "held", inputs={"path": "go"}), node("last", "note", "slow", inputs={"path": "ran.txt"}),
    )  # fmt: skip
    worker = begin("worker", "app", *DB, "--slots", "3", "--label", "zone=eu")
    said = worker.heard("this process coordinates the file")
    assert re.search(r"worker w-\w+ serves fail, .*, wait: 3 slots, on flow.db", said)
    begin("run", graph, *DB, "--handlers", "app")
    wait_for((folder / "go.wanted").exists, "the node")

    worker.signal(signal.SIGTERM)
    worker.heard("draining")
    (folder / "go").touch()
    ran = worker.finish()

    assert ran.code == 0
    assert "draining for at most 30 s; again to stop at once" in ran.err
    assert ran.err.endswith("flowkit: stopped\n")
    shown = cli("tasks", "show", task_of(cli), *DB).out
    assert re.search(r"slow +finished", shown), "what ran was let finish"


def test_the_second_sigterm_stops_a_worker_at_once(begin: Begin, folder: Path, write: Write, cli: Cli) -> None:
    worker = begin("worker", "app", *DB)
    worker.heard("this process coordinates the file")
    begin("run", write(node("slow", "held", inputs={"path": "go"})), *DB)
    wait_for((folder / "go.wanted").exists, "the node")
    worker.signal(signal.SIGTERM)
    worker.heard("draining")
    began = time.monotonic()
    worker.signal(signal.SIGTERM)

    ran = worker.finish()

    assert time.monotonic() - began < 20.0, "it drains for half a minute"
    assert (ran.code, ran.err.splitlines()[-2:]) == (0, ["flowkit: stopping at once", "flowkit: stopped"])
    shown = cli("tasks", "show", task_of(cli), *DB).out
    assert "running" in shown.splitlines()[0], "a shutdown is never a user's cancel"


def test_another_process_takes_over_a_file(begin: Begin, folder: Path) -> None:
    first = begin("worker", "app", *DB)
    first.heard("this process coordinates the file")
    second = begin("worker", "app", *DB)
    second.heard("another process coordinates this file; this one stands by")

    ran = command(folder, "run", "hello.json", "-p", "name=Ada", *DB)
    assert (ran.code, ran.out) == (0, '"HELLO ADA!"\n')
    assert "another process coordinates this file: the nodes run there" in ran.err

    first.signal(signal.SIGKILL)
    second.heard("this process coordinates the file")
    assert command(folder, "run", "hello.json", "-p", "name=Bob", *DB).out == '"HELLO BOB!"\n'


def test_a_run_takes_over_from_a_worker_that_dies(begin: Begin, folder: Path, write: Write) -> None:
    quick = {"FLOWKIT_LEASE_TTL_SEC": "2", "FLOWKIT_HEARTBEAT_SEC": "0.5"}  # only of who takes over
    worker = begin("worker", "app", *DB)
    worker.heard("this process coordinates the file")
    graph = write(
        node("first", "note", inputs={"path": "ran.txt"}),
        node("next", "note", "first", inputs={"path": "next.txt"}),  # it runs once the end of the first is recorded
        node("slow", "wait", "next", inputs={"seconds": 1.0, "value": 5}),
    )
    run = begin("run", graph, "--handlers", "app", *DB, **quick)
    wait_for(lambda: lines_of(folder / "next.txt"), "the second node")
    worker.signal(signal.SIGKILL)

    ran = run.finish()

    assert (ran.code, ran.out) == (0, "5\n")
    assert "that process has ended: this one coordinates the file now" in ran.err
    assert lines_of(folder / "ran.txt") == ["ran"]


def test_tasks_are_steered_beside_a_worker(begin: Begin, folder: Path, write: Write, cli: Cli) -> None:
    begin("worker", "app", *DB).heard("this process coordinates the file")
    graph = write(node("a", "wait", inputs={"seconds": 3600}), node("b", "note", "a", inputs={"path": "ran.txt"}))
    begin("run", graph, *DB)
    wait_for(lambda: "running" in cli("tasks", "list", *DB).out, "the task")
    task_id = task_of(cli)

    assert cli("tasks", "pause", task_id, *DB).out == f"task {task_id} is paused\n"
    refused = cli("tasks", "pause", task_id, *DB)
    assert (refused.code, "it is paused, not running [E_REQUEST_REFUSED]" in refused.err) == (1, True)
    assert "the task is paused" in cli("tasks", "explain", task_id, *DB).out
    assert cli("tasks", "resume", task_id, *DB).out == f"task {task_id} goes on\n"
    assert cli("tasks", "cancel", task_id, *DB).out == f"task {task_id} is asked to stop\n"
    assert "cancelled" in cli("tasks", "watch", task_id, *DB).out.splitlines()[-1]
    again = cli("tasks", "restart", task_id, "--from", "b", *DB)
    assert (again.code, "'a' before it did not finish: restart from there" in again.err) == (1, True)
    assert cli("tasks", "restart", task_id, *DB).out == f"task {task_id} runs again\n"


def test_a_coordinator_on_a_file_says_what_it_is_good_for(begin: Begin, folder: Path) -> None:
    coordinator = begin("coordinator", *DB)
    said = coordinator.heard("does both")
    assert re.search(r"coordinator c-\w+ on flow.db", said)
    assert "runs no nodes, and no other process can for it: flowkit worker MODULE --db flow.db does both" in said
    coordinator.signal(signal.SIGTERM)
    assert coordinator.finish().code == 0


def test_a_worker_needs_to_know_its_handlers(folder: Path) -> None:
    ran = command(folder, "worker", *DB)
    assert ran.code == 2
    assert "name the MODULE with the functions: flowkit worker app" in ran.err

    unknown = command(folder, "worker", "app", "--role", "gret", *DB)
    assert unknown.code == 2
    assert "no handler for the role 'gret' (did you mean 'greet'?)" in unknown.err


def test_roles_and_settings_of_a_worker(begin: Begin, folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[tool.flowkit]\nhandlers = "app"\nslots = 5\ndb = "flow.db"\n')

    said = begin("worker", "--role", "greet", "--role", "shout", "--slots", "2").heard("slots")
    assert "serves greet, shout: 2 slots" in said
    said = begin("worker", FLOWKIT_SLOTS="4", FLOWKIT_ROLES="greet").heard("slots")
    assert "serves greet: 4 slots" in said
    assert "serves echo: 5 slots" in begin("worker", "--role", "echo").heard("slots")
