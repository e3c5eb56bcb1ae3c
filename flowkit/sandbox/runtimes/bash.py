"""Runs code of a node that is Bash: `python -I -S bash.py BASH`. Bash cannot speak in frames; this speaks for it.

Bash gets the inputs as JSON on its standard input, and functions (`bash_functions.sh`) that ask for things over
descriptor 4: a line with a verb and the length of each argument, then the arguments; the answer is a length, then the
text.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from importlib.machinery import SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
child: Any = type(sys)("flowkit_child")
child.__file__ = os.path.join(os.path.dirname(HERE), "child.py")
exec(SourceFileLoader("flowkit_child", child.__file__).get_code("flowkit_child"), child.__dict__)  # type: ignore[arg-type]  # noqa: S102

ASK_FD = 4
MOST_ARGUMENT = 8 * 1024 * 1024
LEVELS = ("debug", "info", "warning", "error")
STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")


def main() -> None:
    channel = child.Channel()
    job = channel.job
    child.at_home(job)
    channel.inputs = job["inputs"]
    for place, text in job["bytes"]:  # as base64: Bash has no bytes
        channel.inputs = placed(channel.inputs, place, text)
    status = run(channel, job)
    if channel.done:
        os._exit(0)
    if status == 0:
        channel.result(None)
        os._exit(0)
    os._exit(status if status > 0 else end_as(-status))


def end_as(number: int) -> int:
    """End as Bash did, by the same signal."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number


def run(channel: Any, job: dict[str, Any]) -> int:
    """The exit status of Bash; negative for the signal that killed it."""
    import socket
    import subprocess

    ours, theirs = socket.socketpair()
    with open(os.path.join(HERE, "bash_functions.sh"), encoding="utf-8") as file:
        functions = file.read()
    source = re.sub(child.PLACEHOLDER, r"$(flowkit_secret \1)", job["source"])
    script, written = os.pipe()
    # The code has its lines to itself: what comes before it is on none of them.
    command = [sys.argv[1], "-c", f'{functions}\nsource "$1"', job["file"], "/dev/fd/5"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        preexec_fn=lambda: place(theirs.fileno(), script),  # noqa: PLW1509 - there are no threads yet
        close_fds=False,
    )
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    theirs.close()
    os.close(script)
    feed([(written, source.encode()), (process.stdin.fileno(), json.dumps(channel.inputs).encode())])  # type: ignore[union-attr]
    serve(channel, ours)
    return process.wait()


def place(asking: int, script: int) -> None:
    """In the new process: give each descriptor its number, and close whatever else was open."""
    kept = [os.dup(asking), os.dup(script)]
    kept = [os.dup2(fd, 20 + at) for at, fd in enumerate(kept)]
    os.dup2(kept[0], ASK_FD, inheritable=True)
    os.dup2(kept[1], 5, inheritable=True)
    os.close(3)
    os.closerange(6, 256)


def feed(streams: list[tuple[int, bytes]]) -> None:
    """Write to pipes that nobody need read."""
    import threading

    def write(fd: int, data: bytes) -> None:
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]
        except BrokenPipeError:
            return
        finally:
            os.close(fd)

    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    for fd, data in streams:
        threading.Thread(target=write, args=(os.dup(fd), data), daemon=True).start()
        os.close(fd)


def serve(channel: Any, ours: Any) -> None:
    """Answer until Bash, and all that it started with descriptor 4 in hand, is gone."""
    with ours.makefile("rb") as asked:
        while line := asked.readline(256):
            try:
                verb, *lengths = line.decode().split()
                arguments = [asked.read(min(int(length), MOST_ARGUMENT)).decode(errors="replace") for length in lengths]
                answer = act(channel, verb, arguments)
            except child.Gone:
                os._exit(1)
            except Exception as error:
                answer = f"!{error}"
            data = answer.encode()
            try:
                ours.sendall(b"%d\n" % len(data) + data)
            except BrokenPipeError:
                return


def act(channel: Any, verb: str, arguments: list[str]) -> str:
    """The answer: `=` and a text, or `!` and what is wrong."""
    match verb, arguments:
        case "log", [level, message]:
            channel.log(level if level in LEVELS else "info", message)
            return "="
        case "progress", [done, total, message]:
            channel.progress(number(done), number(total), message)
            return "="
        case "input", [path]:
            return f"={text_of(follow(channel.inputs, path))}"
        case "secret", [name]:
            return f"={channel.secret(name)}"
        case "cancelled", []:
            return "=1" if channel.cancelled() else "="
        case "batch", [text]:
            channel.batch(json.loads(text))
            return "="
        case "result", [text, *names]:
            channel.result(json.loads(text), names[0].split() if names else None)
            return "="
    return f"!nobody knows flowkit_{verb} with {len(arguments)} arguments"


def number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def follow(value: Any, path: str) -> Any:
    for step in STEP.finditer(path):
        value = value[step[1]] if step[2] is None else value[int(step[2])]
    return value


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def placed(inputs: Any, place: list[Any], value: Any) -> Any:
    if not place:
        return value
    parent = inputs
    for step in place[:-1]:
        parent = parent[step]
    parent[place[-1]] = value
    return inputs


if __name__ == "__main__":
    main()
