"""Warm programs begin in forks of a process that is ready, and are shut in as cold ones are."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import venv
from pathlib import Path

import pytest

from flowkit.sandbox.bubblewrap import BubblewrapRuntime
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.runtime import Limits, Program, Verdict
from flowkit.sandbox.zygote import Environment
from tests.sandbox.programs import PYTHON, READABLE, finish, run


def warm(folder: Path, source: str, *, name: str = "base", limits: Limits | None = None, **more: object) -> Program:
    path = folder / "script.py"
    path.write_text(source)
    path.chmod(0o644)
    return Program(
        (PYTHON, str(path)), env={"OWN": "1"}, readable=(*READABLE, str(folder)), warm=name,
        limits=limits or Limits(wall_sec=60), **more,
    )  # fmt: skip


async def test_a_warm_program_is_the_script_and_sees_only_what_is_its(l3: BubblewrapRuntime, folder: Path) -> None:
    source = (
        "import os, sys\nassert 1 == 1\n"
        "print(__name__, sys.argv[0] == __file__, dict(os.environ), os.listdir(), os.getuid())\n"
        "assert sys.path[0] == os.path.dirname(__file__)\n"
        "print([n for n in os.listdir('/proc') if n.isdigit()], open('in.txt').read())"
    )

    done = await run(l3, warm(folder, source, files={"in.txt": b"given"}))

    assert done.ending.status == 0, done.err
    first, second = done.out.splitlines()
    assert first == "__main__ True {'OWN': '1', 'TMPDIR': '/flowkit-work'} ['in.txt'] 1000"
    assert second == "['1', '2'] given"


async def test_packages_of_the_environment_are_loaded_behind_the_walls(l3: BubblewrapRuntime, folder: Path) -> None:
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder / "env")
    packages = next((folder / "env" / "lib").glob("python3*/site-packages"))
    (packages / "greeting.py").write_text("text = 'hello'")
    (packages / "zz.pth").write_text("import os; os.environ['PTH'] = f'{os.getuid()} {os.getpid()}'\n")
    prefix = os.path.realpath(sys.base_prefix)
    program = Program(
        (str(folder / "env/bin/python"), str(folder / "script.py")), warm="env", limits=Limits(wall_sec=60),
        readable=(str(folder), *(() if prefix.startswith("/usr") else (prefix,))),
    )  # fmt: skip
    (folder / "script.py").write_text("import greeting, os, sys; print(greeting.text, os.environ['PTH'], sys.prefix)")

    done = await run(l3, program)

    assert done.out == f"hello 1000 2 {folder / 'env'}\n", done.err


async def test_exit_codes_tracebacks_and_exit_handlers_are_as_in_an_interpreter(
    l3: BubblewrapRuntime, folder: Path
) -> None:
    raised = await run(l3, warm(folder, "import atexit\natexit.register(print, 'bye')\ndef f():\n    1 / 0\nf()\n"))
    exited = await run(l3, warm(folder, "import sys\nsys.exit(3)\n"))
    said = await run(l3, warm(folder, "import sys\nsys.exit('no such thing')\n"))

    assert (raised.ending.status, raised.out) == (1, "bye\n")
    assert raised.err.startswith('Traceback (most recent call last):\n  File "') and "inside" not in raised.err
    assert raised.err.rstrip().endswith("ZeroDivisionError: division by zero")
    assert exited.ending.status == 3
    assert (said.ending.status, said.err) == (1, "no such thing\n")


async def test_programs_of_one_zygote_are_strangers(l3: BubblewrapRuntime, folder: Path) -> None:
    leave = "import builtins\nbuiltins.left = 1\n"
    leave += "open('/flowkit-work/left', 'w').close(); open('/dev/shm/left', 'w').close()\n"
    look = "import builtins, os\nthere = os.path.exists('/flowkit-work/left')\n"
    look += "print(hasattr(builtins, 'left'), there, os.listdir('/dev/shm'))\n"

    await run(l3, warm(folder, leave))

    assert (await run(l3, warm(folder, look))).out == "False False []\n"


async def test_warm_programs_are_held_to_their_limits(l3: BubblewrapRuntime, folder: Path) -> None:
    memory = await run(l3, warm(folder, "x = b'1' * 200_000_000", limits=Limits(memory_mb=48)))
    wall = await run(l3, warm(folder, "import time; time.sleep(60)", limits=Limits(wall_sec=0.5)))

    assert memory.ending.verdict is Verdict.OOM
    assert wall.ending.verdict is Verdict.WALL


async def test_a_zygote_that_died_is_begun_anew(l3: BubblewrapRuntime, folder: Path) -> None:
    program = warm(folder, "print('here')")
    await run(l3, program)
    zygote = await l3._zygotes.get(Environment.of(program))
    assert zygote._launch._process is not None
    os.kill(zygote._launch._process.pid, signal.SIGKILL)
    assert await zygote.has_died()

    assert (await run(l3, program)).out == "here\n"
    assert await l3._zygotes.get(Environment.of(program)) is not zygote


async def test_what_runs_in_a_zygote_that_dies_has_ended_by_a_signal(l3: BubblewrapRuntime, folder: Path) -> None:
    program = warm(folder, "import time; print('up', flush=True); time.sleep(60)")
    running = await l3.start(program)
    await running.stdout.readline()
    zygote = await l3._zygotes.get(Environment.of(program))
    assert zygote._launch._process is not None

    os.kill(zygote._launch._process.pid, signal.SIGKILL)

    ending = (await finish(running)).ending
    assert (ending.verdict, ending.signal) == (Verdict.SIGNAL, signal.SIGKILL)


async def test_a_zygote_is_renewed_after_many_forks(folder: Path) -> None:
    runtime = BubblewrapRuntime(most_forks=2)
    program = warm(folder, "print('here')")
    try:
        seen = []
        for _ in range(5):
            assert (await run(runtime, program)).out == "here\n"
            seen.append(id(next(iter(runtime._zygotes._zygotes.values())).result()))
        assert len(set(seen)) >= 2
    finally:
        await runtime.close()


async def test_many_programs_begin_at_once(l3: BubblewrapRuntime, folder: Path) -> None:
    program = warm(folder, "print('here')")

    done = await asyncio.gather(*(run(l3, program) for _ in range(20)))

    assert [one.out for one in done] == ["here\n"] * 20


async def test_an_interpreter_that_is_none_is_said(l3: BubblewrapRuntime, folder: Path) -> None:
    program = Program(("/usr/bin/false", str(folder / "x.py")), readable=(str(folder),), warm="broken")

    with pytest.raises(CannotStart) as caught:
        await l3.start(program)

    assert caught.value.code == "E_SANDBOX_ZYGOTE"
