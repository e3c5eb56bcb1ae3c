"""Where a sandbox begins: one program, or a process that others are forked from."""

from __future__ import annotations

import os
import sys
from _socket import socket

from . import kernel, order
from .init import Init
from .kernel import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ONCE = "once"
ZYGOTE = "zygote"


def main() -> None:
    """Arguments: what to be, the number of the socket by which orders come, and for a zygote, the script to prepare and
    whether its programs have a network."""
    role, number, *rest = sys.argv[1:]
    orders = socket(fileno=int(number))
    kernel.die_with_parent(signal.SIGKILL)
    if role == ZYGOTE:
        from .zygote import Zygote

        prepared, network = rest
        start = Zygote(orders, prepared, network=network == "1").serve()
    else:
        start = _once(orders)
    start()


def _once(orders: socket) -> Callable[[], None]:
    place = order.receive_place(orders)
    if place is None:
        os._exit(0)
    orders.close()
    return Init(place).start()
