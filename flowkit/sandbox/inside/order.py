"""What the parent asks for, and how it is told what became of it.

An order is a file in memory: the length of a JSON object, the object, and the contents of the files that it lists. It
arrives with its descriptors over a socket that keeps messages apart. What the parent is told are such messages too.
"""

from __future__ import annotations

import array
import json
import os
import socket
from dataclasses import dataclass, field
from typing import Any

LONGEST_MESSAGE = 4096
MOST_DESCRIPTORS = 16
_HEAD = 8


@dataclass
class Order:
    """How a program is to be started. `uid`: whom it becomes, 0 to stay. `fresh`: it begins in the namespaces of a
    process that goes on, so it needs its own. `root`: it has a root of its own, else it begins in `folder` of this
    machine's. `script`: it is run as a script by this very interpreter."""

    argv: list[str]
    env: dict[str, str]
    files: list[tuple[str, int]] = field(default_factory=list)
    rlimits: list[tuple[int, int, int]] = field(default_factory=list)
    filter_bytes: int = 0
    uid: int = 0
    fresh: bool = False
    root: bool = True
    script: bool = False
    network: bool = False
    disk_bytes: int = 0
    folder: str = ""
    own_tmp: bool = True
    landlock: dict[str, Any] | None = None


@dataclass
class Ends:
    """Descriptors that came with an order: how to reach the parent, the program's own, and those of its cgroups."""

    control: int
    channel: int
    stdout: int
    stderr: int
    order: int
    cgroups: list[int]


def write_order(order: Order, filter_code: bytes, contents: list[bytes]) -> int:
    """A descriptor of a file in memory; the caller closes it."""
    order.filter_bytes = len(filter_code)
    head = json.dumps(vars(order)).encode()
    descriptor = os.memfd_create("order")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(len(head).to_bytes(_HEAD, "big") + head + filter_code)
        file.writelines(contents)
    return descriptor


def read_order(descriptor: int) -> tuple[Order, bytes, list[tuple[str, bytes]]]:
    with open(descriptor, "rb") as file:
        file.seek(0)
        length = int.from_bytes(file.read(_HEAD), "big")
        order = Order(**json.loads(file.read(length)))
        filter_code = file.read(order.filter_bytes)
        return order, filter_code, [(path, file.read(size)) for path, size in order.files]


def receive(connection: socket.socket) -> Ends | None:
    """The next order's descriptors, or None if the parent has gone."""
    size = array.array("i").itemsize
    _, ancillary, _, _ = connection.recvmsg(LONGEST_MESSAGE, socket.CMSG_SPACE(MOST_DESCRIPTORS * size))
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % size])
    if not found:
        return None
    control, channel, stdout, stderr, order, *cgroups = found
    return Ends(control, channel, stdout, stderr, order, cgroups)


def tell(connection: socket.socket, kind: str, descriptors: tuple[int, ...] = (), **what: Any) -> None:
    """A message to the parent. That it has gone is noticed elsewhere: by the end of what it sends."""
    message = json.dumps({"kind": kind, **what}).encode()
    ancillary = (
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())] if descriptors else []
    )
    try:
        connection.sendmsg([message], ancillary)
    except (BrokenPipeError, ConnectionResetError):
        return
