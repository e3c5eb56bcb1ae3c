"""How bubblewrap is called: which namespaces, what the root is made of, and what its first process may still do."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from flowkit.sandbox import inside
from flowkit.sandbox.inside.entry import WORK
from flowkit.sandbox.inside.main import ZYGOTE
from flowkit.sandbox.inside.seal import INSIDE_ID
from flowkit.sandbox.launch import ENVIRONMENT

_INSIDE: Final = "/run/flowkit/inside"
_BEGIN: Final = "import sys; sys.path.insert(0, '/run/flowkit'); from inside.main import main; main()"
_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_CONFIGURATION: Final = (
    "/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/pki/tls",
    "/etc/ca-certificates", "/etc/ssl/certs", "/etc/ssl/openssl.cnf",
)  # fmt: skip
_ACCOUNTS: Final = {
    "/etc/passwd": f"program:x:{INSIDE_ID}:{INSIDE_ID}:program:{WORK}:/bin/sh\n",
    "/etc/group": f"program:x:{INSIDE_ID}:\n",
    "/etc/hosts": "127.0.0.1 localhost sandbox\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
_AS_ROOT: Final = ("SYS_ADMIN", "NET_ADMIN", "SETPCAP", "CHOWN", "SETUID", "SETGID")
_AS_USER: Final = ("SYS_ADMIN", "NET_ADMIN", "SETPCAP", "SETFCAP")  # the last, to be somebody else one floor below


class Box:
    """A bubblewrap with `inside.main` as its first process: under this Python, or under that which a program names.
    `arguments` are for it."""

    def __init__(
        self, bwrap: str, readable: Iterable[str], *, role: str, interpreter: str = "", arguments: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self._bwrap = bwrap
        self._interpreter = interpreter or own_interpreter()
        self._readable = _without_repeats([*readable, *(() if interpreter else own_python())])
        self._role = role
        self._arguments = arguments

    @contextmanager
    def accounts(self) -> Iterator[list[int]]:
        """Descriptors of the few files that the root has instead of this machine's."""
        descriptors = [_in_memory(content) for content in _ACCOUNTS.values()]
        try:
            yield descriptors
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def argv(self, orders: int, accounts: list[int]) -> list[str]:
        root = os.geteuid() == 0
        argv = [self._bwrap, "--die-with-parent", "--as-pid-1", "--new-session", "--clearenv"]
        for name, value in ENVIRONMENT.items():
            argv += ["--setenv", name, value]
        argv += ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--hostname", "sandbox"]
        if not root:
            argv += ["--unshare-user", "--uid", "0", "--gid", "0"]
        argv += ["--cap-drop", "ALL"]
        for name in self._capabilities(root):
            argv += ["--cap-add", f"CAP_{name}"]
        argv += ["--proc", "/proc", "--dev", "/dev", "--dir", "/etc", "--dir", WORK, "--dir", "/tmp"]  # noqa: S108  the sandbox's
        argv += _system()
        for path, descriptor in zip(_ACCOUNTS, accounts, strict=True):
            argv += ["--ro-bind-data", str(descriptor), path]
        for path in _folders([_INSIDE, *self._readable]):
            argv += ["--dir", path]  # those that bubblewrap makes by itself are for their owner only
        argv += ["--ro-bind", str(Path(inside.__file__).parent), _INSIDE]
        for path in self._readable:
            argv += ["--ro-bind", path, path]
        argv += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/", "--"]
        return [*argv, self._interpreter, "-I", "-S", "-c", _BEGIN, self._role, str(orders), *self._arguments]

    def _capabilities(self, root: bool) -> tuple[str, ...]:
        if not root:
            return _AS_USER
        return (*_AS_ROOT, "KILL") if self._role == ZYGOTE else _AS_ROOT  # programs that it has begun, and only they


def own_interpreter() -> str:
    """The Python of this process, past all links."""
    return os.path.realpath(sys.executable)


def own_python() -> list[str]:
    """What the Python of this process needs to run."""
    return [os.path.realpath(path) for path in (sys.base_prefix, sys.base_exec_prefix)]


def system_places() -> list[str]:
    """Where this machine has what every program needs."""
    return [path for path in (*_SYSTEM, *_CONFIGURATION) if os.path.exists(path)]


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


def _without_repeats(paths: Iterable[str]) -> list[str]:
    """What the system's places do not have already, each once, and folders before what is in them."""
    return [path for path in sorted(set(paths)) if not any(_lies_in(path, place) for place in _SYSTEM)]


def _folders(paths: Iterable[str]) -> list[str]:
    """What these lie in, outermost first."""
    return sorted({str(folder) for path in paths for folder in Path(path).parents if str(folder) != "/"})


def _lies_in(path: str, place: str) -> bool:
    return path == place or path.startswith(f"{place}/")


def _in_memory(content: str) -> int:
    descriptor = os.memfd_create("account")
    os.write(descriptor, content.encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor
