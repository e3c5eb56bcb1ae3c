"""Whole programs that mean harm, and what they get."""

from __future__ import annotations

from dataclasses import dataclass

from flowkit.sandbox.runtime import Limits


@dataclass(frozen=True, slots=True)
class Hostile:
    """`source` prints `up` first, if it is to be waited for. The limits are small, so that it is soon over."""

    source: str
    limits: Limits


WHOLE: dict[str, Hostile] = {
    "fork_bomb": Hostile(
        "import os, time\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        time.sleep(0.01)\n",
        Limits(pids=32, wall_sec=1.0, memory_mb=512, cpu_sec=60),
    ),
    "memory_bomb": Hostile(
        "held = []\nwhile True:\n    held.append(bytearray(b'x' * 8_000_000))\n", Limits(memory_mb=64, wall_sec=60)
    ),
    "spin": Hostile("while True:\n    pass\n", Limits(cpu_sec=1.0, wall_sec=60)),
    "ignore_the_request_to_end": Hostile(
        "import signal, time\n"
        "for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):\n"
        "    signal.signal(number, signal.SIG_IGN)\n"
        "print('up', flush=True)\n"
        "while True:\n"
        "    time.sleep(1)\n",
        Limits(wall_sec=1.0),
    ),
    "leave_a_daemon": Hostile(
        "import os, sys, time\n"
        "reader, writer = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        "        os.write(writer, b'x')\n"
        "        os.closerange(0, 16)\n"
        "        time.sleep(600)\n"
        "    os._exit(0)\n"
        "os.read(reader, 1)\n",
        Limits(wall_sec=60),
    ),
    "kill_everybody": Hostile(
        "import os, signal\ntry:\n    os.kill(-1, signal.SIGKILL)\nexcept ProcessLookupError:\n    pass\n",
        Limits(wall_sec=60),
    ),
    "kill_process_1": Hostile(
        "import os, signal\ntry:\n    os.kill(1, signal.SIGKILL)\nexcept PermissionError:\n    pass\n",
        Limits(wall_sec=60),
    ),
}
