"""Runs a page's steps from their JSON on stdin, in the working directory; prints what each of them printed, as JSON."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import json
import subprocess
import sys
import traceback
from typing import Any


def main() -> None:
    page, steps = json.load(sys.stdin)
    answer = sys.stdout
    printed: list[str] = []
    # Handlers that are looked up by pydantic or by annotations find their module so.
    namespace: dict[str, Any] = {"__name__": "__main__"}
    running: list[subprocess.Popen[bytes]] = []
    error = ""
    with asyncio.Runner() as runner:
        try:
            for step in steps:
                printed.append(_run(page, step, namespace, runner, running))
        except BaseException:
            error = traceback.format_exc()
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(20)
    json.dump({"printed": printed, "error": error}, answer)


def _run(page: str, step: dict[str, Any], namespace: dict[str, Any], runner: asyncio.Runner,
         running: list[subprocess.Popen[bytes]]) -> str:  # fmt: skip
    match step["kind"]:
        case "file":
            with open(step["file"], "w") as file:
                file.write(step["text"])
            return ""
        case "console":
            return "".join(_command(line[2:], running) for line in step["text"].splitlines() if line.startswith("$ "))
    out = io.StringIO()
    text = "\n" * (step["line"] - 1) + step["text"]
    code = compile(text, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with contextlib.redirect_stdout(out):
        if code.co_flags & inspect.CO_COROUTINE:
            runner.run(_await(code, namespace))
        else:
            exec(code, namespace)  # noqa: S102 - the documentation's own code
    return out.getvalue()


async def _await(code: Any, namespace: dict[str, Any]) -> None:
    await eval(code, namespace)  # noqa: S307 - the documentation's own code


def _command(line: str, running: list[subprocess.Popen[bytes]]) -> str:
    # A shell, because the page shows what a reader types into one.
    if line.endswith("&"):
        # In the group of this process, which whoever set it a limit ends as a whole.
        running.append(subprocess.Popen(["bash", "-c", f"exec {line[:-1]}"], stdout=sys.stderr.fileno()))
        return ""
    done = subprocess.run(["bash", "-c", line], stdout=subprocess.PIPE, check=False, text=True, timeout=120)
    return done.stdout


if __name__ == "__main__":
    main()
