"""What the parent asks for, and how it is told what became of it.

A place is asked for first: a process that is where a program is to be, counted and shut in. Then comes the order, to
that process, over a line of its own: so the place can be ready before it is known what for. Both are messages over
sockets that keep messages apart, with descriptors. An order proper is a file in memory: words between zero bytes, then
the filter and the contents of files. What the parent is told is a word of what it is, and the rest.

A cold start loads this before its program, so nothing here, nor in what it loads, takes more than it must: dataclasses
alone would cost as much as all of it.
"""

from __future__ import annotations

import os
from _socket import CMSG_SPACE, SCM_RIGHTS, SOL_SOCKET, socket
from struct import calcsize, pack, unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

ORDER = b"order"
LONGEST_MESSAGE = 4096
MOST_DESCRIPTORS = 16
_HEAD = 8


class Order:
    """What is to be started. `script`: it is run as a script by this very interpreter. `own_tmp`: whether `/tmp` is its
    own. `landlock`: paths that may be read, written as well, and single devices; None without it. `folder`: where it
    begins, if it has no root of its own."""

    def __init__(
        self, argv: list[str], env: dict[str, str], *, rlimits: list[tuple[int, int, int]], script: bool = False,
        network: bool = False, disk_bytes: int = 0, folder: str = "", own_tmp: bool = True,
        landlock: tuple[list[str], list[str], list[str]] | None = None,
    ) -> None:  # fmt: skip
        self.argv = argv
        self.env = env
        self.rlimits = rlimits
        self.script = script
        self.network = network
        self.disk_bytes = disk_bytes
        self.folder = folder
        self.own_tmp = own_tmp
        self.landlock = landlock
        self.filter_bytes = 0
        self.files: list[tuple[str, int]] = []


class Place:
    """Where a program is to be. `uid`: whom it becomes, 0 to stay. `root`: it has a root of its own, and the rest of
    namespaces. `keeper`: whom the first process becomes where it stays for other programs, 0 where it does not.
    `control`: the descriptor by which the parent is reached; `line`: that by which the order comes; `doors`: those by
    which groups are joined."""

    def __init__(self, uid: int, root: bool, keeper: int, control: int, line: int, doors: tuple[int, ...]) -> None:
        self.uid = uid
        self.root = root
        self.keeper = keeper
        self.control = control
        self.line = line
        self.doors = doors

    def all(self) -> tuple[int, ...]:
        return (self.control, self.line, *self.doors)


class Ends:
    """The descriptors that come with an order: the program's own, and that of the order proper."""

    def __init__(self, channel: int, stdout: int, stderr: int, order: int) -> None:
        self.channel = channel
        self.stdout = stdout
        self.stderr = stderr
        self.order = order

    def all(self) -> tuple[int, ...]:
        return (self.channel, self.stdout, self.stderr, self.order)


def write_order(order: Order, filter_code: bytes, files: dict[str, bytes]) -> int:
    """A descriptor of a file in memory; the caller closes it. Raises `ValueError` for a zero byte in a word."""
    lists = [
        [str(int(number)) for number in (order.script, order.network, order.disk_bytes, order.own_tmp)],
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
    text = "\0".join(words)
    if text.count("\0") >= len(words):
        raise ValueError("no argument, variable or path may have a zero byte")
    head = text.encode(errors="surrogateescape")
    descriptor = os.memfd_create("order")
    for part in (len(head).to_bytes(_HEAD, "big") + head + filter_code, *files.values()):
        left = memoryview(part)
        while left:
            left = left[os.write(descriptor, left) :]
    return descriptor


def read_order(file: BinaryIO) -> Order:
    """The order; the filter and the contents of its files come next in the file."""
    file.seek(0)
    length = int.from_bytes(file.read(_HEAD), "big")
    words = iter(file.read(length).decode(errors="surrogateescape").split("\0"))

    def some() -> list[str]:
        return [next(words) for _ in range(int(next(words)))]

    script, network, disk_bytes, own_tmp = map(int, some())
    (folder,) = some()
    argv = some()
    env = _pairs(some())
    limits = [int(word) for word in some()]
    (locked,) = some()
    landlock = (some(), some(), some())
    (filter_bytes,) = some()
    order = Order(
        argv, dict(env), rlimits=list(zip(limits[::3], limits[1::3], limits[2::3], strict=True)), script=bool(script),
        network=bool(network), disk_bytes=disk_bytes, folder=folder, own_tmp=bool(own_tmp),
        landlock=landlock if locked == "1" else None,
    )  # fmt: skip
    order.filter_bytes = int(filter_bytes)
    order.files = [(path, int(size)) for path, size in _pairs(some())]
    return order


def write_place(uid: int, *, root: bool, keeper: int = 0) -> bytes:
    return f"{uid} {int(root)} {keeper}".encode()


def receive_place(connection: socket) -> Place | None:
    """What place is asked for next, or None if the parent has gone."""
    text, descriptors = _receive(connection)
    if not descriptors:
        return None
    uid, root, keeper = map(int, text.split())
    control, line, *doors = descriptors
    return Place(uid, bool(root), keeper, control, line, tuple(doors))


def receive_ends(connection: socket) -> Ends | None:
    """The descriptors of an order, or None if there will be none."""
    _, descriptors = _receive(connection)
    return Ends(*descriptors) if descriptors else None


def send(connection: socket, text: bytes, descriptors: tuple[int, ...]) -> None:
    """Raises `OSError` where nobody takes it."""
    connection.sendmsg([text], [(SOL_SOCKET, SCM_RIGHTS, pack(f"{len(descriptors)}i", *descriptors))])


def _receive(connection: socket) -> tuple[bytes, list[int]]:
    room = CMSG_SPACE(MOST_DESCRIPTORS * calcsize("i"))
    try:
        text, ancillary, _, _ = connection.recvmsg(LONGEST_MESSAGE, room)
    except ConnectionResetError:
        return b"", []
    found = [data for level, kind, data in ancillary if (level, kind) == (SOL_SOCKET, SCM_RIGHTS)]
    return text, [number for data in found for number in unpack(f"{len(data) // calcsize('i')}i", data)]


def tell(connection: socket, kind: str, text: str = "", descriptors: tuple[int, ...] = ()) -> None:
    """A message to the parent. That it has gone is noticed elsewhere: by the end of what it sends."""
    ancillary = [(SOL_SOCKET, SCM_RIGHTS, pack(f"{len(descriptors)}i", *descriptors))] if descriptors else []
    try:
        connection.sendmsg([f"{kind} {text}".encode()[:LONGEST_MESSAGE]], ancillary)
    except (BrokenPipeError, ConnectionResetError):
        return


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    return list(zip(words[::2], words[1::2], strict=True))
