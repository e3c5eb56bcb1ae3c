"""Runs one server as a child process with its own group, ports, data and log; it never outlives us."""

from __future__ import annotations

import atexit
import fcntl
import functools
import os
import queue
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".services"


class ServiceUnavailable(RuntimeError):
    """A local server could not be installed or started; the message says what is missing."""


class LocalServer(ABC):
    """One server. Its address and its data last until `close`, over any stop, crash and start. The data are in
    `data_dir`, or in a folder of its own, beside other temporary ones or in that which FLOWKIT_TEST_DATA names."""

    name: str

    def __init__(self, *, data_dir: Path | None = None, ready_timeout: float = 150.0) -> None:
        self._keep_data = data_dir is not None
        place = os.environ.get("FLOWKIT_TEST_DATA")
        self.data_dir = data_dir or Path(tempfile.mkdtemp(prefix=f"flowkit-{self.name}-", dir=place))
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self.log_path = self.data_dir / "server.log"
        self._ready_timeout = ready_timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        atexit.register(self.close)

    # What each server fills in.

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """The command line, after whatever the first start has to prepare."""

    @abstractmethod
    def _is_ready(self) -> bool:
        """Whether a client would be served now; answers within a second."""

    # The lifecycle.

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self.name} is not started; call start() first")
        return self._process.pid

    def start(self) -> Self:
        """Start the server and wait until it serves; does nothing if it runs already.

        Raises ServiceUnavailable, with the end of the server's log, if it does not get there.
        """
        if self.running:
            return self

        command = self._command()
        self._process = _spawn(command, self.log_path)
        deadline = time.monotonic() + self._ready_timeout

        while not self._is_ready():
            code = self._process.poll()
            if code is not None:
                raise self._failure(f"ended with code {code} before it was ready")
            if time.monotonic() > deadline:
                self.kill()
                raise self._failure(f"was not ready after {self._ready_timeout:.0f} s")
            time.sleep(0.05)

        return self

    def stop(self, timeout: float = 15.0) -> None:
        """End the server as its operator would (SIGTERM), after `timeout` seconds by force. The data stay."""
        if not self.running:
            return

        self.thaw()
        self._signal(signal.SIGTERM)
        assert self._process is not None
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Crash the server (SIGKILL). The data stay."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        self._process.wait()

    def freeze(self) -> None:
        """Stop the server in mid-air (SIGSTOP): its connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def restart(self) -> None:
        """Stop and start, on the same port with the same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the server at once and delete its data, unless the caller named the folder."""
        if os.getpid() != self._owner:  # a forked child does not own the server
            return
        self.kill()
        if not self._keep_data:
            shutil.rmtree(self.data_dir, ignore_errors=True)
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _failure(self, what: str) -> ServiceUnavailable:
        tail = self.log_path.read_text(errors="replace").splitlines()[-25:]
        return ServiceUnavailable("\n".join([f"{self.name} {what}; the end of {self.log_path}:", *tail]))


def free_port() -> int:
    """A free port on 127.0.0.1 that no outgoing connection can take while its server is down.

    Outgoing connections get ports from the ephemeral range. A client that keeps dialling a dead server whose
    port lies in that range can even connect to itself, and then the server cannot come back. So the port is
    chosen below the range.
    """
    dice = random.SystemRandom()
    for _ in range(200):
        port = dice.randint(20_000, 31_999)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServiceUnavailable("no free port between 20000 and 31999 on 127.0.0.1")


def need(command: str, hint: str) -> str:
    """The full path of a command, or ServiceUnavailable that says how to get it."""
    found = shutil.which(command)
    if found is None:
        raise ServiceUnavailable(f"`{command}` is missing: {hint}")
    return found


def run(command: Sequence[str], what: str) -> None:
    """Run a command of an installation; ServiceUnavailable with the end of its output if it fails."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise ServiceUnavailable(f"{what} failed (code {done.returncode}):\n{tail}")


@contextmanager
def installing(target: Path) -> Iterator[Path | None]:
    """Yields a folder to fill, which then becomes `target` in one step; or None if `target` is there already.

    Parallel test runs wait here for the first one's download. One that broke off leaves nothing that looks
    complete.
    """
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            yield None
            return
        draft = Path(tempfile.mkdtemp(prefix="draft-", dir=CACHE))
        try:
            yield draft
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def stop_on_signals() -> threading.Event:
    """An event that SIGINT and SIGTERM set."""
    stopped = threading.Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        stopped.set()

    signal.signal(signal.SIGINT, note)
    signal.signal(signal.SIGTERM, note)
    return stopped


def _spawn(command: Sequence[str], log_path: Path) -> subprocess.Popen[bytes]:
    setpriv = shutil.which("setpriv")
    if setpriv is None:  # not a Linux: atexit alone ends the server
        return _popen(command, log_path)

    # The kernel sends the death signal when the *thread* that forked ends, not the process. So that a server
    # started from a short-lived thread (asyncio.to_thread) lives on, one thread that lasts forks them all.
    answer: Future[subprocess.Popen[bytes]] = Future()
    _spawner(os.getpid()).put(([setpriv, "--pdeathsig", "KILL", *command], log_path, answer))
    return answer.result()


_Order = tuple[Sequence[str], Path, Future[subprocess.Popen[bytes]]]


@functools.cache
def _spawner(_pid: int) -> queue.SimpleQueue[_Order]:  # by pid: threads do not survive a fork
    orders: queue.SimpleQueue[_Order] = queue.SimpleQueue()

    def serve() -> None:
        while True:
            command, log_path, answer = orders.get()
            try:
                answer.set_result(_popen(command, log_path))
            except OSError as error:
                answer.set_exception(error)

    threading.Thread(target=serve, name="local-server-spawner", daemon=True).start()
    return orders


def _popen(command: Sequence[str], log_path: Path) -> subprocess.Popen[bytes]:
    # A session of its own: Ctrl-C reaches only us, and a signal to the group reaches all that it started.
    with log_path.open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=log_path.parent,
            start_new_session=True,
        )
