"""Places for programs: asked for before it is known what for, counted and shut in, and waiting for an order."""

from __future__ import annotations

import socket
from dataclasses import dataclass

from flowkit.sandbox.cgroups import Group
from flowkit.sandbox.inside.order import send, write_place


@dataclass(slots=True)
class Spot:
    """One such place: how whoever watches over it is reached, how who waits in it is, the group in which it is counted,
    and whether it has namespaces of its own."""

    control: socket.socket
    line: socket.socket
    group: Group | None
    root: bool = True

    def close(self) -> None:
        """Whoever is there ends."""
        self.control.close()
        self.line.close()

    async def remove(self) -> None:
        """To be called when what is there has ended, or does now. Raises `OSError` if it does not."""
        self.close()
        if self.group is not None:
            await self.group.remove()


def ask(orders: socket.socket, group: Group | None, *, uid: int, root: bool, keeper: int = 0) -> Spot:
    """Ask for a place where orders go. Raises `OSError` where nobody takes any."""
    control, their_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line, their_line = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    control.setblocking(False)
    doors = group.doors() if group is not None else []
    try:
        away = (their_control.fileno(), their_line.fileno(), *doors)
        send(orders, write_place(uid, root=root, keeper=keeper), away)
    except OSError:
        control.close()
        line.close()
        raise
    finally:
        their_control.close()
        their_line.close()
    return Spot(control, line, group, root)
