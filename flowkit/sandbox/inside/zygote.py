"""A process that is ready before a program comes: each order is a fork of it, in namespaces of its own.

It holds no secret, and no code of an environment or a program ever runs in it: what it has loaded is Python's own, and
the script that it was told to prepare, which is its starter's.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
from _socket import socket
from collections.abc import Callable
from resource import struct_rusage

from . import kernel, order
from .counters import Counters
from .entry import Entry, Report
from .init import listen_for_children
from .rehearsal import rehearse
from .rooms import Room, Rooms, enter_network
from .script import Site
from .turns import Turn

# What nearly every program loads, so that it is loaded once. Each fork copies and frees the tables of all memory, and a
# row for each part of a library, so what few programs need costs the others more than it saves those.
WARM = (
    "asyncio", "base64", "bisect", "collections", "contextlib", "contextvars", "copy", "dataclasses", "datetime",
    "enum", "functools", "hashlib", "heapq", "inspect", "io", "itertools", "json", "linecache", "logging", "math",
    "operator", "os", "pathlib", "re", "select", "signal", "site", "socket", "string", "struct", "textwrap",
    "threading", "time", "traceback", "types", "typing", "urllib.parse", "warnings", "weakref",
)  # fmt: skip


class Zygote:
    """`serve` comes back only in a program's process, with what it has to do. `prepared`: a script that is loaded now,
    if any; `network`: the programs have one, and each makes its own namespace for it."""

    def __init__(self, orders: socket, prepared: str, *, network: bool) -> None:
        self._orders = orders
        self._packages = Site(prepared)
        self._rooms = Rooms(networks=not network)
        self._by_process: dict[int, Turn] = {}  # by programs, and by first processes where one is there
        self._by_control: dict[int, Turn] = {}
        self._counters = Counters()
        self._poll = select.poll()

    def serve(self) -> Callable[[], None]:
        """Until the parent has gone."""
        self._warm_up()
        woken = listen_for_children()
        poll = self._poll
        poll.register(self._orders, select.POLLIN)
        poll.register(woken, select.POLLIN)
        order.tell(self._orders, "ready")
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == woken:
                    os.read(woken, 4096)
                    self._reap()
                    break  # descriptors were closed: what is known of the others may be about new ones
                elif descriptor == self._orders.fileno():
                    place = order.receive_place(self._orders)
                    if place is None:
                        os._exit(0)  # the first process of its namespace: nothing that it forked outlives it
                    todo = self._begin(place)
                    if todo is not None:
                        return todo
                else:
                    self._hear(self._by_control[descriptor])

    def _warm_up(self) -> None:
        for name in WARM:
            try:
                __import__(name)
            except ImportError:
                continue  # a Python that was built without it
        self._packages.look()
        rehearse()
        gc.collect()
        gc.freeze()  # what is there now is never looked at again, so that forks go on sharing its pages

    # ---- a program's turn

    def _begin(self, place: order.Place) -> Callable[[], None] | None:
        """In the program's process, what it has to do."""
        try:
            room, pid = self._fork(place)
        except OSError as error:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                os.write(place.control, f"failed place {error}".encode())
            for descriptor in place.all():
                os.close(descriptor)
            return None
        if pid == 0:
            return self._become_program(place, room)
        turn = Turn(place.control, pid, room)
        self._by_process[pid] = self._by_process[room.pid] = turn
        self._by_control[turn.control] = turn
        self._poll.register(turn.control, select.POLLIN)
        for descriptor in (place.line, *place.doors):
            os.close(descriptor)
        return None

    def _fork(self, place: order.Place) -> tuple[Room, int]:
        while True:
            room = self._rooms.lend(place)
            try:
                kernel.setns(room.processes, kernel.CLONE_NEWPID)
                return room, kernel.fork()
            except OSError:
                room.kill()
                room.close()
                if not room.used:
                    raise  # and where one was kept, its first process has ended meanwhile

    def _become_program(self, place: order.Place, room: Room) -> Callable[[], None]:
        self._orders.detach()
        kernel.close_but((*place.all(), room.network))
        report = Report(place.control, began=b"began ", failed=b"failed ")
        return Entry(place, report, walls=lambda: _raise_walls(room.network), packages=self._packages).start()

    def _hear(self, turn: Turn) -> None:
        if not turn.hear():
            self._poll.unregister(turn.control)
            del self._by_control[turn.control]

    def _reap(self) -> None:
        while True:
            before = self._counters.read()
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self._has_ended(pid, status, used, self._counters.since(before))

    def _has_ended(self, pid: int, status: int, used: struct_rusage, bytes_moved: tuple[int, int]) -> None:
        turn = self._by_process.pop(pid, None)
        if turn is None:
            self._rooms.forget(pid)
            return
        turn.count(used, bytes_moved)
        if pid == turn.program:
            turn.has_ended(status)
        else:
            turn.room.gone = True
        if turn.over and (turn.room.gone or (not turn.told and self._rooms.give_back(turn.room))):
            self._is_over(turn)
        elif turn.over:
            turn.room.end()  # and whoever is left there, so that what they used is counted

    def _is_over(self, turn: Turn) -> None:
        if turn.room.gone:
            turn.room.close()
        else:
            del self._by_process[turn.room.pid]
        if self._by_control.pop(turn.control, None) is not None:
            self._poll.unregister(turn.control)
        turn.tell()


def _raise_walls(network: int) -> None:
    enter_network(network)
    kernel.unshare(kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS)
    kernel.mount("proc", "/proc", "proc", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC)
