"""Programs that hold a canary and try to let it out, each by another channel; and some that only use it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

MARK = "[REDACTED]"
OWN_CHILD = "started-by-the-program"
STARTED = frozenset({OWN_CHILD, "sleep", "env", "/usr/bin/env", "echo", ""})
"""Argument 0 of what the programs here start with a canary among its arguments or variables (none: it has just ended).
The programs themselves, and all that FlowKit starts, are called otherwise."""

PYTHON = """
import asyncio, base64, html, json, os, subprocess, sys, time, urllib.parse, warnings
s = "{{{secret::CANARY}}}"
lines = s.splitlines()
"""
SDK = """
from flowkit.node import Node
from flowkit.log import Logger
node = Node()
log = Logger(node)
"""
SPAWN = f"""
def spawn(*words, **env):
    sleeper = ["{OWN_CHILD}", "-c", "sleep 0.5; env; echo \\"$@\\"", "x", *words]
    said = subprocess.run(sleeper, executable="/bin/bash", env=env, capture_output=True, text=True)
    print(said.stdout + said.stderr)
"""


@dataclass(frozen=True)
class Leak:
    """One way out. `where` is where a mark must stand instead of the canary: in the node's `output`, its `batches`, its
    `error`, or its `log` (`nowhere`: nothing is said); `shapes` are the canaries that are tried so."""

    name: str
    where: str
    source: str
    runtime: str = "python"
    shapes: Sequence[str] = ("token", "phrase", "lines", "long")
    more: dict[str, Any] = field(default_factory=dict)

    def node(self, key: str) -> dict[str, Any]:
        """The node that tries it with the secret of this name."""
        source = self.source.replace("CANARY", key)
        code = {"runtime": self.runtime, "source": source}
        inputs = {"inputs": {"held": [{"$secret": key}]}} if "inputs['held']" in source else {}
        retry = {"retry_policy": {"max": 1}}
        return {"node_id": "leak", "type": "code", "code": code, "secrets": [key], **inputs, **retry, **self.more}


def python(name: str, where: str, body: str, **more: Any) -> Leak:
    """A leak whose `body` is that of `main`."""
    head = PYTHON + (SDK if "log." in body or "node." in body else "") + (SPAWN if "spawn(" in body else "")
    main = "async def" if "await " in body else "def"
    indented = textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")
    return Leak(name, where, f"{head}\n{main} main(inputs):\n{indented}\n", **more)


def printed(name: str, expression: str, **more: Any) -> Leak:
    return python(name, "log", f"print({expression})", **more)


ENCODED = {
    "base64": "base64.b64encode(s.encode()).decode()",
    "base64, one byte on": "base64.b64encode(b'x' + s.encode()).decode()",
    "base64, two bytes on": "base64.b64encode(b'xy' + s.encode() + b'z').decode()",
    "URL-safe base64": "base64.urlsafe_b64encode(s.encode()).decode()",
    "hex": "s.encode().hex()",
    "hex in capitals": "s.encode().hex().upper()",
    "URL-quoted": "urllib.parse.quote(s, safe='')",
    "a form of a web page": "urllib.parse.urlencode({'key': s})",
    "URL-quoted throughout": "''.join(f'%{byte:02X}' for byte in s.encode())",
    "JSON": "json.dumps({'key': s})",
    "JSON within JSON": "json.dumps(json.dumps(s))",
    "JSON with all letters": "json.dumps(s, ensure_ascii=False)",
    "Python": "repr([s])",
    "Python's bytes": "s.encode()",
    "HTML": "html.escape(s)",
}

LEAKS: list[Leak] = [
    python("print", "log", "print('the key is', s)"),
    python("standard error", "log", "print(s, file=sys.stderr)"),
    *(printed(f"print as {name}", expression) for name, expression in ENCODED.items()),
    python("line by line", "log", "for line in lines: print(line.strip())", shapes=("lines",)),
    python("a part of a line at a time", "log", """
        for at in range(0, len(s.encode()), 7):
            os.write(1, s.encode()[at : at + 7])
            time.sleep(0.001)
        """),
    python("at the border of chunks", "log",
           "os.write(1, (b'.' * 1_023 + b'\\n') * 63 + b'.' * 1_019 + s.encode())"),
    python("every level of the log", "log", """
        for say in (log.debug, log.info, log.warning, log.error):
            await say(s)
        """),
    python("the context of a log line", "log", "await log.log_with_context('info', 'x', {'key': s, s: 1})"),
    python("a warning", "log", "warnings.warn(s)"),
    python("the output", "output", "return s"),
    python("deep in the output", "output", "return {'a': [{'b': [1, s, 'key=' + s]}]}"),
    python("a key of the output", "output", "return {s: 1, 'x' + s: {s: 2}}"),
    python("base64 in the output", "output", "return [base64.b64encode(b'ab' + s.encode()).decode()]"),
    python("bytes", "output", "return b'\\xff\\x00' + s.encode()"),
    python("an artifact", "output", "return ['x' * 100_000, s, 'y' * 100_000]"),
    python("an artifact of bytes", "output", "return b'\\xff' * 200_000 + s.encode() + b'\\xff' * 200_000"),
    python("a number", "output", "return [int(s), {'n': int(s)}]", shapes=("digits",)),
    python("what it was given", "output", "return inputs['held']"),
    python("batches of a stream", "batches", """
        for n in range(20):
            yield {"n": n, "key": s, s: n}
        yield s
        """),
    python("progress", "log", "node.progress(1, 2, s); print(s); time.sleep(2.5)", shapes=("token", "digits")),
    python("numbers of the progress", "log", "node.progress(int(s), int(s), 'x'); print(s); time.sleep(2.5)",
           shapes=("digits",)),
    python("the message of an exception", "error", "raise ValueError(f'cannot log in with {s}')"),
    python("the causes of an exception", "error", """
        try:
            raise KeyError(s)
        except KeyError as error:
            raise RuntimeError('no') from error
        """),
    python("the notes of an exception", "error", "error = OSError(5, s, s); error.add_note(s); raise error"),
    python("a group of exceptions", "error", "raise ExceptionGroup(s, [ValueError(s), TypeError(s)])"),
    python("an exception's name", "error", "raise type(s.replace('\\0', ''), (Exception,), {})('x')"),
    python("where an exception's name is cut", "error", "raise type('N' * 110 + s, (Exception,), {})('x')",
           shapes=("token", "phrase")),
    python("where a message is cut", "error", "raise ValueError('m' * 8_170 + s)", shapes=("token", "phrase")),
    python("where a traceback is cut", "error", "raise ValueError(s + 't' * 16_350)", shapes=("token", "phrase")),
    python("an assertion", "error", "assert s == 'x', s"),
    python("the code of an error", "error", "import flowkit; raise flowkit.Permanent(s[:100], s)", shapes=("token",)),
    python("a retry", "error", "import flowkit; raise flowkit.Retry(s, after_sec=0)"),
    python("the exit message", "error", "sys.exit(s)"),
    python("its last words", "error", """
        sys.stderr.write("fatal: " + s + "\\n")
        sys.stderr.flush()
        os.kill(os.getpid(), 9)
        """),
    python("a status without a word", "error", "print(s, file=sys.stderr, flush=True); os._exit(3)"),
    python("out of time", "log", "print(s, flush=True); time.sleep(60)", more={"timeout_sec": 1.5}),
    python("a next node", "error", "import flowkit; return flowkit.Next([s], {'a': s})"),
    python("files in its folder", "log", """
        name = s.replace("/", "_").replace("\\n", "_")[:80]
        for path in (name, "plain.txt", os.path.join(os.environ["TMPDIR"], "t"), "/dev/shm/x"):
            with open(path, "w") as file:
                file.write(s)
        print(os.listdir("."), open("plain.txt").read())
        """, shapes=("token", "phrase", "long")),
    python("its environment", "log", """
        os.environ["KEY"] = s
        print(dict(os.environ))
        print(subprocess.run(["/usr/bin/env"], capture_output=True, text=True).stdout)
        """),
    python("/proc", "log", """
        print(open("/proc/self/cmdline").read(), open("/proc/self/environ").read(), open("/proc/self/status").read())
        with open("/proc/self/mem", "rb") as memory:
            memory.seek(id(s))  # where it stands in its own memory
            sys.stdout.buffer.write(memory.read(200))
        """, shapes=("token",)),
    python("the arguments of another program", "log", "spawn(s)", shapes=("token", "phrase", "lines")),
    python("the variables of another program", "log", "spawn('x', KEY=s)", shapes=("token", "phrase", "lines")),
    python("another program in its place", "log", "os.execv('/bin/echo', ['echo', s])", shapes=("token", "phrase")),
    python("a frame of its own", "error", """
        import struct
        body = json.dumps({"do": s}).encode()
        os.write(3, struct.pack(">I", len(body)) + body)
        time.sleep(5)
        """, shapes=("token", "phrase")),
    python("a frame that is no frame", "nowhere", "os.write(3, s.encode()); time.sleep(5)", shapes=("token",)),
    Leak("the console", "log", """
        exports.main = async () => {
          const s = "{{{secret::CANARY}}}";
          console.log(s); console.error(s); console.log({ key: s }, Buffer.from(s).toString("base64"));
          flowkit.log.info(s); flowkit.progress(1, 2, s);
          return 1;
        };
        """, "node", more={"sandbox": {"memory_mb": 512}}),
    Leak("an error of Node.js", "error", """
        exports.main = () => { throw new TypeError("{{{secret::CANARY}}}"); };
        """, "node", more={"sandbox": {"memory_mb": 512}}),
    Leak("an output of Node.js", "output", """
        exports.main = () => ({ ["{{{secret::CANARY}}}"]: [flowkit.secret("CANARY")] });
        """, "node", more={"sandbox": {"memory_mb": 512}}),
    Leak("a script's trace", "log", """
        set -x
        s="{{{secret::CANARY}}}"
        echo "$s" | base64 -w 0
        echo "$s" >&2
        flowkit_log error "$s"
        flowkit_progress 1 2 "$s"
        flowkit_result 1
        """, "bash"),
    Leak("a command that is not found", "error", """
        "$(flowkit_secret CANARY)"
        exit 4
        """, "bash", shapes=("token",)),
]  # fmt: skip

EVERYDAY = frozenset({
    "print", "print as base64, two bytes on", "a part of a line at a time", "a key of the output", "an artifact",
    "batches of a stream", "where an exception's name is cut", "its last words", "a next node",
    "the arguments of another program", "a frame of its own", "numbers of the progress",
})  # fmt: skip
"""One of each kind."""
SPAWNS, SPAWNS_SHAPE = next((leak, leak.shapes[0]) for leak in LEAKS if "spawn(s)" in leak.source)

USES = (
    PYTHON
    + """
import hashlib
def main(inputs):
    return hashlib.sha256(s.encode() + inputs['held'][0].encode()).hexdigest()[:32]
"""
)


def user(key: str) -> dict[str, Any]:
    """A node that uses the secret, and says nothing of it but half a hash of it."""
    return Leak("uses it", "output", USES).node(key)


def trials(names: frozenset[str] | None = None) -> Iterator[tuple[Leak, str]]:
    """Each leak with the shapes of canaries in turn; with all of them, where no names are given."""
    for number, leak in enumerate(LEAKS):
        if names is None:
            yield from ((leak, shape) for shape in leak.shapes)
        elif leak.name in names:
            yield leak, leak.shapes[number % len(leak.shapes)]
