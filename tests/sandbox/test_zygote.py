"""Warm programs begin in forks of a process that is ready, and are shut in as cold ones are."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from flowkit.sandbox.bubblewrap import BubblewrapRuntime
from flowkit.sandbox.cgroups import MOST_KEPT
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.hierarchies import Controller, find
from flowkit.sandbox.inside import rooms as rooms_inside
from flowkit.sandbox.inside.rooms import MOST_KEPT as MOST_ROOMS
from flowkit.sandbox.runtime import Limits, Program, Verdict
from flowkit.sandbox.zygote import SPARES, Environment
from tests.sandbox.hostile import WHOLE
from tests.sandbox.leftovers import counted
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


async def test_what_has_to_differ_between_forks_differs_and_threads_and_children_work(
    l3: BubblewrapRuntime, folder: Path
) -> None:
    source = (
        "import asyncio, os, random, subprocess, threading, uuid\n"
        "main = threading.main_thread()\n"
        "assert main is threading.current_thread() and main.native_id == threading.get_native_id() == os.getpid()\n"
        "said = []\n"
        "async def both():\n"
        "    await asyncio.gather(*(asyncio.to_thread(said.append, n) for n in (1, 2)))\n"
        "    one = await asyncio.create_subprocess_exec('/bin/echo', 'child', stdout=-1)\n"
        "    said.append((await one.communicate())[0].decode().strip())\n"
        "asyncio.run(both())\n"
        "if os.fork() == 0:\n    threading.Thread(target=os._exit, args=(7,)).start()\n    threading.Event().wait()\n"
        "said.append(os.waitstatus_to_exitcode(os.wait()[1]))\n"
        "print(sorted(map(str, said)), random.random(), uuid.uuid4())\n"
    )

    done = await asyncio.gather(*(run(l3, warm(folder, source)) for _ in range(3)))

    assert [one.out[:24] for one in done] == ["['1', '2', '7', 'child']"] * 3, done[0].err
    assert len({one.out.split()[-2] for one in done}) == len({one.out.split()[-1] for one in done}) == 3


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


async def test_many_warm_programs_leave_no_more_than_few_and_nothing_in_the_end(folder: Path) -> None:
    before = counted()
    runtime = BubblewrapRuntime()
    program = warm(folder, "print('here')")

    async def turn() -> dict[str, int]:
        await asyncio.gather(*(run(runtime, program) for _ in range(10)))
        await (await runtime._zygotes.get(Environment.of(program)))._filling  # type: ignore[misc]
        # Bubblewrap and the zygote; in each place the first process and what waits there; and rooms that are kept.
        fewest, most = 2 + 2 * SPARES, 2 + 2 * SPARES + MOST_ROOMS
        async with asyncio.timeout(60):
            while not fewest <= len(counted()["processes"] - before["processes"]) <= most:
                await asyncio.sleep(0.02)
        return {what: len(found - before[what]) for what, found in counted().items()}

    first = await turn()
    hierarchies = len({one.folder for one in find() if isinstance(one, Controller)})
    # Kept for the next program: as many as ran together, which differs, up to a bound.
    most_groups = (MOST_KEPT + SPARES) * hierarchies
    most_descriptors = (MOST_KEPT + SPARES) * (hierarchies + 5) + 2 * SPARES + 10  # five files are read of each
    for _ in range(3):
        after = await turn()
        assert after.pop("groups") <= most_groups
        assert after.pop("processes") <= 2 + 2 * SPARES + MOST_ROOMS
        assert after.pop("descriptors") <= most_descriptors
        assert after == {what: first[what] for what in ("mounts", "files")}
    await runtime.close()

    assert {what: found - before[what] for what, found in counted().items() if found - before[what]} == {}


async def test_an_interpreter_that_is_none_is_said(l3: BubblewrapRuntime, folder: Path) -> None:
    program = Program(("/usr/bin/false", str(folder / "x.py")), readable=(str(folder),), warm="broken")

    with pytest.raises(CannotStart) as caught:
        await l3.start(program)

    assert caught.value.code == "E_SANDBOX_ZYGOTE"


async def test_the_first_program_of_an_environment_need_not_wait_for_its_zygote(folder: Path) -> None:
    runtime = BubblewrapRuntime(cold_first=True)
    program = warm(folder, "print('asyncio' in __import__('sys').modules)")
    try:
        first, second = await runtime.start(program), await runtime.start(program)
        assert [(await finish(one)).out for one in (first, second)] == ["False\n", "True\n"]
        assert (await run(runtime, program)).out == "True\n"
    finally:
        await runtime.close()


async def test_a_zygote_that_nobody_uses_is_given_back_with_its_places(folder: Path) -> None:
    runtime = BubblewrapRuntime()
    program = warm(folder, "import time; print('up', flush=True); time.sleep(60)")
    running = await runtime.start(program)
    await running.stdout.readline()
    zygote = await runtime._zygotes.get(Environment.of(program))

    await runtime.cool()
    assert zygote.alive  # a program of it runs
    await running.kill()
    running.channel.close()
    await runtime.cool(unused_sec=60.0)
    assert zygote.alive
    await runtime.cool()

    assert not zygote.alive
    assert Environment.of(program) not in runtime._zygotes
    assert not [path for home in runtime._keeper._cgroups._homes.values() for path in home.folder.glob("p[0-9]*")]
    await runtime.close()


async def test_a_script_that_was_prepared_is_called_and_not_run_again(l3: BubblewrapRuntime, folder: Path) -> None:
    prepared = folder / "prepared.py"
    prepared.write_text(
        "import os\nbegan = os.getpid()\n\ndef rehearse():\n    pass\n\n\ndef main():\n"
        "    print(began, os.getpid(), os.getuid(), __name__)\n    raise KeyError('none of ours')\n"
    )
    prepared.chmod(0o644)

    done = await run(l3, warm(folder, "print('not this one')", prepared=str(prepared)))

    assert done.out == "1 2 1000 prepared\n", done.err
    assert done.err.count("File ") == 1 and done.ending.status == 1


async def test_no_two_programs_have_a_network_at_a_time_and_nothing_is_left_in_one(
    l3: BubblewrapRuntime, folder: Path
) -> None:
    own = "import os, socket, time\nprint(os.readlink('/proc/self/ns/net'), flush=True)\n"
    named = "print('@taken' in open('/proc/net/unix').read(), flush=True)\n"
    name = "left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\nleft.bind('\\0taken')\n"
    sockets = "print('@taken' in open('/proc/net/unix').read())\n"
    program = warm(folder, own + name + named + "time.sleep(60)")  # once: it is read while the next one begins
    running = [await l3.start(program) for _ in range(3)]
    taken = [(await one.stdout.readline()).decode() for one in running]
    assert [await one.stdout.readline() for one in running] == [b"True\n"] * 3

    beside = [(await run(l3, warm(folder, own + sockets))).out for _ in range(6)]
    for one in running:
        await one.kill()
        one.channel.close()
    after = [(await run(l3, warm(folder, own + sockets + name))).out for _ in range(8)]

    networks = [text.splitlines()[0] for text in beside]
    assert len(set(taken)) == 3 and not {text.strip() for text in taken} & set(networks)
    assert {text.splitlines()[1] for text in (*beside, *after)} == {"False"}
    assert len({text.splitlines()[0] for text in after}) < 8  # they are lent again


LOOK = "import os, sys\nprint(os.getpid())\n"
"""Where it is in its room the second process that ever was, or not: the numbers of namespaces come again."""
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="what ordinary users start could change a first process")


async def numbers(runtime: BubblewrapRuntime, program: Program, count: int) -> list[int]:
    """Which number this program had, each time."""
    return [int((await run(runtime, program)).out.split("\n")[0]) for _ in range(count)]


@AS_ROOT
async def test_a_room_is_lent_again_after_a_program_that_was_alone_in_it(folder: Path) -> None:
    runtime = BubblewrapRuntime(spares=0)
    try:
        assert await numbers(runtime, warm(folder, LOOK + "sys.exit(3)"), 3) == [2, 3, 4]
        with_child = "import subprocess\nsubprocess.run(['/bin/true'], check=True)\n"
        assert await numbers(runtime, warm(folder, LOOK + with_child), 3) == [5, 7, 9]

        done = await run(runtime, warm(folder, "import os\nprint(*(n for n in os.listdir('/proc') if n.isdigit()))"))

        assert done.out == "1 11\n"
    finally:
        await runtime.close()


@AS_ROOT
@pytest.mark.parametrize("waits", [60, 0])
async def test_a_room_goes_with_a_program_that_left_somebody_there(folder: Path, waits: int) -> None:
    """Whether who was left is there yet, or has ended without a parent before the program did."""
    runtime = BubblewrapRuntime(spares=0)
    leave = (
        "sys.stdout.flush()\nreader, writer = os.pipe()\n"
        "if os.fork() == 0:\n    if os.fork() == 0:\n        import time\n"
        f"        x = list(range(300_000)); os.close(reader); os.write(writer, b'1')\n        time.sleep({waits})\n"
        "    os._exit(0)\n"
        "os.close(writer)\nos.wait()\nos.read(reader, 1)\n" + ("" if waits else "os.read(reader, 1)\n")
    )
    try:
        async with asyncio.timeout(30):
            left = [await run(runtime, warm(folder, LOOK + leave)) for _ in range(3)]

        assert [one.ending.status for one in left] == [0, 0, 0], left[0].err
        assert [one.out for one in left] == ["2\n"] * 3
        # What was left has been counted with the program.
        assert min(one.ending.usage.peak_memory_bytes or 0 for one in left) > 9_000_000
    finally:
        await runtime.close()


@AS_ROOT
async def test_what_a_left_process_has_used_is_counted(folder: Path) -> None:
    runtime = BubblewrapRuntime(cgroups=False)
    leave = (
        "import os, time\nreader, writer = os.pipe()\n"
        "if os.fork() == 0:\n    if os.fork() == 0:\n"
        "        while time.process_time() < 0.3:\n            pass\n"
        "        os.write(writer, b'1' * 50_000)\n        time.sleep(60)\n    os._exit(0)\n"
        "os.read(reader, 60_000)\n"
    )
    try:
        usage = (await run(runtime, warm(folder, leave))).ending.usage
        assert 0.3 <= usage.cpu_sec < 0.5
        assert usage.written_bytes is not None and 50_000 <= usage.written_bytes < 60_000
        usage = (await run(runtime, warm(folder, "print(len(open(__file__).read()))\n#" + "x" * 70_000))).ending.usage
        assert usage.read_bytes is not None and 140_000 <= usage.read_bytes < 170_000  # read twice, to be run and by it
    finally:
        await runtime.close()


@AS_ROOT
async def test_a_room_goes_with_a_program_that_was_told_to_end(folder: Path) -> None:
    runtime = BubblewrapRuntime(spares=0)
    try:
        seen = []
        for _ in range(3):
            running = await runtime.start(warm(folder, LOOK + "sys.stdout.flush()\nimport time; time.sleep(60)"))
            seen.append(await running.stdout.readline())
            await running.kill()
            assert (await finish(running)).ending.verdict is Verdict.KILLED
        assert seen == [b"2\n"] * 3
    finally:
        await runtime.close()


@AS_ROOT
async def test_programs_cannot_change_the_first_process_of_their_room(l3: BubblewrapRuntime, folder: Path) -> None:
    source = (
        "import os, resource, signal\n"
        "tries = (lambda: os.kill(1, 0), lambda: os.kill(1, signal.SIGCHLD), lambda: os.setpriority(0, 1, 19),\n"
        "    lambda: os.sched_setaffinity(1, {0}), lambda: os.sched_setscheduler(1, 5, os.sched_param(0)),\n"
        "    lambda: resource.prlimit(1, resource.RLIMIT_CPU, (1, 1)), lambda: os.readlink('/proc/1/exe'))\n"
        "for one in tries:\n    try:\n        one()\n        print('done')\n"
        "    except PermissionError:\n        print('refused')\n"
        "status = dict(line.split(':', 1) for line in open('/proc/1/status'))\n"
        "print(*(int(status[name], 16) for name in ('CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'CapInh')))\n"
        "print(status['NoNewPrivs'].strip())"
    )

    done = await run(l3, warm(folder, source))

    # All that it may is to signal, and that reaches nobody beyond its room.
    assert done.out.split("\n")[:-1] == ["refused"] * 7 + ["32 32 0 0 0", "1"], done.err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_what_an_ordinary_user_starts_has_each_its_own_room(tree: Path) -> None:
    """There a program is the same user as the first process of its room, and could change what bounds it."""
    script = tree / "rooms.py"
    script.write_text(
        "import asyncio, os, pathlib, tempfile\n"
        "from flowkit.sandbox.bubblewrap import BubblewrapRuntime\n"
        "from flowkit.sandbox.runtime import Program\n"
        "from tests.sandbox.programs import PYTHON, READABLE, run\n"
        "async def main():\n"
        "    runtime = BubblewrapRuntime()\n"
        "    with tempfile.TemporaryDirectory() as name:\n"
        "        os.chmod(name, 0o755)\n"
        "        path = pathlib.Path(name, 'script.py')\n"
        "        path.write_text('import os; print(os.getpid())')\n"
        "        program = Program((PYTHON, str(path)), readable=(*READABLE, name), warm='base')\n"
        "        print([(await run(runtime, program)).out.strip() for _ in range(6)])\n"
        "    await runtime.close()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [PYTHON, str(script)], cwd=tree, capture_output=True, text=True, timeout=50, check=False,
        user=65534, group=65534, extra_groups=[], env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tree)},
    )  # fmt: skip
    assert done.stdout == f"{['2'] * 6}\n", done.stderr


WARM_VERDICTS = {
    "fork_bomb": ("timeout", None), "ignore_the_request_to_end": ("timeout", None), "kill_everybody": ("exited", 0),
    "kill_process_1": ("exited", 0), "leave_a_daemon": ("exited", 0),
}  # fmt: skip


async def test_hostile_programs_leave_nothing_in_the_rooms_of_others(folder: Path) -> None:
    before, runtime = counted(), BubblewrapRuntime()
    look = "import os\nprint(*(name for name in os.listdir('/proc') if name.isdigit() and name != str(os.getpid())))"

    async def hostile(name: str) -> tuple[str, int | None]:
        (folder / name).mkdir(exist_ok=True)
        ending = (await run(runtime, warm(folder / name, WHOLE[name].source, limits=WHOLE[name].limits))).ending
        return str(ending.verdict), ending.status

    try:
        for _ in range(3):
            found = await asyncio.gather(*map(hostile, WARM_VERDICTS))
            assert dict(zip(WARM_VERDICTS, found, strict=True)) == WARM_VERDICTS
            beside = warm(folder, look)
            assert {one.out for one in await asyncio.gather(*(run(runtime, beside) for _ in range(6)))} == {"1\n"}
    finally:
        await runtime.close()
    assert {what: found - before[what] for what, found in counted().items() if found - before[what]} == {}


async def test_a_first_process_that_died_takes_its_room_with_it(folder: Path) -> None:
    runtime = BubblewrapRuntime(spares=0)
    program = warm(folder, "print('here')")
    try:
        for _ in range(3):
            assert (await run(runtime, program)).out == "here\n"
            zygote = await runtime._zygotes.get(Environment.of(program))
            assert zygote._launch._process is not None
            (pid,) = first_processes(zygote._launch._process.pid)
            os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(60):
                while os.path.exists(f"/proc/{pid}"):
                    await asyncio.sleep(0.01)
    finally:
        await runtime.close()


def first_processes(bwrap: int) -> list[int]:
    def children(pid: int) -> list[int]:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    return [first for zygote in children(bwrap) for first in children(zygote)]


def test_a_network_in_which_something_is_left_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, int]] = []
    monkeypatch.setattr(rooms_inside.kernel, "setns", lambda descriptor, kind: done.append(("enter", descriptor)))
    monkeypatch.setattr(rooms_inside.kernel, "unshare", lambda flags: done.append(("make", flags)))
    for left in (False, True):
        monkeypatch.setattr(rooms_inside, "_is_empty", lambda left=left: not left)
        rooms_inside.enter_network(7)
    rooms_inside.enter_network(-1)

    new = ("make", rooms_inside.kernel.CLONE_NEWNET)
    assert done == [("enter", 7), ("enter", 7), new, new]
