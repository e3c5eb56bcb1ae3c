"""What whoever starts programs asks of a runtime: a program in, a process that can be talked to, and how it ended.

A runtime promises that nothing of the parent's environment or descriptors reaches the program, that every process that
the program started is gone once `wait` or `kill` has returned, and that it leaves no file, mount or cgroup behind.
"""

from __future__ import annotations

import asyncio
import enum
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

CHANNEL_FD: Final = 3
"""The descriptor by which a program finds its end of the channel, whatever the runtime."""


class Level(enum.IntEnum):
    """How far a program is shut in; a higher one includes the lower."""

    L1 = 1
    """A process of its own: limits of the system, and nothing else. For code that is trusted."""
    L2 = 2
    """The kernel refuses it files, sockets and system calls that it does not need (Landlock, seccomp)."""
    L3 = 3
    """It has namespaces, a root, a user and a cgroup of its own."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use. Sizes are MiB, times seconds, `cpu` is cores. `output_mb` bounds each of its streams."""

    memory_mb: int = 256
    cpu: float = 1.0
    pids: int = 64
    disk_mb: int = 64
    wall_sec: float = 300.0
    cpu_sec: float = 300.0
    output_mb: int = 8


@dataclass(frozen=True, slots=True)
class Program:
    """What to start.

    `argv[0]` is an absolute path as the program will see it. `env` is its whole environment. `files` (path relative to
    its working directory, content) are put there for it before it starts. `readable` are absolute paths of this machine
    that it may read, at the same place: its interpreter, its packages. `network`: the `host:port` that it may reach;
    none if empty. `warm` names the environment in whose zygote it may begin (empty: it is started cold); the zygote
    then runs `argv[-1]` as a Python script. `prepared`: a script that the zygote loads before any program comes, whose
    `main()` is called instead; so it has to be the starter's own, and readable.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    readable: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    network: tuple[str, ...] = ()
    warm: str = ""
    prepared: str = ""


class Verdict(enum.StrEnum):
    """Why a program ended, where it did not simply exit."""

    EXITED = "exited"
    SIGNAL = "signal"
    OOM = "oom"
    WALL = "timeout"
    CPU = "cpu_timeout"
    KILLED = "killed"
    """By whoever started it."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a program and all that it started have used. None: this runtime cannot measure it."""

    wall_sec: float
    cpu_sec: float
    peak_memory_bytes: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    received_bytes: int | None = None
    sent_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Ending:
    """How a program ended: its exit status, or the signal that killed it."""

    verdict: Verdict
    status: int | None
    signal: int | None
    usage: Usage


class Running(Protocol):
    """A program that was started. `channel` is the parent's end of a stream socket, non-blocking; the program has the
    other as `CHANNEL_FD`. `stdout` and `stderr` have to be read by whoever started it. `end_signal`: sent to `pid`, it
    ends the program and everything that it started; the same happens when whoever started it has gone."""

    pid: int
    end_signal: int
    channel: socket.socket
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader

    async def wait(self) -> Ending:
        """Until it has ended, of itself or by its limits, and everything that it started is gone."""
        ...

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        ...

    async def kill(self) -> None:
        """End it and everything that it started, now; then `wait` says `KILLED`."""
        ...


class Runtime(Protocol):
    """Starts programs at one level. Others (gVisor, containers, Kubernetes Jobs) plug in here."""

    name: str
    level: Level

    async def start(self, program: Program) -> Running:
        """Raises `flowkit.sandbox.errors.CannotStart` where the program could not be started as it has to be: never at
        a lower level instead."""
        ...

    async def close(self) -> None:
        """End all programs and zygotes."""
        ...
