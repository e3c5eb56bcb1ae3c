"""Does once, in a zygote, what each of its forks will do and what changes nothing: then the interpreter has found its
names and made its shortcuts, and the forks go on sharing the memory in which they stand."""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_SEQPACKET, socketpair

from .order import ORDER, Order, read_order, receive_ends, send, tell, write_order

_TIMES = 10
"""An interpreter makes shortcuts of what has run a few times."""


def rehearse() -> None:
    here, there = socketpair(AF_UNIX, SOCK_SEQPACKET)
    order = Order(["/rehearsal", "-x"], {"A": "b"}, rlimits=[(0, 1, 1), (1, 2, 2)], script=True)
    for _ in range(_TIMES):
        number = write_order(order, b"filter", {})
        send(here, ORDER, (number, number, number, number))
        ends = receive_ends(there)
        assert ends is not None
        with open(ends.order, "rb", buffering=0) as file:
            file.read(read_order(file).filter_bytes)
        for descriptor in (number, ends.channel, ends.stdout, ends.stderr):
            os.close(descriptor)
        tell(there, "rehearsed")
        here.recv(64)
    here.close()
    there.close()
