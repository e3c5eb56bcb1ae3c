"""The kernel's little machine for filters, so that a filter of any machine can be asked on this one."""

from __future__ import annotations

import struct


def judge(program: bytes, data: bytes) -> int:
    """What the program answers to this. Raises `ValueError` for an instruction that filters should not have."""
    ops = list(struct.iter_unpack("=HBBI", program))
    word, at = 0, 0
    while True:
        code, then, otherwise, k = ops[at]
        at += 1
        match code:
            case 0x20:
                word = struct.unpack_from("=I", data, k)[0]
            case 0x54:
                word &= k
            case 0x06:
                return int(k)
            case 0x15:
                at += then if word == k else otherwise
            case 0x35:
                at += then if word >= k else otherwise
            case 0x45:
                at += then if word & k else otherwise
            case _:
                raise ValueError(f"instruction {code:#x}")


def asked(number: int, *args: int, arch: int) -> bytes:
    """A `struct seccomp_data`."""
    return struct.pack("=iIQ6Q", number, arch, 0, *args, *[0] * (6 - len(args)))
