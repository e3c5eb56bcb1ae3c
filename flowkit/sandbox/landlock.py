"""The middle level, for machines without user namespaces: Landlock, a filter of system calls, and limits.

The program sees this machine's processes and its network as they are, but the kernel refuses it all files but those of
the system, its own and its folder, all sockets, and all system calls that it does not need. Its folder lies on a disk
of this machine and is removed with it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from flowkit.sandbox import inside, seccomp
from flowkit.sandbox.box import own_interpreter, system_places
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.inside.landlock import abi
from flowkit.sandbox.inside.main import ONCE
from flowkit.sandbox.inside.order import Order
from flowkit.sandbox.keeper import Keeper
from flowkit.sandbox.launch import Launch
from flowkit.sandbox.orders import check, order_for
from flowkit.sandbox.owning import own
from flowkit.sandbox.runtime import Level, Program, Running
from flowkit.sandbox.users import some_uid, threads_of

PREFIX: Final = "flowkit-work-"
SCOPES_ABI: Final = 6
"""From this version on Landlock also keeps programs from signalling processes that they have not started."""

INSTEAD_OF_HOME: Final = (
    "use L3, run the worker as an ordinary user, or take an interpreter that is not in a home (/usr/bin/python3)"
)

_REMOVAL_SEC: Final = 60.0
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_BEGIN: Final = "import sys; sys.path.insert(0, {!r}); from inside.main import main; del sys.path[0]; main()"


class LandlockRuntime:
    """Programs at `Level.L2`. `folder`: where their folders are made, by default with other temporary files. A program
    that asks for `network` is refused: only a namespace of its own could hold it to its list."""

    name = "landlock"
    level = Level.L2

    def __init__(self, *, folder: str = "", cgroups: bool = True) -> None:
        self._keeper = Keeper(cgroups=cgroups)
        self._swept = False
        self._parent = Path(folder or tempfile.gettempdir())

    @property
    def counted(self) -> frozenset[str]:
        """The controllers of control groups that bound programs; limits of the system do for the others."""
        return self._keeper.counted

    async def start(self, program: Program) -> Running:
        self._open()
        check(program)
        if program.network:
            raise CannotStart("E_SANDBOX_NETWORK", "at L2 no program can be given a network", "use L3, or none")
        launch = Launch()
        uid = some_uid() if os.geteuid() == 0 else 0
        if uid and (barred := barrier((program.argv[0], *program.readable))):
            raise CannotStart("E_READABLE", barred, INSTEAD_OF_HOME)
        work = Work(self._parent, uid)

        async def after() -> None:
            await launch.gone()
            await asyncio.to_thread(work.remove)

        try:
            with launch.begin(_command) as orders:
                spot = await self._keeper.ask(orders, root=False, uid=uid)
        except (CannotStart, OSError) as error:
            await after()
            raise CannotStart("E_SANDBOX_START", f"the sandbox could not be begun: {error}", "flowkit doctor") from None
        try:
            order = self._order(program, work.folder, uid)
            return await self._keeper.fill(spot, program, order, seccomp.build(own_ipc=False), after=after)
        except CannotStart as error:
            raise launch.explain(error) from None
        except OSError as error:
            raise launch.explain(CannotStart("E_SANDBOX_START", f"the sandbox has ended: {error}")) from None

    def _open(self) -> None:
        if not abi():
            raise CannotStart("E_SANDBOX_LANDLOCK", "this kernel has no Landlock", "use L3, or a kernel from 5.13 on")
        if not self._swept:
            sweep(self._parent)
            self._swept = True
        self._keeper.open()

    async def close(self) -> None:
        await self._keeper.end_all()
        self._keeper.close()

    def _order(self, program: Program, folder: Path, uid: int) -> Order:
        counted = self._keeper.counted
        order = order_for(program, counted=counted, beside=0 if "pids" in counted else threads_of(uid or os.geteuid()))
        order.folder = str(folder)
        order.env["TMPDIR"] = program.env.get("TMPDIR", order.folder)
        read = [*system_places(), *program.readable]
        order.landlock = (read, [order.folder], list(_DEVICES))
        return order


def barrier(paths: Iterable[str]) -> str:
    """What keeps a user of no account, as programs are that root starts, from reading one of these; empty if nothing
    does."""
    for path in dict.fromkeys(name for given in paths for name in (given, os.path.realpath(given))):
        for folder in (*reversed(Path(path).parents), Path(path)):
            try:
                mode = os.stat(folder).st_mode
            except OSError:
                break  # what is not there is said by whoever needs it
            needed = stat.S_IROTH if not stat.S_ISDIR(mode) else stat.S_IXOTH
            if not mode & needed:
                return f"{path} cannot be read by programs that root starts at L2: {folder} is not open to every user"
    return ""


class Work:
    """The folder of one program, which is held by a lock as long as its owner lives. Raises `CannotStart`."""

    def __init__(self, parent: Path, uid: int) -> None:
        try:
            self.folder, self._lock = _new_folder(parent)
            if uid:
                os.chown(self.folder, uid, uid)
        except OSError as error:
            raise CannotStart("E_FILES", f"no working directory can be made: {error}", "see to the disk") from None

    def remove(self) -> None:
        """Raises `OSError` if something is left of it."""
        try:
            _remove(self.folder)
        finally:
            os.close(self._lock)


def _new_folder(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent))
        if (lock := own(folder)) is not None:
            return folder, lock


def sweep(parent: Path) -> None:
    """Remove the folders whose owners have ended."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # another user's, or somebody else was faster
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder)
        except BlockingIOError:
            continue  # its owner lives
        finally:
            os.close(lock)


def _remove(folder: Path) -> None:
    """By the system's own tools: they do not mind how deep a program has nested its folders."""
    if _tool("rm", "-rf", "--", str(folder)):
        return
    _tool("chmod", "-R", "u+rwX", "--", str(folder))  # a program may take the right to remove away from itself
    if not _tool("rm", "-rf", "--", str(folder)):
        raise OSError(f"{folder} cannot be removed")


def _tool(name: str, *args: str) -> bool:
    command = shutil.which(name) or name
    done = subprocess.run(
        [command, *args], stdin=subprocess.DEVNULL, capture_output=True, timeout=_REMOVAL_SEC, check=False
    )
    return done.returncode == 0


def _command(orders: int) -> list[str]:
    begin = _BEGIN.format(str(Path(inside.__file__).parents[1]))
    return [own_interpreter(), "-I", "-S", "-c", begin, ONCE, str(orders)]
