"""One bubblewrap: how it is called, its process, and the end of it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from flowkit.sandbox import inside
from flowkit.sandbox.errors import CannotStart
from flowkit.sandbox.inside.init import WORK

_INSIDE: Final = "/run/flowkit/inside"
_BEGIN: Final = "import sys; sys.path.insert(0, '/run/flowkit'); from inside.main import main; main()"
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_CONFIGURATION: Final = (
    "/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/pki/tls",
    "/etc/ca-certificates", "/etc/ssl/certs", "/etc/ssl/openssl.cnf",
)  # fmt: skip
_ACCOUNTS: Final = {
    "/etc/passwd": b"program:x:1000:1000:program:/work:/bin/sh\n",
    "/etc/group": b"program:x:1000:\n",
    "/etc/hosts": b"127.0.0.1 localhost sandbox\n",
    "/etc/nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files\n",
}
_AS_ROOT: Final = ("SYS_ADMIN", "NET_ADMIN", "SETPCAP", "CHOWN", "SETUID", "SETGID")
_AS_USER: Final = ("SYS_ADMIN", "NET_ADMIN", "SETPCAP")
_ENVIRONMENT: Final = {"LC_ALL": "C.UTF-8"}
_END_SEC: Final = 10.0
_LONGEST_COMPLAINT: Final = 2000


class Box:
    """A bubblewrap with `inside.main` as its first process, under this interpreter, in this role."""

    def __init__(self, bwrap: str, readable: Iterable[str], *, interpreter: str = "", role: str) -> None:
        self._bwrap = bwrap
        self._interpreter = interpreter or os.path.realpath(sys.executable)
        self._readable = _without_repeats([*readable, *(_own_python() if not interpreter else [])])
        self._role = role
        self._process: subprocess.Popen[bytes] | None = None
        self._complaints = -1

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    def begin(self) -> socket.socket:
        """Where orders go. Raises `CannotStart`."""
        orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        accounts = [_in_memory(content) for content in _ACCOUNTS.values()]
        self._complaints = os.memfd_create("complaints")
        try:
            # Its own environment is nearly empty: what it was given could be read inside, however it is told to clear it.
            self._process = subprocess.Popen(
                self._argv(theirs.fileno(), accounts), env=_ENVIRONMENT, stdin=subprocess.DEVNULL,
                stdout=self._complaints, stderr=self._complaints, pass_fds=[theirs.fileno(), *accounts],
                start_new_session=True, cwd="/",
            )  # fmt: skip
        except OSError as error:
            orders.close()
            raise CannotStart("E_SANDBOX_BWRAP", f"bubblewrap cannot be run: {error}", "flowkit doctor") from None
        finally:
            theirs.close()
            for descriptor in accounts:
                os.close(descriptor)
        return orders

    def complaints(self) -> str:
        """What bubblewrap, or what runs in it before a program does, has said."""
        if self._complaints < 0:
            return ""
        return os.pread(self._complaints, _LONGEST_COMPLAINT, 0).decode(errors="replace").strip()

    async def gone(self) -> None:
        """Until its process has ended; it is ended if it does not by itself."""
        process, self._process = self._process, None
        if process is not None and not await _ended(process, _END_SEC):
            process.kill()
            await _ended(process, _END_SEC)
        if self._complaints >= 0:
            os.close(self._complaints)
            self._complaints = -1

    def _argv(self, orders: int, accounts: list[int]) -> list[str]:
        root = os.geteuid() == 0
        argv = [self._bwrap, "--die-with-parent", "--as-pid-1", "--new-session", "--clearenv"]
        for name, value in _ENVIRONMENT.items():
            argv += ["--setenv", name, value]
        argv += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--hostname", "sandbox"]
        if not root:
            argv += ["--unshare-user", "--uid", "0", "--gid", "0"]
        argv += ["--cap-drop", "ALL"]
        for name in _AS_ROOT if root else _AS_USER:
            argv += ["--cap-add", f"CAP_{name}"]
        argv += ["--proc", "/proc", "--dev", "/dev", "--dir", WORK, "--dir", "/tmp"]  # noqa: S108  the sandbox's
        argv += _system()
        for path, descriptor in zip(_ACCOUNTS, accounts, strict=True):
            argv += ["--ro-bind-data", str(descriptor), path]
        argv += ["--ro-bind", str(Path(inside.__file__).parent), _INSIDE]
        for path in self._readable:
            argv += ["--ro-bind", path, path]
        argv += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", "--"]
        return [*argv, self._interpreter, "-I", "-S", "-c", _BEGIN, self._role, str(orders)]


def _system() -> list[str]:
    argv = []
    for path in _SYSTEM:
        if os.path.islink(path):
            argv += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            argv += ["--ro-bind", path, path]
    for path in _CONFIGURATION:
        argv += ["--ro-bind-try", path, path]
    return argv


def _own_python() -> list[str]:
    """What the interpreter of this process needs to run."""
    return [os.path.realpath(path) for path in (sys.base_prefix, sys.base_exec_prefix)]


def _without_repeats(paths: Iterable[str]) -> list[str]:
    """What the system's places do not have already, each once, and parents before what is in them."""
    return [path for path in sorted(set(paths)) if not any(path == place or path.startswith(f"{place}/") for place in _SYSTEM)]


def _in_memory(content: bytes) -> int:
    descriptor = os.memfd_create("account")
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


async def _ended(process: subprocess.Popen[bytes], timeout: float) -> bool:
    if process.poll() is not None:
        return True
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, lambda: ended.done() or ended.set_result(None))
    try:
        async with asyncio.timeout(timeout):
            await ended
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.poll() is not None
