"""Runs the table of escapes in one case as whoever runs this, and says what came of each: `trial.py L3`.

It is a program of its own, so that it can be run as another user, and by an interpreter that this user can read.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from flowkit.sandbox.bubblewrap import BubblewrapRuntime
from flowkit.sandbox.landlock import LandlockRuntime
from flowkit.sandbox.runtime import Limits, Program, Runtime
from flowkit.sandbox.seccomp import machine_name
from flowkit.sandbox.syscalls import MACHINES, NUMBERS
from tests.sandbox.escapes import NOT_CLAIMED, SINGLE, WHOLE, Escape
from tests.sandbox.hostile import WHOLE as PROGRAMS
from tests.sandbox.leftovers import counted
from tests.sandbox.programs import PYTHON, READABLE, finish, script

WARM = "L3 warm"
CASES: dict[str, type[BubblewrapRuntime] | type[LandlockRuntime]] = {
    "L3": BubblewrapRuntime,
    WARM: BubblewrapRuntime,
    "L2": LandlockRuntime,
}
SECRET = "canary-of-the-worker"


async def main(case: str) -> dict[str, str]:
    runtime = CASES[case]()
    before = counted()
    try:
        async with _surroundings(runtime) as given:
            found = await _single(runtime, case, given)
            whole = () if case == WARM else WHOLE  # they are no files that a zygote could run
            verdicts = await asyncio.gather(*(_whole(runtime, escape) for escape in whole))
            found |= {escape.name: verdict for escape, verdict in zip(whole, verdicts, strict=True)}
            found["counted"] = " ".join(sorted(runtime.counted))
    finally:
        await runtime.close()
    found["left"] = await _left_after(before)
    return found


async def _left_after(before: dict[str, set[str]]) -> str:
    """What there is more of than before, half a minute later if need be."""
    more: dict[str, set[str]] = {}
    for _ in range(600):
        more = {name: found - before[name] for name, found in counted().items() if found - before[name]}
        if not more:
            break
        await asyncio.sleep(0.05)
    return str(more or "nothing")


def claimed(escape: Escape, case: str) -> bool:
    return expected(escape, case) != (NOT_CLAIMED,) and escape.machine in ("", machine_name())


def expected(escape: Escape, case: str) -> tuple[str, ...]:
    return escape.l2 if case == "L2" else escape.l3


async def _single(runtime: Runtime, case: str, given: dict[str, Any]) -> dict[str, str]:
    given["attempts"] = [escape.name for escape in SINGLE if claimed(escape, case)]
    attempts = shutil.copy(Path(__file__).with_name("attempts.py"), given["readable"])
    program = Program(
        (PYTHON, attempts), env={"PATH": "/usr/bin:/bin"}, files={"given.json": json.dumps(given).encode()},
        readable=(*READABLE, given["readable"]), limits=Limits(wall_sec=120, memory_mb=512, pids=200),
        warm="trial" if case == WARM else "",
    )  # fmt: skip
    done = await finish(await runtime.start(program))
    if done.ending.status != 0:
        raise SystemExit(f"the attempts did not come to their end: {done.ending}\n{done.out}\n{done.err}")
    return dict(map(json.loads, done.out.splitlines()))


async def _whole(runtime: Runtime, escape: Escape) -> str:
    hostile = PROGRAMS[escape.name]
    running = await runtime.start(script(hostile.source, limits=hostile.limits))
    if "print('up'" in hostile.source:
        await running.stdout.readline()
        running.terminate()
    return (await finish(running)).ending.verdict.value


@contextlib.asynccontextmanager
async def _surroundings(runtime: Runtime) -> AsyncIterator[dict[str, Any]]:
    """What there would be to find: files, a variable, sockets, memory, and another program."""
    os.environ["FLOWKIT_SECRET"] = SECRET
    other = await runtime.start(script("import os, time; print(os.getcwd(), flush=True); time.sleep(600)"))
    work = (await other.stdout.readline()).decode().strip()
    with (
        tempfile.TemporaryDirectory() as folder,
        _file("/dev/shm") as shared,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        os.chmod(folder, 0o755)  # noqa: S103  programs may be other users
        canary = Path(folder, "canary.txt")
        key = Path(folder, "master.key")
        readable = Path(folder, "readable")
        readable.mkdir()
        for path in (canary, key, readable / "given.txt", Path(folder, ".aws", "credentials")):
            path.parent.mkdir(exist_ok=True)
            path.write_text("canary")
            path.chmod(0o644)
        listener.bind(f"\0flowkit-{os.getpid()}")
        listener.listen()
        segment, remove = _segment()
        try:
            yield {
                "canary": str(canary), "key": str(key), "home": folder, "readable": str(readable), "secret": SECRET,
                "shared": shared, "worker": os.getpid(), "other_pid": other.pid, "abstract": f"flowkit-{os.getpid()}",
                # At L3 all programs are in a folder of the same name, each its own: that of the other has no name.
                "other_work": work if runtime.name == "landlock" else f"/proc/{other.pid}/root/flowkit-work",
                "disk": _disk(), "shm_key": segment,
                "numbers": _numbers(),
            }  # fmt: skip
        finally:
            remove()
            await other.kill()
            other.channel.close()


def _numbers() -> dict[str, int]:
    machine = MACHINES[machine_name()]
    return {name: number for name in NUMBERS if (number := machine.number(name)) is not None}


def _disk() -> str:
    """A block device of this machine, where it shows one."""
    for name in sorted(os.listdir("/sys/class/block")) if os.path.isdir("/sys/class/block") else ():
        if os.path.exists(f"/dev/{name}"):
            return f"/dev/{name}"
    return "/dev/vda"


@contextlib.contextmanager
def _file(folder: str) -> Any:
    descriptor, path = tempfile.mkstemp(dir=folder)
    os.write(descriptor, b"canary")
    os.fchmod(descriptor, 0o644)
    os.close(descriptor)
    try:
        yield path
    finally:
        os.unlink(path)


def _segment() -> tuple[int, Any]:
    """The key of a System V memory segment that everybody may attach to, and how it is removed."""
    libc = ctypes.CDLL(None, use_errno=True)
    key = 0x464C0000 | os.getpid() & 0xFFFF
    number = libc.shmget(key, 4096, 0o1666)
    if number < 0:
        raise OSError(ctypes.get_errno(), "no shared memory can be made")
    return key, lambda: libc.shmctl(number, 0, None)


if __name__ == "__main__":
    json.dump({"machine": platform.machine(), "found": asyncio.run(main(sys.argv[1]))}, sys.stdout)
