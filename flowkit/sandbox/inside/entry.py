"""A program's process until it is the program: joins its groups, waits for its order, makes what only the privileged
may make, gives all privileges up, and goes on as what is to be run.
"""

from __future__ import annotations

import os
from _socket import AF_INET, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, socket

from . import kernel
from .order import Order, Place, read_order, receive_ends, tell
from .seal import join, restore_signals, seal, settle, take

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from .script import Site

WORK = "/flowkit-work"  # and not `/work`: what is there on a machine could not be given to a program
PROXY_PORT = 3128
FAILED = 127

_LONGEST_FAILURE = 1000
_WAITING_CONNECTIONS = 64


class Report:
    """Where it is told how the process gets on: `failed` comes before what went wrong, `began` is what is said once
    nothing can any more, unless it is enough that the descriptor is closed."""

    def __init__(self, descriptor: int, *, began: bytes = b"", failed: bytes = b"") -> None:
        self.descriptor = descriptor
        self.began = began
        self.failed = failed

    def close(self) -> None:
        if self.began:
            os.write(self.descriptor, self.began)
        os.close(self.descriptor)


class Entry:
    """`start` gives what the process has yet to do. `walls` makes the namespaces that are not made yet, if any;
    `packages`: those that there are for programs which are scripts."""

    def __init__(
        self, place: Place, report: Report, *, walls: Callable[[], None] | None = None, packages: Site | None = None
    ) -> None:
        self._place = place
        self._report = report
        self._walls = walls
        self._packages = packages

    def start(self) -> Callable[[], None]:
        """Raises nothing: what goes wrong is reported, and ends this process."""
        stage = "place"
        try:
            kernel.set_dumpable(False)
            join(self._place)
            if self._walls is not None:
                self._walls()
            stage = "order"
            line = socket(fileno=self._place.line)
            ends = receive_ends(line)
            if ends is None:
                os._exit(0)
            line.detach()
            with open(ends.order, "rb", buffering=0, closefd=False) as file:
                order = read_order(file)
                filter_code = file.read(order.filter_bytes)
            self._make(order)
            stage = "place"
            settle(self._place)
            stage = "order"
            number, self._report.descriptor = take(ends, self._report.descriptor)
            with open(number, "rb", buffering=0) as file:  # goes on where the other left off
                seal(order, filter_code)
                stage = "folder"
                os.umask(0o077)
                os.chdir(WORK if self._place.root else order.folder)
                stage = "files"
                _unpack(order, file)
            restore_signals(python=order.script)
            if order.script:
                self._report.close()
                return lambda: self._script(order)
            stage = "exec"
            os.execve(order.argv[0], order.argv, order.env)  # noqa: S606  this is what is to be run
        except BaseException as error:  # there is nobody else who could be told
            self._fail(stage, error)
        raise AssertionError("a program was started twice")

    def _fail(self, stage: str, error: BaseException) -> None:
        said = self._report.failed + f"{stage} {str(error) or type(error).__name__}".encode()[:_LONGEST_FAILURE]
        try:
            os.write(self._report.descriptor, said)
        finally:
            os._exit(FAILED)

    def _script(self, order: Order) -> None:
        assert self._packages is not None
        self._packages.run(order.argv, order.env)

    # ---- what only who has privileges can make

    def _make(self, order: Order) -> None:
        if self._place.root:
            self._own_disk(order.disk_bytes, own_tmp=order.own_tmp)
        if order.network:
            self._way_out()

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
        control = socket(fileno=self._place.control)
        tell(control, "listening", descriptors=(server.fileno(),))
        control.detach()
        server.close()


def _unpack(order: Order, file: BinaryIO) -> None:
    for path, size in order.files:
        if folder := os.path.dirname(path):
            os.makedirs(folder, exist_ok=True)
        with open(path, "xb") as to:
            to.write(file.read(size))
