"""A process that is ready before a program comes: each order is a fork of it, in namespaces of its own.

It holds no secret, and no code of an environment or a program ever runs in it: what it has loaded is Python's own, and
the script that it was told to prepare, which is its starter's.
"""

from __future__ import annotations

import gc
import os
import select
import signal
from _socket import socket
from collections.abc import Callable

from . import kernel, order
from .init import Init, listen_for_children
from .networks import Networks
from .rehearsal import rehearse
from .script import Site

# What nearly every program loads, so that it is loaded once. Each fork copies and frees the tables of all memory, and a
# row for each part of a library, so what few programs need costs the others more than it saves those.
WARM = (
    "asyncio", "base64", "bisect", "collections", "contextlib", "contextvars", "copy", "dataclasses", "datetime",
    "enum", "functools", "hashlib", "heapq", "inspect", "io", "itertools", "json", "linecache", "logging", "math",
    "operator", "os", "pathlib", "re", "select", "signal", "site", "socket", "string", "struct", "textwrap",
    "threading", "time", "traceback", "types", "typing", "urllib.parse", "warnings", "weakref",
)  # fmt: skip


def serve(orders: socket, prepared: str, *, network: bool) -> Callable[[], None]:
    """Until the parent has gone. Comes back only in a program's process, with what it has to do. `prepared`: a script
    that is loaded now, if any; `network`: the programs have one, and each makes its own namespace for it."""
    packages = Site(prepared)
    _warm_up(packages)
    home = os.open("/proc/self/ns/pid", os.O_RDONLY)
    networks = None if network else Networks()
    woken = listen_for_children()
    order.tell(orders, "ready")
    while True:
        place = _next(orders, woken, networks)
        if place is None:
            os._exit(0)  # the first process of its namespace: nothing that it forked outlives it
        if _fork(home, place, networks) == 0:
            signal.set_wakeup_fd(-1)
            orders.close()
            for descriptor in (home, woken):
                os.close(descriptor)
            return Init(place, packages).start()
        for descriptor in (place.control, *place.doors):
            os.close(descriptor)


def _warm_up(packages: Site) -> None:
    for name in WARM:
        try:
            __import__(name)
        except ImportError:
            continue  # a Python that was built without it
    packages.look()
    rehearse()
    gc.collect()
    gc.freeze()  # what is there now is never looked at again, so that forks go on sharing its pages


def _next(orders: socket, woken: int, networks: Networks | None) -> order.Place | None:
    poll = select.poll()
    poll.register(orders, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        if woken in ready:
            os.read(woken, 4096)
            _reap(networks)
        if orders.fileno() in ready:
            return order.receive_place(orders)


def _reap(networks: Networks | None) -> None:
    try:
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            if networks is not None:
                networks.returned(pid)
    except ChildProcessError:
        return


def _fork(home: int, place: order.Place, networks: Networks | None) -> int:
    # A process may make a namespace for its next child only while the one for its children is its own.
    kernel.setns(home, kernel.CLONE_NEWPID)
    kernel.unshare(kernel.CLONE_NEWPID)
    if networks is None:
        return kernel.fork()
    network = networks.lend()
    place.networked = True
    pid = kernel.fork()
    if pid == 0:
        networks.close()
        os.close(network)
    else:
        networks.lent(network, pid)
    return pid
