"""The first process of a sandbox: makes what is left to make, starts the program, reaps, counts, reports, ends all.

Nothing outlives it: it ends when the program does, when it is told to, and when whoever started it has gone; and with
it the kernel ends whatever else there is in its namespace, or it does so itself where it has none.
"""

from __future__ import annotations

import os
import resource
import select
from _socket import AF_INET, AF_UNIX, SO_REUSEADDR, SOCK_SEQPACKET, SOCK_STREAM, SOL_SOCKET, socket, socketpair

from . import kernel
from .kernel import signal
from .order import Order, Place, read_order, receive_ends, send, tell
from .seal import become, restore_signals, seal, settle, take

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO, NoReturn

    from .script import Site

WORK = "/flowkit-work"  # and not `/work`: what is there on a machine could not be given to a program
PROXY_PORT = 3128

TERMINATE = b"t"
KILL = b"k"
END = signal.SIGUSR1
"""Ends a program that has no namespace of its own, and all that it has started: who kills this process leaves them."""

_KILL_ROUND_SEC = 0.05
_FAILED = 127
_LONGEST_FAILURE = 1000
_WAITING_CONNECTIONS = 64


class Init:
    """`start` gives in the program's process what it has yet to do, and comes back in no other. `packages`: those that
    there are for programs which are scripts."""

    def __init__(self, place: Place, packages: Site | None = None) -> None:
        self._place = place
        self._packages = packages
        self._control = socket(fileno=place.control)
        self._program = 0
        self._io = -1
        self._own = (0, 0)

    def start(self) -> Callable[[], None]:
        """Raises nothing: what goes wrong is reported, and ends this process."""
        try:
            self._io = _open_counters()
            self._own = self._moved()
            if self._place.fresh:
                self._own_namespaces()
            woken = listen_for_children()
            if not self._place.root:
                kernel.adopt_orphans()
                # It ends all that it has adopted before it ends itself: when its parent has gone, `control` tells it.
                kernel.die_with_parent(0)
                signal.signal(END, lambda *_: None)
            inner, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
            began, beginning = os.pipe()
            kernel.set_dumpable(False)
            self._program = kernel.fork()
        except OSError as error:
            self._give_up("place", error)
        if self._program == 0:
            inner.close()
            self._control.detach()
            return self._become_program(theirs, beginning)
        theirs.close()
        os.close(beginning)
        for door in self._place.doors:
            os.close(door)
        self._hand_on(inner)
        self._watch(began, woken)

    # ---- in the program's process

    def _become_program(self, orders: socket, report: int) -> Callable[[], None]:
        stage = "place"
        try:
            settle(self._place)
            stage = "order"
            ends = receive_ends(orders)
            if ends is None:
                os._exit(0)
            number, report = take(ends, report)
            with open(number, "rb", buffering=0) as file:
                order = read_order(file)
                seal(order, file.read(order.filter_bytes))
                stage = "folder"
                os.umask(0o077)
                os.chdir(WORK if self._place.root else order.folder)
                stage = "files"
                _unpack(order, file)
            restore_signals(python=order.script)
            if order.script:
                os.close(report)
                return lambda: self._script(order)
            stage = "exec"
            os.execve(order.argv[0], order.argv, order.env)  # noqa: S606  this is what is to be run
        except BaseException as error:  # there is nobody else who could be told
            try:
                os.write(report, f"{stage} {str(error) or type(error).__name__}".encode()[:_LONGEST_FAILURE])
            finally:
                os._exit(_FAILED)
        raise AssertionError("a program was started twice")

    def _script(self, order: Order) -> None:
        assert self._packages is not None
        self._packages.run(order.argv, order.env)

    # ---- in the first process

    def _own_namespaces(self) -> None:
        network = 0 if self._place.networked else kernel.CLONE_NEWNET
        kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS | network)
        kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)

    def _hand_on(self, inner: socket) -> None:
        """Wait for the order, make what only this process may make, and let the program's process have it."""
        ends = receive_ends(self._control)
        if ends is None:
            os._exit(0)
        try:
            disk_bytes, own_tmp, network = map(int, ends.summary.split())
            if self._place.root:
                self._own_disk(disk_bytes, own_tmp=bool(own_tmp))
            if network:
                self._way_out()
            send(inner, ends.summary, ends.all())
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has ended, and said why
        except OSError as error:
            self._give_up("order", error)
        inner.close()
        for descriptor in ends.all():
            os.close(descriptor)

    def _own_disk(self, disk_bytes: int, *, own_tmp: bool) -> None:
        # One file system, and so one bound, for all places that can be written to.
        inodes = max(1024, disk_bytes // 4096)
        kernel.mount(
            "private", WORK, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV,
            f"size={disk_bytes},nr_inodes={inodes},mode=0755",
        )  # fmt: skip
        for name, target in (("shm", "/dev/shm"), ("tmp", "/tmp"), ("work", WORK)):  # noqa: S108  the sandbox's
            if name == "tmp" and not own_tmp:
                continue
            inner = f"{WORK}/{name}"
            os.mkdir(inner, 0o700)
            if self._place.uid:
                os.chown(inner, self._place.uid, self._place.uid)
            kernel.mount(inner, target, "", kernel.MS_BIND)

    def _way_out(self) -> None:
        kernel.raise_loopback()
        server = socket(AF_INET, SOCK_STREAM)
        server.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", PROXY_PORT))
        server.listen(_WAITING_CONNECTIONS)
        tell(self._control, "listening", descriptors=(server.fileno(),))
        server.close()

    def _watch(self, began: int, woken: int) -> NoReturn:
        self._lower()
        failure = _read_all(began)
        if failure:
            tell(self._control, "failed", failure)
            os._exit(0)
        tell(self._control, "began")
        status = self._until_program_ends(woken)
        self._end_the_rest()
        self._report(status)
        os._exit(0)

    def _lower(self) -> None:
        if self._place.root:
            if self._place.uid:
                become(self._place.uid)
            kernel.drop_capabilities()
            kernel.set_dumpable(False)
            kernel.die_with_parent(signal.SIGKILL)

    def _until_program_ends(self, woken: int) -> int | None:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(woken, select.POLLIN)
        while True:
            status = self._reap()
            if status is not None:
                return status
            for descriptor, _ in poll.poll():
                if descriptor == woken:
                    if END in os.read(woken, 4096):
                        return None
                elif self._told_to_end():
                    return None

    def _told_to_end(self) -> bool:
        try:
            word = self._control.recv(16)
        except ConnectionResetError:
            return True
        if word == TERMINATE:
            os.kill(self._program, signal.SIGTERM)
        return word in (b"", KILL)

    def _reap(self) -> int | None:
        """The program's status, if it is among those that have ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return None
            if pid == 0:
                return None
            if pid == self._program:
                return status

    def _end_the_rest(self) -> None:
        """All that is left, so that what it used is counted before this process ends. Who forks meanwhile is found in
        the next round; in a namespace, one is enough."""
        while True:
            self._kill_all()
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    continue
            except ChildProcessError:
                return
            select.select([], [], [], _KILL_ROUND_SEC / 10)

    def _kill_all(self) -> None:
        if self._place.root:
            _send(-1, signal.SIGKILL)
            return
        # Who is stopped does not fork, so that what there is to be killed becomes fewer.
        stopped: set[int] = set()
        while found := set(descendants(os.getpid())) - stopped:
            for pid in found:
                _send(pid, signal.SIGSTOP)
            stopped |= found
        for pid in stopped:
            _send(pid, signal.SIGKILL)

    def _report(self, status: int | None) -> None:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        moved = self._moved()
        read, written = (moved[0] - self._own[0], moved[1] - self._own[1]) if self._io >= 0 else (-1, -1)
        cpu = used.ru_utime + used.ru_stime
        ended = "" if status is None else status
        tell(self._control, "ended", f"{ended},{cpu},{used.ru_maxrss * 1024},{read},{written}")

    def _moved(self) -> tuple[int, int]:
        """Bytes that this process, and all that it has reaped, moved through reads and writes."""
        if self._io < 0:
            return 0, 0
        numbers = dict(line.split(": ") for line in os.pread(self._io, 4096, 0).decode().splitlines())
        return int(numbers["rchar"]), int(numbers["wchar"])

    def _give_up(self, stage: str, error: OSError) -> NoReturn:
        tell(self._control, "failed", f"{stage} {error}")
        os._exit(_FAILED)


def listen_for_children() -> int:
    """A descriptor that can be read when a child has ended."""
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    return woken


def descendants(pid: int) -> list[int]:
    """All processes that this one has started, and they, and so on, as /proc shows them now."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                parent = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            continue  # it has ended meanwhile
        children.setdefault(parent, []).append(int(name))
    found = list(children.get(pid, ()))
    for one in found:
        found += children.get(one, ())
    return found


def _unpack(order: Order, file: BinaryIO) -> None:
    for path, size in order.files:
        if folder := os.path.dirname(path):
            os.makedirs(folder, exist_ok=True)
        with open(path, "xb") as to:
            to.write(file.read(size))


def _open_counters() -> int:
    try:
        return os.open("/proc/self/io", os.O_RDONLY)
    except FileNotFoundError:  # a kernel that does not count
        return -1


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _read_all(descriptor: int) -> str:
    found = b""
    while part := os.read(descriptor, _LONGEST_FAILURE):
        found += part
    os.close(descriptor)
    return found.decode(errors="replace")
