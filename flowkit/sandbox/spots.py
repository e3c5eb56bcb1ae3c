"""Places for programs: asked for before it is known what for, counted and shut in, and waiting for an order."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from flowkit.sandbox.cgroups import Group
from flowkit.sandbox.inside.order import send, write_place


@dataclass(slots=True)
class Spot:
    """One such place: how it is reached, the group in which it is counted, and whether it has namespaces of its own."""

    control: socket.socket
    group: Group | None
    root: bool = True

    async def remove(self) -> None:
        """Whoever waits there ends; it is to be called once that has happened. Raises `OSError` if it does not."""
        self.control.close()
        if self.group is not None:
            await self.group.remove()


def ask(orders: socket.socket, group: Group | None, *, uid: int, root: bool, fresh: bool) -> Spot:
    """Ask for a place where orders go. Raises `OSError` where nobody takes any."""
    control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    control.setblocking(False)
    doors = group.doors() if group is not None else []
    try:
        send(orders, write_place(uid, root=root, fresh=fresh), (theirs.fileno(), *doors))
    except OSError:
        control.close()
        raise
    finally:
        theirs.close()
        for door in doors:
            os.close(door)
    return Spot(control, group, root)
