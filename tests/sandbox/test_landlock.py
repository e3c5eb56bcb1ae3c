"""At L2 a program is on this machine, and can do nothing to it."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import pytest

from flowkit.sandbox import landlock
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.landlock import PREFIX, LandlockRuntime, sweep
from flowkit.sandbox.runtime import Limits, Verdict
from tests.sandbox.programs import run, script


async def test_a_program_has_a_folder_of_its_own_that_goes_with_it(l2: LandlockRuntime) -> None:
    source = "import os; open('x', 'w').close(); print(os.getcwd(), sorted(os.listdir()), os.environ['TMPDIR'])"

    done = await run(l2, script(source, files={"in/a.txt": b"given"}))

    assert done.ending.status == 0, done.err
    folder, listed = done.out.split(" ", 1)
    assert Path(folder).name.startswith(PREFIX) and not Path(folder).exists()
    assert listed == f"['in', 'x'] {folder}\n"


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


def _has(path: Path, mark: str) -> bool:
    try:
        return mark.encode() in path.read_bytes()
    except OSError:
        return False
