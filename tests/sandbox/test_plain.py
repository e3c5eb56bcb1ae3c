"""The plain runtime keeps what a runtime promises, as far as level 1 goes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.plain import PlainRuntime
from flowkit.sandbox.runtime import Ending, Limits, Program, Verdict

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.path.realpath(sys.executable)


def python(code: str, **more: object) -> Program:
    return Program((PYTHON, "-I", "-S", "-c", textwrap.dedent(code)), env={"PATH": "/usr/bin:/bin"}, **more)  # type: ignore[arg-type]


async def run(program: Program) -> tuple[Ending, str, str]:
    running = await PlainRuntime(trusted=True).start(program)
    out, err, ending = await asyncio.gather(running.stdout.read(), running.stderr.read(), running.wait())
    running.channel.close()
    return ending, out.decode(), err.decode()


def test_it_is_denied_until_the_operator_says_so() -> None:
    with pytest.raises(CannotStart, match="FLOWKIT_CODE_TRUSTED=1") as refused:
        PlainRuntime()

    assert refused.value.code == "level_not_allowed"


async def test_files_are_there_and_everything_is_gone_afterwards() -> None:
    code = """
        import os
        print(open("data/a.txt").read(), os.getcwd())
        os.mkdir("locked"); open("locked/file", "w").write("x"); os.chmod("locked", 0)
    """

    ending, out, err = await run(python(code, files={"data/a.txt": b"content"}))

    assert (ending.verdict, ending.status, err) == (Verdict.EXITED, 0, "")
    content, folder = out.split()
    assert content == "content"
    assert not os.path.exists(folder)


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", ""])
async def test_files_stay_inside(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"  # of this test alone: others run programs beside it
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))

    with pytest.raises(CannotStart):
        await run(python("", files={name: b""}))

    assert list(tmp_path.iterdir()) == [temporary]
    assert list(temporary.iterdir()) == []


async def test_a_program_that_is_not_there_is_not_started() -> None:
    with pytest.raises(CannotStart, match="no absolute path of a program"):
        await run(Program(("/nowhere/at/all",)))


async def test_the_channel_is_a_stream_both_ways() -> None:
    code = """
        import socket
        channel = socket.socket(fileno=3)
        channel.sendall(channel.recv(100)[::-1])
    """
    running = await PlainRuntime(trusted=True).start(python(code))
    loop = asyncio.get_running_loop()

    await loop.sock_sendall(running.channel, b"abc")

    assert running.channel.type & socket.SOCK_STREAM
    assert await loop.sock_recv(running.channel, 100) == b"cba"
    assert (await running.wait()).status == 0
    running.channel.close()


async def test_a_file_cannot_grow_beyond_the_disk() -> None:
    code = """
        try:
            open("big", "wb").write(bytes(3 * 1024 * 1024))
        except OSError as error:
            print(error.errno)
    """

    _, out, _ = await run(python(code, limits=Limits(disk_mb=1)))

    assert out == "27\n"  # EFBIG


@pytest.mark.parametrize(("act", "verdict"), [("kill", Verdict.KILLED), ("wall", Verdict.WALL)])
async def test_killed_or_out_of_time_nothing_is_left_that_it_started(act: str, verdict: Verdict) -> None:
    code = """
        import os, signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                print(os.getpid(), flush=True)
                time.sleep(60)
            os._exit(0)
        time.sleep(60)
    """
    for wall_sec in (1.0, 20.0) if act == "wall" else (60.0,):
        running = await PlainRuntime(trusted=True).start(python(code, limits=Limits(wall_sec=wall_sec)))
        if said := await running.stdout.readline():
            break
        await running.wait()  # its time was over before it had begun: this machine is busy
        running.channel.close()
    daemon = int(said)
    if act == "kill":
        await running.kill()

    ending = await running.wait()

    assert (ending.verdict, ending.signal) == (verdict, signal.SIGKILL)
    assert not _lives(daemon)
    assert not _lives(running.pid)
    running.channel.close()


async def test_closing_a_runtime_ends_its_programs() -> None:
    runtime = PlainRuntime(trusted=True)
    running = await runtime.start(python("import time; time.sleep(60)"))

    await runtime.close()

    assert (await running.wait()).verdict is Verdict.KILLED
    running.channel.close()


def test_a_worker_that_is_killed_leaves_no_program_behind() -> None:
    worker = f"""
        import asyncio, sys
        sys.path.insert(0, {str(ROOT)!r})
        from flowkit.sandbox.plain import PlainRuntime
        from flowkit.sandbox.runtime import Program
        CODE = '''
        import os, time
        if os.fork() == 0:
            os.setsid()
        print(os.getpid(), flush=True)
        time.sleep(60)
        '''
        import textwrap
        async def main():
            program = Program(({PYTHON!r}, "-I", "-S", "-c", textwrap.dedent(CODE)))
            running = await PlainRuntime(trusted=True).start(program)
            for _ in range(2):
                print((await running.stdout.readline()).decode(), end="")
            print(running.pid, flush=True)
            await asyncio.sleep(60)
        asyncio.run(main())
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(worker)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(process.stdout.readline()) for _ in range(3)]
    assert all(map(_lives, pids))

    process.kill()
    process.wait()

    deadline = time.monotonic() + 60
    while left := [pid for pid in pids if _lives(pid)]:
        assert time.monotonic() < deadline, left
    process.stdout.close()


async def test_nothing_is_leaked_by_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # others run programs beside this test
    before, children = len(os.listdir("/proc/self/fd")), _children()

    for _ in range(3):
        done = await asyncio.gather(*(run(python("import os; print(os.getcwd())")) for _ in range(5)))
        assert all(str(tmp_path) in str(one) for one in done)

    assert len(os.listdir("/proc/self/fd")) <= before + 1
    assert list(tmp_path.glob("flowkit-program-*")) == []
    assert _children() <= children  # there may be servers that other tests need


def _children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
