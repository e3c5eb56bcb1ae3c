"""Runs inside, as the program itself: asks for its inputs on the channel, runs the user's code, answers with a result.

A script of its own, with nothing but the standard library, and as little of that as it can do with: it is started for
every attempt. It always asks, and whoever started it only answers. No frame of it stands in a traceback.
"""

from __future__ import annotations

import _thread
import json
import os
import struct
import sys
from importlib.machinery import PathFinder

TYPE_CHECKING = False
if TYPE_CHECKING:  # without `typing`, which takes longer to load than all the rest
    import re
    from typing import Any

CHANNEL_FD = 3
PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BRIDGE = "flowkit_channel"
"""The name among `sys.modules` by which the SDK finds the channel."""
PLACEHOLDER = r"\{\{\{secret::([A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(?:@[1-9][0-9]{0,8})?)\}\}\}"
"""Compiled only where there is one: that takes as long as all else that happens before the code."""
PERMANENT = (TypeError, ValueError, KeyError, AssertionError, ImportError, SyntaxError)
MOST_DEPTH = 64
MOST_MESSAGE = MOST_TRACEBACK = 64 * 1024  # whoever reads it cuts it further, once secrets are covered
LAST_FRAMES = 40


class BadOutput(ValueError):
    """What the code gave back is no output."""


class SecretUnavailable(ValueError):
    """The code asked for a secret that it may not have."""


class Gone(BaseException):
    """Nobody is at the other end of the channel."""


class Channel:
    """`job` is what there is to do. Any thread may use it."""

    def __init__(self, fd: int = CHANNEL_FD) -> None:
        self._fd = fd
        self._lock = _thread.allocate_lock()
        self._secrets: dict[str, str] = {}
        self.done = False
        self.inputs: Any = None
        os.set_inheritable(fd, False)
        self.job = self.ask({"do": "start"})

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._write(message)
            return self._answer()

    def say(self, message: dict[str, Any]) -> None:
        with self._lock:
            self._write(message)

    def log(self, level: str, message: str) -> None:
        self.say({"do": "log", "level": level, "message": message})

    def progress(self, done: float | None = None, total: float | None = None, message: str = "") -> None:
        self.say({"do": "progress", "done": done, "total": total, "message": message})

    def cancelled(self) -> bool:
        return bool(self.ask({"do": "cancelled"}).get("value"))

    def secret(self, name: str) -> str:
        if name not in self._secrets:
            answer = self.ask({"do": "secret", "name": name})
            if "value" not in answer:
                raise SecretUnavailable(answer.get("error", f"there is no secret {name!r}"))
            self._secrets[name] = answer["value"]
        return self._secrets[name]

    def batch(self, output: Any) -> None:
        """Hand a batch on, once there is room for it. Raises `BadOutput` for what JSON cannot say."""
        data = self._said({"do": "batch", "output": plain(output, "batch", 1)})
        with self._lock:
            self._write_bytes(data)
            self._answer()

    def result(self, output: Any, next_nodes: Any = None, message: str = "") -> None:
        """Raises `BadOutput` for what JSON cannot say."""
        said: dict[str, Any] = {"do": "result", "message": str(message)}
        if next_nodes is not None:
            said["next"] = list(next_nodes)
        if isinstance(output, (bytes, bytearray)):
            import base64

            said["bytes"] = base64.b64encode(output).decode()
        else:
            said["output"] = plain(output, "output", 1)
        self._finish(said)

    def failed(self, error: BaseException) -> None:
        try:
            said = failure(error)
        except MemoryError:
            said = {"type": "MemoryError", "message": "", "traceback": ""}
        self._finish({"do": "failed", **said})

    def _finish(self, said: dict[str, Any]) -> None:
        if self.done:
            raise RuntimeError("the result was given before; a node gives one")
        data = self._said(said)
        self.done = True
        with self._lock:
            self._write_bytes(data)

    def _said(self, message: dict[str, Any]) -> bytes:
        try:
            data = json.dumps(message, separators=(",", ":"), allow_nan=False).encode()
        except (ValueError, RecursionError) as error:
            raise BadOutput(f"output: {error}") from None
        if len(data) > self.job["most_bytes"]:
            most = self.job["most_bytes"]
            raise BadOutput(f"the output has {len(data):,} bytes, at most {most:,} are allowed; keep it elsewhere")
        return data

    def _answer(self) -> dict[str, Any]:
        (length,) = struct.unpack(">I", self._read(4))
        answer: dict[str, Any] = json.loads(self._read(length))
        return answer

    def _write(self, message: dict[str, Any]) -> None:
        self._write_bytes(json.dumps(message, separators=(",", ":")).encode())

    def _write_bytes(self, data: bytes) -> None:
        left = memoryview(struct.pack(">I", len(data)) + data)
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except OSError:
            raise Gone from None

    def _read(self, count: int) -> bytes:
        parts: list[bytes] = []
        while count:
            part = os.read(self._fd, min(count, 1 << 20))
            if not part:
                raise Gone
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


class Sdk:
    """Finds the package `flowkit` beside this script and nothing else there, so that the code may import its SDK."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        return PathFinder.find_spec(name, [os.path.dirname(PACKAGE)]) if name == "flowkit" else None


# ---------------------------------------------------------------------------------------------- the user's code


def main() -> None:
    channel = Channel()
    job = channel.job
    at_home(job)
    # Made anew: where the interpreter ran already, they may have been made for something else.
    sys.stdout, sys.stderr = (
        open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        for fd in (1, 2)
    )
    sys.meta_path.append(Sdk)
    modules: dict[str, Any] = sys.modules
    modules[BRIDGE] = channel
    try:
        run(channel, job)
    except Gone:
        os._exit(1)
    except BaseException as error:
        if channel.done:
            if not isinstance(error, SystemExit):
                sys.stderr.write(failure(error)["traceback"])
        else:
            channel.failed(error)
    finish()


def rehearse() -> None:
    """Run a program that does nothing, of which nobody hears. A process that is forked for each attempt is made ready
    by it: the interpreter has found its names and made its shortcuts."""
    import linecache
    from _socket import socketpair

    kept = sys.argv, sys.modules["__main__"]
    for _ in range(10):
        near, far = socketpair()
        body = json.dumps({"file": "?", "source": "def main(inputs): pass", "inputs": None, "bytes": [], "path": [],
                           "most_bytes": 1024}).encode()  # fmt: skip
        near.send(struct.pack(">I", len(body)) + body)
        channel = Channel(far.fileno())
        run(channel, channel.job)
        near.close()
        far.close()
    sys.argv, sys.modules["__main__"] = kept
    linecache.cache.pop("?", None)


def at_home(job: dict[str, Any]) -> None:
    """What depends on where the program finds itself."""
    os.environ["HOME"] = os.environ["TMPDIR"] = os.getcwd()
    if job.get("traceparent"):  # where tools that trace look for the span that they are called in
        os.environ["TRACEPARENT"] = job["traceparent"]
    sys.path[:0] = job["path"]


def finish() -> None:
    """Threads that the code has left do not keep the program; what it has printed gets out."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue  # nobody reads it any more, or the code has closed it
    os._exit(0)


def run(channel: Channel, job: dict[str, Any]) -> None:
    name = job["file"]
    inputs = with_bytes(job["inputs"], job["bytes"])
    channel.inputs = inputs
    sys.argv = [name]
    module = type(sys)("__main__")
    space = module.__dict__
    space["__file__"] = name
    space["__flowkit_secret__"] = channel.secret
    sys.modules["__main__"] = module
    remember_lines(name, job["source"])
    exec(compiled(job["source"], name), space)  # noqa: S102 - this is what the sandbox is for
    main = space.get("main")
    if channel.done:
        return
    if not callable(main):
        raise BadOutput("the code ended without a result: define main(inputs), or run a flowkit.node.Node")
    value = call(main, inputs)
    if hasattr(value, "__next__") or hasattr(value, "__anext__"):
        value = hand_on(channel, value)
    if type(value).__name__ == "Next" and hasattr(value, "nodes") and hasattr(value, "output"):
        channel.result(value.output, value.nodes)
    else:
        channel.result(value)


def call(main: Any, inputs: Any) -> Any:
    code = getattr(main, "__code__", None)
    value = main() if code is not None and not code.co_argcount and not code.co_flags & 0x04 else main(inputs)
    if hasattr(value, "__await__"):
        import asyncio

        async def wait() -> Any:
            return await value

        value = asyncio.run(wait())
    return value


def hand_on(channel: Channel, batches: Any) -> Any:
    """Each value that a generator yields is a batch of the node's stream. The output is what it returns, or how many
    there were."""
    count = 0
    if hasattr(batches, "__next__"):
        while True:
            try:
                batch = next(batches)
            except StopIteration as stop:
                return {"batches": count} if stop.value is None else stop.value
            channel.batch(batch)
            count += 1
    import asyncio

    async def drain() -> int:
        count = 0
        async for batch in batches:
            channel.batch(batch)
            count += 1
        return count

    return {"batches": asyncio.run(drain())}


def with_bytes(inputs: Any, rows: Any) -> Any:
    """The inputs, with what JSON cannot say put where it belongs."""
    if not rows:
        return inputs
    import base64

    for place, text in rows:
        data = base64.b64decode(text)
        if not place:
            return data
        parent = inputs
        for step in place[:-1]:
            parent = parent[step]
        parent[place[-1]] = data
    return inputs


def remember_lines(name: str, source: str) -> None:
    """So that tracebacks show the lines of code that is in no file."""
    import linecache

    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)


def compiled(source: str, name: str) -> Any:
    """The code, in which a secret's placeholder is a lookup. Its value never becomes code."""
    if "{{{secret::" not in source:
        return compile(source, name, "exec", dont_inherit=True)
    import ast
    import re

    mark = "flowkit_placeholder_"
    while mark in source:
        mark += "x_"
    keys: list[str] = []

    def note(found: re.Match[str]) -> str:
        keys.append(found[1])
        return f"{mark}{len(keys) - 1}_"

    try:
        tree = ast.parse(re.sub(PLACEHOLDER, note, source), name)
    except SyntaxError as error:
        lines = source.splitlines()
        if error.lineno and error.lineno <= len(lines):
            error.text = lines[error.lineno - 1]
        raise error.with_traceback(None) from None
    tree = lookups(ast, mark, keys).visit(tree)
    for node in ast.walk(tree):
        for _, value in ast.iter_fields(node):
            if isinstance(value, str) and mark in value and not isinstance(node, ast.Constant):
                raise SyntaxError(f"{name}: a secret's placeholder may stand only where a value may")
    try:
        return compile(ast.fix_missing_locations(tree), name, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:  # in a pattern, say
        raise SyntaxError(f"{name}: a secret's placeholder may stand only where a value may: {error}") from None


def lookups(ast: Any, mark: str, keys: list[str]) -> Any:
    import re

    pattern = re.compile(re.escape(mark) + r"(\d+)_")

    def lookup(number: str) -> Any:
        name = ast.Name("__flowkit_secret__", ast.Load())
        return ast.Call(name, [ast.Constant(keys[int(number)])], [])

    def parts(text: str) -> list[Any]:
        """Of a text: what stands as it is, and what is looked up."""
        made: list[Any] = []
        for at, piece in enumerate(pattern.split(text)):
            if at % 2:
                made.append(ast.FormattedValue(lookup(piece), -1, None))
            elif piece:
                made.append(ast.Constant(piece))
        return made

    class Lookups(ast.NodeTransformer):  # type: ignore[misc]
        def visit_Expr(self, node: Any) -> Any:
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):  # a docstring, a remark
                node.value.value = pattern.sub(lambda found: f"{{{{{{secret::{keys[int(found[1])]}}}}}}}",
                                               node.value.value)  # fmt: skip
                return node
            return self.generic_visit(node)

        def visit_Name(self, node: Any) -> Any:
            found = pattern.fullmatch(node.id)
            return ast.copy_location(lookup(found[1]), node) if found and isinstance(node.ctx, ast.Load) else node

        def visit_Constant(self, node: Any) -> Any:
            if isinstance(node.value, bytes) and mark.encode() in node.value:
                text = ast.JoinedStr(parts(node.value.decode("latin-1")))
                encoded = ast.Call(ast.Attribute(text, "encode", ast.Load()), [], [])
                return ast.copy_location(encoded, node)
            if isinstance(node.value, str) and mark in node.value:
                return ast.copy_location(ast.JoinedStr(parts(node.value)), node)
            return node

        def visit_JoinedStr(self, node: Any) -> Any:
            values: list[Any] = []
            for value in node.values:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    values += parts(value.value)
                else:
                    values.append(self.visit(value))
            node.values = values
            return node

    return Lookups()


# ---------------------------------------------------------------------------------------------- what it says


def plain(value: Any, place: str, depth: int) -> Any:
    """A value as JSON can say it. Raises `BadOutput` with the place of what it cannot."""
    kind = type(value)
    if kind in (str, int, bool) or value is None:
        return value
    if depth > MOST_DEPTH:
        raise BadOutput(f"{place}: values are nested more than {MOST_DEPTH} deep; flatten them")
    if kind is float or isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise BadOutput(f"{place}: JSON has no {value}; use null or a string")
        return float(value)
    if isinstance(value, dict):
        return {key_of(key, place): plain(item, f"{place}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{place}[{at}]", depth + 1) for at, item in enumerate(value)]
    if isinstance(value, (str, int)):
        return str.__str__(value) if isinstance(value, str) else int(value)
    if hasattr(kind, "__dataclass_fields__"):
        return plain({name: getattr(value, name) for name in kind.__dataclass_fields__}, place, depth)
    if callable(getattr(value, "model_dump", None)):
        return plain(value.model_dump(mode="json"), place, depth + 1)
    raise BadOutput(f"{place}: JSON cannot say a Python {kind.__name__}; use strings, numbers, lists and objects")


def key_of(key: Any, place: str) -> str:
    if not isinstance(key, str):
        raise BadOutput(f"{place}: JSON keys are strings; found {key!r}")
    return str.__str__(key)


def failure(error: BaseException) -> dict[str, Any]:
    """What is said of an error: its type, its message, and the traceback as the user's own code sees it."""
    said: dict[str, Any] = {
        "type": type(error).__name__,
        "message": message_of(error),
        "traceback": "" if isinstance(error, (BadOutput, SecretUnavailable)) else traceback_of(error),
        "permanent": isinstance(error, PERMANENT),
    }
    if isinstance(error, BadOutput):
        said["code"] = "bad_output"
    elif isinstance(error, SecretUnavailable):
        said["code"] = "secret_unavailable"
    errors = sys.modules.get("flowkit.errors")
    if errors is not None and isinstance(error, (errors.Permanent, errors.Retry)):
        said |= {"code": str(error.code), "permanent": isinstance(error, errors.Permanent)}
        said["final"] = said["permanent"]
        said["retry_after"] = getattr(error, "after_sec", None)
    return said


def message_of(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"the code called sys.exit({error.code!r}) before it gave a result"[:MOST_MESSAGE]
    try:
        return str(error)[:MOST_MESSAGE]
    except Exception as trouble:
        return f"(its message cannot be read: {type(trouble).__name__})"


def traceback_of(error: BaseException) -> str:
    import traceback

    try:
        whole = traceback.TracebackException.from_exception(error, limit=-LAST_FRAMES)
        strip(traceback, whole, 0)
        text = "".join(whole.format())
    except Exception as trouble:  # an exception may break its own printing
        text = f"{type(error).__name__} (its traceback cannot be printed: {type(trouble).__name__})\n"
    return text if len(text) <= MOST_TRACEBACK else f"[...]{text[5 - MOST_TRACEBACK :]}"


def strip(traceback: Any, whole: Any, depth: int) -> None:
    ours = (
        PACKAGE + os.sep,
        os.path.join(os.path.dirname(traceback.__file__), "asyncio") + os.sep,
        "<frozen importlib",
    )
    kept = [frame for frame in whole.stack if not frame.filename.startswith(ours)]
    whole.stack = traceback.StackSummary.from_list(kept)
    if depth < 8:
        for inner in (whole.__cause__, whole.__context__, *(getattr(whole, "exceptions", None) or ())):
            if inner is not None:
                strip(traceback, inner, depth + 1)


if __name__ == "__main__":
    main()
