"""Landlock: what a process may do with files, streams and signals, given up by itself and for good."""

from __future__ import annotations

import ctypes
import os
import stat
import struct

from . import kernel

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_ALL_OF_ABI = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_NEWEST = (1 << 16) - 1
_DEVICES = 1 << 6 | 1 << 11  # making devices is granted nowhere
_SOCKETS = 1 << 9
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_TCP = 0b11  # bind, connect
_SCOPES = 0b11  # abstract Unix sockets, signals

_GET_VERSION = 1
_PATH_BENEATH = 1


Rules = tuple[list[str], list[str], list[str]]
"""Paths below which files may be read and run, below which they may be written as well, and single devices."""


def abi() -> int:
    """The version that this kernel has; 0 if none."""
    try:
        return kernel.syscall(kernel.LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_GET_VERSION))
    except OSError:
        return 0


def restrict(rules: Rules) -> None:
    """From now on this process may do only what the rules say. `no_new_privileges` comes first."""
    version = abi()
    handled = _ALL_OF_ABI.get(version, _NEWEST)
    readable, writable, devices = rules
    ruleset = _ruleset(version, handled)
    try:
        for path in readable:
            _allow(ruleset, path, _READ & handled)
        for path in writable:
            _allow(ruleset, path, handled & ~_DEVICES & ~_SOCKETS)
        for path in devices:
            _allow(ruleset, path, (_READ_FILE | _WRITE_FILE) & handled)
        kernel.syscall(kernel.LANDLOCK_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0))
    finally:
        os.close(ruleset)


def _ruleset(version: int, handled: int) -> int:
    words = [handled]
    if version >= 4:
        words.append(_TCP)
    if version >= 6:
        words.append(_SCOPES)
    attributes = ctypes.create_string_buffer(struct.pack(f"={len(words)}Q", *words), 8 * len(words))
    return kernel.syscall(kernel.LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(8 * len(words)), ctypes.c_uint(0))


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return  # what is not there, or not for this user, cannot be read anyway
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            access &= _OF_FILES
        rule = ctypes.create_string_buffer(struct.pack("=Qi", access, descriptor), 12)
        kernel.syscall(
            kernel.LANDLOCK_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint(0)
        )
    finally:
        os.close(descriptor)
