"""Who has which room: a program from its fork until its parent has been told how it ended."""

from __future__ import annotations

import contextlib
import os

from .init import KILL, TERMINATE, ending
from .kernel import signal
from .rooms import Room

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resource import struct_rusage


class Turn:
    """`control` is its own. The program ends by itself, or because it was `told`."""

    def __init__(self, control: int, program: int, room: Room) -> None:
        self.control = control
        self.program = program
        self.room = room
        self.told = False
        self.over = False
        self._status: int | None = None
        self._cpu_sec = 0.0
        self._peak_kib = 0
        self._moved = (0, 0)

    def hear(self) -> bool:
        """What the parent says, or that it has gone: then nothing more is to be heard."""
        try:
            word = os.read(self.control, 16)
        except ConnectionResetError:
            word = b""
        if word == TERMINATE and not self.over:
            os.kill(self.program, signal.SIGTERM)
        elif word in (b"", KILL):
            self.end()
        return bool(word)

    def end(self) -> None:
        """Only the program, whose end is then followed by that of all that it has left."""
        self.told = True
        if not self.over:
            os.kill(self.program, signal.SIGKILL)

    def count(self, used: struct_rusage, moved: tuple[int, int]) -> None:
        """What one of its processes, and all that was waited for there, has used."""
        self._cpu_sec += used.ru_utime + used.ru_stime
        self._peak_kib = max(self._peak_kib, used.ru_maxrss)
        self._moved = moved if moved[0] < 0 else (self._moved[0] + moved[0], self._moved[1] + moved[1])

    def has_ended(self, status: int) -> None:
        """The program has, but perhaps not all that it has started."""
        self.program, self.over, self._status = 0, True, None if self.told else status

    def tell(self) -> None:
        """The parent, that all is over. That it has gone was noticed elsewhere: by the end of what it sends."""
        said = f"ended {ending(self._status, self._cpu_sec, self._peak_kib, *self._moved)}"
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            os.write(self.control, said.encode())
        os.close(self.control)
