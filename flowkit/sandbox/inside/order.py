"""What the parent asks for, and how it is told what became of it.

An order is a file in memory: words that end in a zero byte, an empty line's worth of none, then the filter and the
contents of files. It arrives with its descriptors over a socket that keeps messages apart. What the parent is told are
such messages too: a word of what it is, and the rest.

A cold start loads this before its program, so nothing here, nor in what it loads, takes more than it must: dataclasses
alone would cost as much as all of it.
"""

from __future__ import annotations

import os
from _socket import CMSG_SPACE, SCM_RIGHTS, SOL_SOCKET, socket
from struct import calcsize, pack, unpack

LONGEST_MESSAGE = 4096
MOST_DESCRIPTORS = 16
_HEAD = 8

Ended = tuple[int | None, float, int, int, int]
"""The program's wait status (none: it was ended), seconds of CPU, bytes at the peak, bytes read and written."""


class Order:
    """How a program is to be started.

    `uid`: whom it becomes, 0 to stay. `fresh`: it begins in the namespaces of a process that goes on, so it needs its
    own. `root`: it has a root of its own, else it begins in `folder` of this machine's. `script`: it is run as a script
    by this very interpreter. `landlock`: paths that may be read, written as well, and single devices; None without it.
    """

    def __init__(
        self, argv: list[str], env: dict[str, str], *, rlimits: list[tuple[int, int, int]], uid: int = 0,
        fresh: bool = False, root: bool = True, script: bool = False, network: bool = False, disk_bytes: int = 0,
        folder: str = "", own_tmp: bool = True, landlock: tuple[list[str], list[str], list[str]] | None = None,
    ) -> None:  # fmt: skip
        self.argv = argv
        self.env = env
        self.rlimits = rlimits
        self.uid = uid
        self.fresh = fresh
        self.root = root
        self.script = script
        self.network = network
        self.disk_bytes = disk_bytes
        self.folder = folder
        self.own_tmp = own_tmp
        self.landlock = landlock


class Ends:
    """Descriptors that came with an order: how to reach the parent, the program's own, and those of its cgroups."""

    def __init__(self, control: int, channel: int, stdout: int, stderr: int, order: int, *cgroups: int) -> None:
        self.control = control
        self.channel = channel
        self.stdout = stdout
        self.stderr = stderr
        self.order = order
        self.cgroups = cgroups

    def all(self) -> tuple[int, ...]:
        return (self.control, self.channel, self.stdout, self.stderr, self.order, *self.cgroups)


def write_order(order: Order, filter_code: bytes, files: dict[str, bytes]) -> int:
    """A descriptor of a file in memory; the caller closes it. Raises `ValueError` for a zero byte in a word."""
    numbers = (order.uid, order.fresh, order.root, order.script, order.network, order.disk_bytes, order.own_tmp)
    lists = [
        [str(int(number)) for number in numbers],
        [order.folder],
        order.argv,
        [word for pair in order.env.items() for word in pair],
        [str(number) for limit in order.rlimits for number in limit],
        ["0" if order.landlock is None else "1"],
        *(order.landlock or ([], [], [])),
        [str(len(filter_code))],
        [word for path, content in files.items() for word in (path, str(len(content)))],
    ]
    words = [word for words in lists for word in (str(len(words)), *words)]
    if any("\0" in word for word in words):
        raise ValueError("no argument, variable or path may have a zero byte")
    head = "\0".join(words).encode(errors="surrogateescape")
    descriptor = os.memfd_create("order")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(len(head).to_bytes(_HEAD, "big") + head + filter_code)
        file.writelines(files.values())
    return descriptor


def read_order(descriptor: int) -> tuple[Order, bytes, list[tuple[str, bytes]]]:
    """The order, its filter, and its files. The descriptor is closed."""
    with open(descriptor, "rb") as file:
        file.seek(0)
        length = int.from_bytes(file.read(_HEAD), "big")
        words = iter(file.read(length).decode(errors="surrogateescape").split("\0"))

        def some() -> list[str]:
            return [next(words) for _ in range(int(next(words)))]

        uid, fresh, root, script, network, disk_bytes, own_tmp = map(int, some())
        (folder,) = some()
        argv = some()
        env = _pairs(some())
        limits = [int(word) for word in some()]
        (locked,) = some()
        landlock = (some(), some(), some())
        (filter_bytes,) = some()
        files = _pairs(some())
        rlimits = list(zip(limits[::3], limits[1::3], limits[2::3], strict=True))
        order = Order(
            argv, dict(env), rlimits=rlimits, uid=uid, fresh=bool(fresh), root=bool(root), script=bool(script),
            network=bool(network), disk_bytes=disk_bytes, folder=folder, own_tmp=bool(own_tmp),
            landlock=landlock if locked == "1" else None,
        )  # fmt: skip
        filter_code = file.read(int(filter_bytes))
        return order, filter_code, [(path, file.read(int(size))) for path, size in files]


def receive(connection: socket) -> Ends | None:
    """The next order's descriptors, or None if the parent has gone."""
    _, ancillary, _, _ = connection.recvmsg(LONGEST_MESSAGE, CMSG_SPACE(MOST_DESCRIPTORS * calcsize("i")))
    found = [descriptors for level, kind, descriptors in ancillary if (level, kind) == (SOL_SOCKET, SCM_RIGHTS)]
    return Ends(*unpack(f"{len(found[0]) // calcsize('i')}i", found[0])) if found else None


def tell(connection: socket, kind: str, text: str = "", descriptors: tuple[int, ...] = ()) -> None:
    """A message to the parent. That it has gone is noticed elsewhere: by the end of what it sends."""
    ancillary = [(SOL_SOCKET, SCM_RIGHTS, pack(f"{len(descriptors)}i", *descriptors))] if descriptors else []
    try:
        connection.sendmsg([f"{kind} {text}".encode()[:LONGEST_MESSAGE]], ancillary)
    except (BrokenPipeError, ConnectionResetError):
        return


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    return list(zip(words[::2], words[1::2], strict=True))
