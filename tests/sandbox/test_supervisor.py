"""Programs are run from start to verdict: each end has its name, and nothing is left."""

from __future__ import annotations

import asyncio
import os
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from flowkit.sandbox.runtime import Limits
from tests.sandbox.stand import Notes, run, supervision


def code(text: str) -> str:
    return textwrap.dedent(text).lstrip("\n")


async def test_a_plain_function_gets_the_inputs_and_gives_the_output() -> None:
    outcome = await run("def main(inputs):\n    return {'sum': inputs['a'] + inputs['b']}", {"a": 1, "b": 2})

    assert (outcome.verdict, outcome.result and outcome.result.output) == ("finished", {"sum": 3})
    assert outcome.usage.wall_sec > 0
    assert outcome.usage.cpu_sec > 0
    assert (outcome.usage.peak_memory_bytes or 0) > 1_000_000


async def test_an_async_function_runs_and_one_without_parameters_too() -> None:
    outcome = await run("import asyncio\nasync def main():\n    await asyncio.sleep(0)\n    return [1, None, 'ü']")

    assert outcome.result is not None
    assert outcome.result.output == [1, None, "ü"]


async def test_bytes_go_in_and_come_out() -> None:
    source = "def main(inputs):\n    return inputs['data'][::-1]"

    outcome = await run(source, {"data": None}, bytes=[[["data"], "AAH/"]])

    assert outcome.result is not None
    assert outcome.result.output == b"\xff\x01\x00"


async def test_an_exception_has_its_type_its_message_and_the_traceback_of_the_code_alone() -> None:
    source = code("""
        def inner(n):
            return 1 / n

        async def main(inputs):
            return inner(0)
    """)

    outcome = await run(source)

    assert outcome.verdict == "exception"
    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.type) == ("ZeroDivisionError", "ZeroDivisionError")
    assert outcome.failure.message == "division by zero"
    marked = [line for line in outcome.failure.traceback.splitlines() if not line.strip(" ~^")]
    assert [line for line in outcome.failure.traceback.splitlines() if line not in marked] == [
        "Traceback (most recent call last):",
        '  File "step.py", line 5, in main',
        "    return inner(0)",
        '  File "step.py", line 2, in inner',
        "    return 1 / n",
        "ZeroDivisionError: division by zero",
    ]
    assert marked[-1] == "           ~~^~~"  # where a whole line is meant, newer Pythons mark nothing


@pytest.mark.parametrize(
    ("source", "code_", "message", "permanent"),
    [
        ("def main(inputs:", "SyntaxError", "'(' was never closed", True),
        ("import nothing_of_this_name", "ModuleNotFoundError", "No module named", True),
        ("def main(inputs):\n    raise ValueError('no')", "ValueError", "no", True),
        ("def main(inputs):\n    raise OSError('no')", "OSError", "no", False),
        ("import sys\nsys.exit(3)", "SystemExit", "called sys.exit(3)", False),
        ("from flowkit import Permanent\ndef main(inputs):\n    raise Permanent('gone', 'no')", "gone", "no", True),
        ("x = 1", "bad_output", "define main", True),
        ("def main(inputs):\n    return {'a': [1, {2}]}", "bad_output", "output.a[1]: JSON cannot say", True),
        ("def main(inputs):\n    return float('nan')", "bad_output", "JSON has no nan", True),
        ("import os\nos._exit(0)", "bad_output", "ended without a result", True),
        ("import os\nos._exit(7)", "exit_status", "status 7", False),
        ("import os\nos.kill(os.getpid(), 11)", "signal", "SIGSEGV", False),
        ("def main(inputs):\n    return 'x' * 2_000_000", "bad_output", "at most 1,048,576 are allowed", True),
    ],
)  # fmt: skip
async def test_every_other_end_has_its_name(source: str, code_: str, message: str, permanent: bool) -> None:
    outcome = await run(source, limits=Limits(output_mb=1))

    assert outcome.result is None
    assert outcome.failure is not None
    assert outcome.failure.code == code_
    assert outcome.failure.permanent is permanent
    assert message in outcome.failure.message


async def test_a_code_may_ask_to_be_tried_again() -> None:
    source = "import flowkit\ndef main(inputs):\n    raise flowkit.Retry('later', after_sec=2.5)"

    outcome = await run(source)

    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.retry_after, outcome.failure.final) == ("retry", 2.5, False)


async def test_too_much_memory_time_or_cpu_are_told_apart() -> None:
    memory = await run("def main(inputs):\n    return len(bytearray(600_000_000))", limits=Limits(memory_mb=128))
    wall = await run("import time\ndef main(inputs):\n    time.sleep(60)", limits=Limits(wall_sec=1))
    cpu = await run("def main(inputs):\n    while True: pass", limits=Limits(cpu_sec=1))

    assert memory.verdict == "oom"
    assert memory.failure is not None
    assert memory.failure.message.startswith("it needs more memory than its 128 MiB; it had used ")
    assert wall.verdict == "timeout"
    assert wall.failure is not None
    assert wall.failure.message == "it ran longer than 1 s"
    assert cpu.verdict == "cpu_timeout"
    assert 0.5 < cpu.usage.cpu_sec < 3


async def test_lines_come_while_it_runs_and_progress_too() -> None:
    source = code("""
        import sys, time
        from flowkit.node import Node
        node = Node()
        def main(inputs):
            print("one\\n\\ntwo")
            print("three", file=sys.stderr)
            node.progress(1, 4, "quarter")
            while not node.cancelled():
                time.sleep(0.01)
            print("no end of line", end="")
            return 1
    """)
    notes = Notes()
    running = asyncio.ensure_future(supervision(source, {}, notes=notes).run(lambda: 1.0))
    async with asyncio.timeout(30):
        while len(notes.lines) < 4 or not notes.steps:
            await asyncio.sleep(0.01)

    assert not running.done()
    assert set(notes.lines) == {("info", "one"), ("info", ""), ("info", "two"), ("warning", "three")}
    assert notes.steps == [(1, 4, "quarter")]

    notes.stop = True
    assert (await running).verdict == "finished"
    assert notes.lines[-1] == ("info", "no end of line")


@pytest.mark.parametrize("head", ["def", "async def"])
async def test_what_a_generator_yields_is_handed_on_as_it_comes(head: str) -> None:
    notes = Notes()
    source = f"{head} main(inputs):\n    for n in range(inputs['n']):\n        yield {{'n': n}}\n"

    outcome = await run(source, {"n": 3}, notes=notes)

    assert outcome.result is not None
    assert outcome.result.output == {"batches": 3}
    assert notes.batches == [{"n": 0}, {"n": 1}, {"n": 2}]


async def test_a_batch_that_nobody_takes_ends_the_program() -> None:
    notes = Notes()
    source = "import time\ndef main(inputs):\n    yield 1\n    yield 'refuse'\n    time.sleep(60)\n"
    watched = supervision(source, notes=notes)

    with pytest.raises(LookupError, match="no room, ever"):
        await watched.run(lambda: 1.0)

    assert notes.batches == [1]
    assert watched.ending is not None
    assert not _lives(notes.pid)


async def test_a_log_has_an_end_that_is_seen() -> None:
    notes = Notes()
    source = "def main(inputs):\n    for n in range(400_000): print('0123456789')\n    return 'done'"

    outcome = await run(source, limits=Limits(output_mb=1), notes=notes)

    assert outcome.result is not None
    assert outcome.result.output == "done"
    assert notes.lines[-1] == ("warning", "[...] the log is cut here: it has more than 1 MiB")
    assert len(notes.lines) < 1024 * 1024 / 64


async def test_what_steers_a_terminal_is_shown_instead() -> None:
    notes = Notes()

    await run("import os\ndef main(inputs):\n    os.write(1, b'\\x1b[31mred\\xff\\n')", notes=notes)

    assert notes.lines == [("info", "\\x1b[31mred\\xff")]


# ------------------------------------------------------------------------------------------ forged frames

FORGED: dict[str, tuple[str, str]] = {
    "two results": ("send({'do': 'result', 'output': 1}); send({'do': 'result', 'output': 2})", "more than one"),
    "a result and a failure": ("send({'do': 'result', 'output': 1}); send({'do': 'failed'})", "more than one"),
    "no such verb": ("send({'do': 'lease', 'token': 'x'})", "nobody knows"),
    "start again": ("send({'do': 'start'})", "asked twice"),
    "a huge frame": ("os.write(3, b'\\xff\\xff\\xff\\xff')", "4,294,967,295 bytes"),
    "no JSON": ("os.write(3, b'\\x00\\x00\\x00\\x02{]')", "not JSON"),
    "bad UTF-8": ("os.write(3, b'\\x00\\x00\\x00\\x0b{\"do\":\"\\xff\"}  ')", "not JSON"),
    "half a frame": ("os.write(3, b'\\x00\\x00\\x00\\x09{')", "not whole"),
    "a result without output": ("send({'do': 'result'})", "one of them"),
    "next is no list": ("send({'do': 'result', 'output': 1, 'next': 'a'})", "list of at most"),
    "bytes that are none": ("send({'do': 'result', 'bytes': '?'})", "no base64"),
    "a message that is no text": ("send({'do': 'log', 'message': [1]})", "no text"),
    "too deep": ("os.write(3, b'\\x00\\x00\\x00\\xc8' + b'[' * 200)", "nested more than"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
async def test_forged_frames_end_the_attempt_that_sent_them(name: str) -> None:
    act, why = FORGED[name]
    source = code(f"""
        import json, os, struct
        def send(message):
            data = json.dumps(message).encode()
            os.write(3, struct.pack(">I", len(data)) + data)
        {act}
        os._exit(0)
    """)

    outcome = await run(source)

    assert outcome.verdict == "bad_output"
    assert outcome.failure is not None
    assert outcome.failure.permanent
    assert why in outcome.failure.message


async def test_one_that_floods_the_channel_does_not_hold_up_the_loop() -> None:
    source = code("""
        import os, struct
        data = b'{"do":"progress"}'
        while True:
            os.write(3, (struct.pack(">I", len(data)) + data) * 1000)
    """)
    running = asyncio.ensure_future(run(source, limits=Limits(wall_sec=2)))
    longest, before = 0.0, time.thread_time()  # what the loop is busy with, not for how long others are
    while not running.done():
        await asyncio.sleep(0.005)
        longest, before = max(longest, time.thread_time() - before), time.thread_time()

    assert (await running).verdict in ("timeout", "bad_output")
    assert longest < 1.0


# ------------------------------------------------------------------------------------------ ending


async def test_one_that_was_told_to_end_may_do_so_itself(tmp_path: Path) -> None:
    notes = Notes()
    mark = tmp_path / "mark"
    source = code(f"""
        import signal, sys, time
        def bye(*_):
            open({str(mark)!r}, "w").write("bye")
            sys.exit()
        signal.signal(signal.SIGTERM, bye)
        print("ready")
        def main(inputs):
            time.sleep(60)
    """)
    watched = supervision(source, notes=notes)
    running = asyncio.ensure_future(watched.run(lambda: 20.0))
    await _said(notes, "ready")
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert mark.read_text() == "bye"
    assert watched.usage.wall_sec > 0
    assert not _lives(notes.pid)


async def test_one_that_ignores_it_is_killed_with_all_that_it_started() -> None:
    notes = Notes()
    source = code("""
        import os, signal, subprocess, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                print("daemon", os.getpid())
                time.sleep(60)
            os._exit(0)
        other = subprocess.Popen(["/bin/sleep", "60"])
        print("child", other.pid)
        def main(inputs):
            time.sleep(60)
    """)
    running = asyncio.ensure_future(supervision(source, notes=notes).run(lambda: 0.3))
    await _said(notes, "daemon")
    await _said(notes, "child")
    pids = [int(line.split()[1]) for _, line in notes.lines]
    assert all(map(_lives, pids))
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert [pid for pid in (*pids, notes.pid) if _lives(pid)] == []


async def test_what_a_program_leaves_behind_ends_with_it_and_its_result_counts() -> None:
    source = code("""
        import os, time
        def main(inputs):
            if os.fork() == 0:
                os.setsid()
                time.sleep(60)
            return os.getpid()
    """)

    outcome = await run(source)

    assert outcome.verdict == "finished"


async def test_nothing_of_the_parent_reaches_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLOWKIT_CANARY", "seen")
    inherited = os.open(tmp_path / "open", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(inherited, True)
    source = code("""
        import os, sys
        def main(inputs):
            return {"env": sorted(os.environ), "fds": os.listdir("/proc/self/fd"), "cwd": os.getcwd(),
                    "path": sys.path, "files": os.listdir(".")}
    """)
    try:
        outcome = await run(source)
    finally:
        os.close(inherited)

    assert outcome.result is not None
    seen: Any = outcome.result.output
    assert seen["env"] == ["HOME", "LANG", "PATH", "TMPDIR"]
    assert set(seen["fds"]) - {"0", "1", "2", "3"} <= {"4"}  # the fourth is the look itself
    assert not any("site-packages" in path for path in seen["path"])
    assert seen["files"] == []
    assert not os.path.exists(seen["cwd"])


async def _said(notes: Notes, word: str) -> None:
    async with asyncio.timeout(30):
        while not any(word in line for _, line in notes.lines):
            await asyncio.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
