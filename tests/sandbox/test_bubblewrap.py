"""At L3 a program has a machine of its own, is held to its limits, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from flowkit.sandbox.bubblewrap import BubblewrapRuntime
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.hierarchies import Controller, find
from flowkit.sandbox.runtime import Limits, Program, Verdict
from tests.sandbox.programs import PYTHON, finish, run, script


async def test_a_program_has_its_files_its_environment_and_nothing_else(l3: BubblewrapRuntime) -> None:
    source = "import os; print(open('in/a.txt').read(), sorted(os.environ), os.getcwd(), os.listdir('.'))"

    done = await run(l3, script(source, files={"in/a.txt": b"given"}, env={"OWN": "1"}))

    assert done.ending.verdict is Verdict.EXITED and done.ending.status == 0, done.err
    words = done.out.split()
    assert words[0] == "given"
    assert "/flowkit-work" in words and "['in']" in words
    assert not set(os.environ) - {"PATH", "LC_CTYPE"} & set(words)


async def test_the_channel_is_descriptor_3_and_speaks_both_ways(l3: BubblewrapRuntime) -> None:
    source = "import socket; s = socket.socket(fileno=3); s.send(s.recv(100).upper())"
    running = await l3.start(script(source))

    await asyncio.get_running_loop().sock_sendall(running.channel, b"hello")
    answer = await asyncio.get_running_loop().sock_recv(running.channel, 100)

    assert answer == b"HELLO"
    assert (await finish(running)).ending.status == 0


async def test_an_exit_status_is_told_from_a_signal(l3: BubblewrapRuntime) -> None:
    exited = await run(l3, script("raise SystemExit(137)"))
    killed = await run(l3, script("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"))

    assert (exited.ending.verdict, exited.ending.status, exited.ending.signal) == (Verdict.EXITED, 137, None)
    assert (killed.ending.verdict, killed.ending.status, killed.ending.signal) == (Verdict.SIGNAL, None, 9)


async def test_a_wall_timeout_ends_even_what_ignores_sigterm(l3: BubblewrapRuntime) -> None:
    source = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    running = await l3.start(script(source, limits=Limits(wall_sec=2.0)))
    await running.stdout.readline()
    running.terminate()

    done = await finish(running)

    assert done.ending.verdict is Verdict.WALL
    assert 1.9 <= done.ending.usage.wall_sec < 20


async def test_a_cpu_timeout_counts_all_processes(l3: BubblewrapRuntime) -> None:
    source = "import os; os.fork(); os.fork()\nwhile True: pass"

    done = await run(l3, script(source, limits=Limits(cpu_sec=1.0, cpu=2.0, wall_sec=100)))

    assert done.ending.verdict is Verdict.CPU
    assert 0.9 <= done.ending.usage.cpu_sec < 4


async def test_out_of_memory_is_said_with_the_peak(l3: BubblewrapRuntime) -> None:
    done = await run(
        l3, script("x = bytearray(200_000_000); x[::4096] = b'1' * len(x[::4096])", limits=Limits(memory_mb=64))
    )

    assert done.ending.verdict is Verdict.OOM
    assert done.ending.usage.peak_memory_bytes is not None
    assert 48_000_000 < done.ending.usage.peak_memory_bytes <= 64 * 1024 * 1024


async def test_memory_that_a_child_runs_out_of_ends_the_program(l3: BubblewrapRuntime) -> None:
    source = "import os, time\nif os.fork() == 0: x = b'1' * 200_000_000\ntime.sleep(60)"

    done = await run(l3, script(source, limits=Limits(memory_mb=64)))

    assert done.ending.verdict is Verdict.OOM
    assert done.ending.usage.wall_sec < 30


async def test_a_kill_ends_everything_and_says_so(l3: BubblewrapRuntime) -> None:
    source = "import os, time\nif os.fork() == 0: os.setsid()\nprint('up', flush=True)\ntime.sleep(60)"
    running = await l3.start(script(source))
    await running.stdout.readline()

    await running.kill()

    ending = await running.wait()
    assert ending.verdict is Verdict.KILLED
    assert not Path(f"/proc/{running.pid}").exists()
    running.channel.close()


async def test_a_daemon_that_left_its_session_does_not_outlive_its_program(l3: BubblewrapRuntime) -> None:
    mark = f"flowkit-daemon-{time.monotonic_ns()}"
    source = (
        "import os, sys, time\n"
        "reader, writer = os.pipe()\n"
        "if os.fork() == 0:\n os.setsid()\n if os.fork() == 0:\n  print('up', flush=True)\n"
        "  os.write(writer, b'x')\n  time.sleep(600)\n"
        " os._exit(0)\n"
        "os.read(reader, 1)"
    )

    done = await run(l3, script(source, args=(mark,)))

    assert done.out == "up\n" and done.ending.status == 0
    assert not _running_with(mark)


async def test_usage_is_measured(l3: BubblewrapRuntime) -> None:
    source = "open('f', 'wb').write(b'x' * 1_000_000); open('f', 'rb').read(); sum(range(3_000_000))"

    usage = (await run(l3, script(source))).ending.usage

    assert usage.cpu_sec > 0.01 and usage.wall_sec > 0.01
    assert usage.written_bytes is not None and usage.written_bytes >= 1_000_000
    assert usage.read_bytes is not None and usage.read_bytes >= 1_000_000
    assert (usage.received_bytes, usage.sent_bytes) == (0, 0)


async def test_what_cannot_be_started_is_said_before_anything_runs(l3: BubblewrapRuntime) -> None:
    for program, code in (
        (Program(("/usr/bin/there-is-no-such-program",)), "E_PROGRAM"),
        (Program(("python3",)), "E_PROGRAM"),
        (Program((PYTHON,), files={"../x": b""}), "E_FILES"),
        (Program((PYTHON,), files={"x": b"1" * 2_000_000}, limits=Limits(disk_mb=1)), "E_FILES"),
        (Program((PYTHON,), readable=("/",)), "E_READABLE"),
        (Program((PYTHON,), readable=("/proc/1",)), "E_READABLE"),
        (Program((PYTHON,), readable=("/there/is/no/such",)), "E_READABLE"),
        (Program((PYTHON,), limits=Limits(pids=0)), "E_LIMITS"),
        (Program((PYTHON,), network=("example.com",)), "E_NETWORK"),
    ):
        with pytest.raises(CannotStart) as caught:
            await l3.start(program)
        assert caught.value.code == code


async def test_limits_that_cannot_be_set_are_said(l3: BubblewrapRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr("flowkit.sandbox.cgroups.Group.bound", refuse)
    if not any(isinstance(one, Controller) for one in find()):
        pytest.skip("this user may write to no control groups")

    with pytest.raises(CannotStart) as caught:
        await l3.start(script("pass"))

    assert caught.value.code == "E_LIMITS"


async def test_bubblewrap_itself_is_given_next_to_no_environment(
    l3: BubblewrapRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWKIT_SECRET", "canary")
    running = await l3.start(script("import time; time.sleep(60)"))

    parent = Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()[1]
    given = [Path(f"/proc/{pid}/environ").read_bytes() for pid in (parent, running.pid)]

    assert b"bwrap" in Path(f"/proc/{parent}/cmdline").read_bytes()
    assert given[0] == b"LC_ALL=C.UTF-8\0"
    assert set(given[1].split(b"\0")) <= {b"LC_ALL=C.UTF-8", b"PWD=/", b""}
    await running.kill()
    running.channel.close()


async def test_a_missing_bubblewrap_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/there/is/nothing")

    with pytest.raises(CannotStart, match="bubblewrap is not installed") as caught:
        await BubblewrapRuntime().start(script("pass"))

    assert caught.value.code == "E_SANDBOX_BWRAP"


async def test_limits_hold_without_control_groups() -> None:
    runtime = BubblewrapRuntime(cgroups=False)
    try:
        memory = await run(runtime, script("x = b'1' * 200_000_000", limits=Limits(memory_mb=64)))
        forks = await run(runtime, script(_FORKS, limits=Limits(pids=8)))
        cpu = await run(runtime, script("while True: pass", limits=Limits(cpu_sec=1.0)))
    finally:
        await runtime.close()

    assert "MemoryError" in memory.err and memory.ending.status == 1
    assert forks.out.strip() == "7"
    assert cpu.ending.verdict is Verdict.CPU


async def test_the_pids_limit_is_exact(l3: BubblewrapRuntime) -> None:
    assert (await run(l3, script(_FORKS, limits=Limits(pids=8)))).out.strip() == "7"


async def test_a_program_ends_when_its_worker_was_killed(tmp_path: Path) -> None:
    mark = f"flowkit-orphan-{time.monotonic_ns()}"
    worker = await asyncio.create_subprocess_exec(
        os.path.realpath("/proc/self/exe"), "-c", _WORKER, mark, stdout=asyncio.subprocess.PIPE, env=_environment()
    )
    assert worker.stdout is not None
    assert (await worker.stdout.readline()) == b"up\n"
    assert _running_with(mark)

    worker.kill()
    await worker.wait()

    async with asyncio.timeout(60):
        while _running_with(mark):
            await asyncio.sleep(0.05)


async def test_closing_the_runtime_ends_its_programs() -> None:
    runtime = BubblewrapRuntime()
    running = await runtime.start(script("import time; time.sleep(60)"))

    await runtime.close()

    assert (await running.wait()).verdict is Verdict.KILLED
    running.channel.close()


async def test_terminate_asks(l3: BubblewrapRuntime) -> None:
    running = await l3.start(script("import time; print('up', flush=True); time.sleep(60)"))
    await running.stdout.readline()

    running.terminate()

    done = await finish(running)
    assert (done.ending.verdict, done.ending.signal) == (Verdict.SIGNAL, signal.SIGTERM)


_FORKS = """
import os, time
n = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
        n += 1
except BlockingIOError:
    print(n)
"""

_WORKER = """
import asyncio, sys
from flowkit.sandbox.bubblewrap import BubblewrapRuntime
from tests.sandbox.programs import script
async def main():
    running = await BubblewrapRuntime().start(script("import time; time.sleep(600)", args=(sys.argv[1],)))
    print("up", flush=True)
    await running.wait()
asyncio.run(main())
"""


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in (os.getcwd(), *sys.path) if path)}


def _running_with(mark: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if mark.encode() in words and b"-c\0import" in words and path.parent.name != str(os.getpid()):
            found.append(words.decode())
    return found


def test_on_uvloop_the_descriptors_of_what_was_printed_are_closed_with_its_end() -> None:
    """Not by the garbage collector, at some time: the next program's channel may have the number by then."""
    uvloop = pytest.importorskip("uvloop")

    async def pipes_left() -> tuple[int, int]:
        runtime = BubblewrapRuntime()
        kept = []  # so that nothing is closed because nobody has it any more
        before = -1
        for number in range(6):
            running = await runtime.start(script("import sys; print('out'); print('err', file=sys.stderr)"))
            kept.append((running, (await finish(running)).out))
            running.channel.close()
            if number == 2:
                before = _pipes()
        after = _pipes()
        await runtime.close()
        assert {out for _, out in kept} == {"out\n"}
        return before, after

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        before, after = runner.run(pipes_left())
    assert after == before


def _pipes() -> int:
    paths = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    return sum(os.path.lexists(path) and os.readlink(path).startswith("pipe:") for path in paths)
