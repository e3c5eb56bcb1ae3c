"""The processes of a test are stopped and go on, and nobody else's are."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.stalls import descendants, read, stop


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/bin/sleep", "600"]) as process:
        yield process
        process.kill()


def becomes(pid: int, states: str) -> bool:
    limit = time.monotonic() + 60
    while (now := read(pid)) is None or now.state not in states:
        assert time.monotonic() < limit, now
    return True


def test_a_family_is_found_and_who_was_stopped_goes_on(child: subprocess.Popen[bytes]) -> None:
    assert becomes(child.pid, "S")
    found = {one.pid: one for one in descendants(os.getpid())}

    assert {os.getpid(), child.pid} <= found.keys()
    assert os.getppid() not in found

    stop(found[child.pid], 0.01)

    assert becomes(child.pid, "S")


def test_whom_a_test_has_stopped_is_left_to_it(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGSTOP)
    assert becomes(child.pid, "T")

    assert child.pid not in [one.pid for one in descendants(os.getpid())]
