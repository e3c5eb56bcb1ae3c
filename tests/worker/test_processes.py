"""Process groups are started, signalled and buried as a whole."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest

from flowkit.worker.orphans import Undertaker
from flowkit.worker.processes import MOST_OUTPUT, Exit, Groups
from tests.worker.stand import alive, until_gone


def test_an_exit_is_a_number_that_knows_more() -> None:
    done = Exit(3, b"out", b"err")
    assert done == 3
    assert (done.stdout, done.stderr) == (b"out", b"err")


async def test_more_output_than_a_pipe_holds_is_no_deadlock_and_the_end_is_kept() -> None:
    script = "import sys; sys.stdout.write('x' * 3_000_000 + 'end'); sys.stderr.write('y' * 300_000)"
    # Isolated: it hears no PYTHONUNBUFFERED, with which Python drops what a write leaves that was stopped.
    done = await Groups().run(sys.executable, "-I", "-c", script, grace_sec=1)
    assert done == 0
    assert len(done.stdout) == MOST_OUTPUT
    assert done.stdout.endswith(b"end")
    assert len(done.stderr) == 300_000


async def test_input_is_fed_even_if_nobody_reads_it() -> None:
    groups = Groups()
    assert (await groups.run("cat", grace_sec=1, stdin=b"hello")).stdout == b"hello"
    assert await groups.run("true", grace_sec=1, stdin=b"x" * 1_000_000) == 0
    assert len(groups) == 0


async def test_what_a_command_leaves_behind_is_killed() -> None:
    began = time.monotonic()
    done = await Groups().run("sh", "-c", "sleep 60 & echo $$", grace_sec=1)
    assert done == 0
    assert time.monotonic() - began < 30
    await until_gone(int(done.stdout))


async def test_a_command_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        await Groups().run("no-such-command-here", grace_sec=1)


async def test_cancelled_it_may_end_by_itself(tmp_path: Path) -> None:
    note = tmp_path / "note"
    script = f"trap 'echo saved > {note}; exit' TERM; echo ready > {note}; while :; do sleep 0.01; done"
    groups = Groups()
    running = asyncio.ensure_future(groups.run("sh", "-c", script, grace_sec=5))
    while not (note.exists() and len(groups)):
        await asyncio.sleep(0.002)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert note.read_text() == "saved\n"


async def test_cancelled_while_it_starts_it_leaves_nothing(tmp_path: Path) -> None:
    for turns in range(12):
        note = tmp_path / str(turns)
        running = asyncio.ensure_future(Groups().run("sh", "-c", f"echo $$ > {note}; sleep 60", grace_sec=1))
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.sleep(0.02)
        if note.exists() and (group := note.read_text()):
            await until_gone(int(group))


async def test_kill_reaches_what_is_started_while_it_kills() -> None:
    groups = Groups()
    groups.kill()
    assert await groups.run("sleep", "60", grace_sec=1) == -signal.SIGKILL


async def test_a_process_that_leads_no_group_is_signalled_alone() -> None:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    groups = Groups()
    groups.add(process.pid)
    groups.kill()
    assert await process.wait() == -signal.SIGKILL
    groups.terminate()


async def test_a_process_that_ends_its_own_is_told_to_and_not_killed() -> None:
    undertaker, groups = Undertaker(), Groups()
    for told in (groups, Groups(undertaker)):
        told.killed = told is groups  # then it is told at once
        script = "import signal, sys; signal.sigwait({signal.SIGUSR1}); sys.exit(7)"
        begin = f"import signal; signal.pthread_sigmask(0, {{10}}); print(1, flush=True); {script}"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", begin, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        assert process.stdout is not None
        await process.stdout.readline()
        told.add_keeper(process.pid, signal.SIGUSR1)
        assert len(told) == 1
        told.terminate()
        told.kill()
        assert await process.wait() == 7
        told.forget()
        assert len(told) == 0
    undertaker.stop()


async def test_the_undertaker_kills_only_what_is_left() -> None:
    undertaker = Undertaker()
    left = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    forgotten = await asyncio.create_subprocess_exec("sleep", "60", start_new_session=True)
    for group in (left.pid, forgotten.pid):
        undertaker.watch(group)
    undertaker.forget(forgotten.pid)
    undertaker.forget(12345678)
    undertaker.stop()
    assert await left.wait() == -signal.SIGKILL
    assert alive(forgotten.pid)
    os.killpg(forgotten.pid, signal.SIGKILL)
    await forgotten.wait()


async def test_a_worker_killed_with_sigkill_leaves_nobody_behind(tmp_path: Path) -> None:
    note = tmp_path / "group"
    script = textwrap.dedent(f"""
        import asyncio
        from flowkit.worker.orphans import Undertaker
        from flowkit.worker.processes import Groups
        command = "sleep 60 & echo $$ > {note}.new && mv {note}.new {note}; sleep 60"
        asyncio.run(Groups(Undertaker()).run("sh", "-c", command, grace_sec=1))
    """)
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    while not note.exists():
        await asyncio.sleep(0.002)
    group = int(note.read_text())
    await asyncio.sleep(0.05)
    assert alive(group)
    worker.kill()
    await worker.wait()
    await until_gone(group)
