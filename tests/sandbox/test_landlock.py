"""At L2 a program is on this machine, and can do nothing to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest

from flowkit.sandbox import landlock
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.landlock import PREFIX, LandlockRuntime, barrier, sweep
from flowkit.sandbox.runtime import Limits, Program, Verdict
from tests.sandbox.hostile import WHOLE
from tests.sandbox.programs import PYTHON, finish, run, script

NOBODY = 65534
BOMB = "print('up', flush=True)\n" + WHOLE["fork_bomb"].source
WORKER = f"""
import asyncio, sys
from flowkit.sandbox.landlock import LandlockRuntime
from flowkit.sandbox.runtime import Limits
from tests.sandbox.programs import script
BOMB = {BOMB!r}
async def main():
    running = await LandlockRuntime().start(script(BOMB, args=(sys.argv[1],), limits=Limits(pids=24, wall_sec=60)))
    await running.stdout.readline()
    await asyncio.sleep(0.3)
    print("up", flush=True)
    await running.wait()
asyncio.run(main())
"""


async def test_a_program_has_a_folder_of_its_own_that_goes_with_it(l2: LandlockRuntime) -> None:
    source = "import os; open('x', 'w').close(); print(os.getcwd(), sorted(os.listdir()), os.environ['TMPDIR'])"

    done = await run(l2, script(source, files={"in/a.txt": b"given"}))

    assert done.ending.status == 0, done.err
    folder, listed = done.out.split(" ", 1)
    assert Path(folder).name.startswith(PREFIX) and not Path(folder).exists()
    assert listed == f"['in', 'x'] {folder}\n"


async def test_its_temporary_folder_is_its_own_also_where_it_may_read_some_of_tmp(
    l2: LandlockRuntime, folder: Path
) -> None:
    source = "import os; print(os.getcwd(), os.environ['TMPDIR'])"

    done = await run(l2, script(source, readable_too=(str(folder),)))

    own, temporary = done.out.split()
    assert own == temporary


async def test_a_folder_that_resists_is_removed_all_the_same(l2: LandlockRuntime) -> None:
    deep = "import os\nfor _ in range(1200):\n    os.mkdir('d'); os.chdir('d')\n"
    shut = "import os\nos.makedirs('a/b')\nos.chmod('a', 0)\nprint(os.getcwd())"

    await run(l2, script(deep))
    done = await run(l2, script(shut))

    assert not Path(done.out.strip()).exists()
    assert not list(Path(tempfile.gettempdir()).glob(f"{PREFIX}{os.getpid()}-*"))


async def test_limits_and_verdicts_hold(l2: LandlockRuntime) -> None:
    memory = await run(l2, script("x = b'1' * 200_000_000", limits=Limits(memory_mb=64)))
    wall = await run(l2, script("import time; time.sleep(60)", limits=Limits(wall_sec=0.5)))

    assert memory.ending.verdict is Verdict.OOM if "memory" in l2.counted else "MemoryError" in memory.err
    assert wall.ending.verdict is Verdict.WALL


async def test_processes_are_bounded_without_control_groups_too() -> None:
    runtime = LandlockRuntime(cgroups=False)
    source = (
        "import os, time\nn = 0\ntry:\n while True:\n  if os.fork() == 0: time.sleep(60)\n  n += 1\n"
        "except BlockingIOError:\n print(n)"
    )
    try:
        done = await run(runtime, script(source, limits=Limits(pids=8)))
    finally:
        await runtime.close()

    assert 1 <= int(done.out) <= 8, done.err


async def test_a_daemon_does_not_outlive_its_program(l2: LandlockRuntime) -> None:
    mark = f"flowkit-daemon-{time.monotonic_ns()}"
    source = (
        "import os, time\nreader, writer = os.pipe()\n"
        "if os.fork() == 0:\n os.setsid()\n if os.fork() == 0:\n  os.write(writer, b'x')\n  time.sleep(600)\n"
        " os._exit(0)\n"
        "os.read(reader, 1)"
    )

    done = await run(l2, script(source, args=(mark,)))

    assert done.ending.status == 0
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if _has(path, mark)]


async def test_a_network_is_refused_not_ignored(l2: LandlockRuntime) -> None:
    with pytest.raises(CannotStart) as caught:
        await l2.start(script("pass", network=("example.com:443",)))

    assert caught.value.code == "E_SANDBOX_NETWORK"


async def test_a_kernel_without_landlock_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)

    with pytest.raises(CannotStart) as caught:
        await LandlockRuntime().start(script("pass"))

    assert caught.value.code == "E_SANDBOX_LANDLOCK"


async def test_an_interpreter_that_is_not_for_everybody_is_named_by_root(
    l2: LandlockRuntime, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = folder / "home"
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "python").touch(mode=0o755)
    (folder / "link").symlink_to(home / "bin" / "python")
    assert barrier([str(home / "bin" / "python")]) == ""
    home.chmod(0o700)

    for path in (home / "bin" / "python", folder / "link"):
        assert barrier(["/usr/bin", str(path)]).endswith(f"{home} is not open to every user")
    if os.geteuid() == 0:
        with pytest.raises(CannotStart, match="not open to every user") as caught:
            await l2.start(Program((str(home / "bin" / "python"),)))
        assert caught.value.code == "E_READABLE"


async def test_the_signal_that_ends_a_program_ends_all_that_it_started(l2: LandlockRuntime) -> None:
    mark = f"flowkit-bomb-{time.monotonic_ns()}"
    running = await l2.start(script(BOMB, args=(mark,), limits=Limits(pids=24, wall_sec=60)))
    assert await running.stdout.readline() == b"up\n"

    os.kill(running.pid, running.end_signal)

    done = await finish(running)
    assert (done.ending.verdict, done.ending.signal) == (Verdict.SIGNAL, 9)
    assert not _those_with(mark)


@pytest.mark.parametrize("user", ["root", "ordinary"])
async def test_a_fork_bomb_does_not_outlive_a_worker_that_was_killed(tree: Path, user: str) -> None:
    if user == "root" and os.geteuid() != 0:
        pytest.skip("only root can be root")
    mark = f"flowkit-bomb-{time.monotonic_ns()}"
    change = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if user == "ordinary" and os.geteuid() == 0 else {}
    worker = await asyncio.create_subprocess_exec(
        PYTHON if user == "ordinary" else sys.executable, "-c", WORKER, mark, stdout=asyncio.subprocess.PIPE, cwd=tree,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tree)}, **change,
    )  # fmt: skip
    assert worker.stdout is not None and await worker.stdout.readline() == b"up\n"

    worker.kill()
    await worker.wait()

    try:
        async with asyncio.timeout(20):
            while _those_with(mark):
                await asyncio.sleep(0.05)
    finally:
        for number in (*[signal.SIGSTOP] * 5, signal.SIGKILL):  # a test that fails leaves no bomb behind
            for pid in _those_with(mark):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)


async def test_folders_of_dead_owners_are_removed(folder: Path) -> None:
    (folder / f"{PREFIX}dead" / "x").mkdir(parents=True)
    (folder / "other").mkdir()
    runtime = LandlockRuntime(folder=str(folder))
    running = await runtime.start(script("import time; time.sleep(60)"))

    sweep(folder)

    assert len(list(folder.glob(f"{PREFIX}*"))) == 1
    await running.kill()
    running.channel.close()
    await runtime.close()
    assert os.listdir(folder) == ["other"]


def _those_with(mark: str) -> list[int]:
    return [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if _has(path, mark)]


def _has(path: Path, mark: str) -> bool:
    try:
        return mark.encode() in path.read_bytes()
    except OSError:
        return False
