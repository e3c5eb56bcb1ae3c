"""An assembler of classic BPF, as far as filters of system calls need it: load a word, compare, jump ahead, return."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K

LONGEST: Final = 4096
"""Instructions that the kernel takes in one filter."""

_FARTHEST = 255


@dataclass(frozen=True, slots=True)
class _Op:
    code: int
    k: int
    then: str = ""
    otherwise: str = ""


class Assembler:
    """Gathers instructions; a jump names a label that comes later, or nothing, which is the next instruction."""

    def __init__(self) -> None:
        self._ops: list[_Op] = []
        self._labels: dict[str, int] = {}

    def load(self, offset: int) -> None:
        """The 32-bit word at this offset of what is being judged."""
        self._ops.append(_Op(_LOAD, offset))

    def mask(self, bits: int) -> None:
        self._ops.append(_Op(_AND, bits))

    def if_equal(self, value: int, *, then: str = "", otherwise: str = "") -> None:
        self._ops.append(_Op(_EQUAL, value, then, otherwise))

    def if_at_least(self, value: int, *, then: str = "", otherwise: str = "") -> None:
        self._ops.append(_Op(_AT_LEAST, value, then, otherwise))

    def if_any_bit(self, bits: int, *, then: str = "", otherwise: str = "") -> None:
        self._ops.append(_Op(_ANY_BIT, bits, then, otherwise))

    def answer(self, value: int) -> None:
        self._ops.append(_Op(_RETURN, value))

    def label(self, name: str) -> None:
        if name in self._labels:
            raise ValueError(f"two labels are called {name!r}")
        self._labels[name] = len(self._ops)

    def assemble(self) -> bytes:
        """The instructions as an array of `struct sock_filter`. Raises `ValueError` for a jump that cannot be made."""
        if len(self._ops) > LONGEST:
            raise ValueError(f"{len(self._ops)} instructions; the kernel takes {LONGEST}")
        return b"".join(
            struct.pack("=HBBI", op.code, self._distance(at, op.then), self._distance(at, op.otherwise), op.k)
            for at, op in enumerate(self._ops)
        )

    def _distance(self, at: int, label: str) -> int:
        if not label:
            return 0
        distance = self._labels[label] - at - 1
        if not 0 <= distance <= _FARTHEST:
            raise ValueError(f"the jump to {label!r} goes {distance} instructions ahead; 0 to {_FARTHEST} can be made")
        return distance
