"""The keys by which a node says what its code is, and what it may use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from flowkit.core.code import (
    ADDRESS_RULE,
    LEVELS,
    LONGEST_SOURCE,
    MOST_MEMORY_MB,
    REQUIREMENT_RULE,
    RESULTS,
    RUNTIMES,
    SECRET_RULE,
    TIMES_RULE,
)
from flowkit.core.graph import MISSING
from flowkit.core.kinds import Choice, Door, Key, ListOf, Number, Record, Text
from flowkit.core.problems import LONGEST_NAME, Place, shown

MOST_ENTRIES: Final = 200
MOST_SECRETS: Final = 64
LONGEST_PATH: Final = 1_000
REQUIREMENT: Final = Text(
    256, REQUIREMENT_RULE, "a package, such as 'requests>=2.31,<3' (no address, no option)", "E_CODE"
)
ADDRESS: Final = Text(261, ADDRESS_RULE, "an address such as 'api.example.com:443'", "E_CODE")
SECRET: Final = Text(
    LONGEST_NAME + 10, SECRET_RULE, "a secret's name, such as 'DB_PASSWORD' or 'DB_PASSWORD@2'", "E_SECRET"
)
MEMORY: Final = Number(16, MOST_MEMORY_MB, whole=True)
SECONDS: Final = Number(0, 1e9, above=True)
CPU: Final = Number(0, 1024, above=True)
PIDS: Final = Number(1, 32_768, whole=True)
DISK: Final = Number(1, MOST_MEMORY_MB, whole=True)


@dataclass(frozen=True, slots=True)
class FewOf:
    """A list that is not long, without what could not be read."""

    items: ListOf
    most: int = MOST_ENTRIES

    def read(self, value: object, place: Place, door: Door) -> Any:
        if isinstance(value, list | tuple) and len(value) > self.most:
            door.problems.add("E_VALUE", place, f"found {len(value)} entries; at most {self.most} are read")
            return MISSING
        read = self.items.read(value, place, door)
        return read if read is MISSING else [item for item in read if item is not MISSING]

    def schema(self) -> dict[str, Any]:
        return {**self.items.schema(), "maxItems": self.most}


@dataclass(frozen=True, slots=True)
class NetworkKind:
    """`"none"`, or the addresses that may be reached."""

    def read(self, value: object, place: Place, door: Door) -> Any:
        if isinstance(value, list | tuple):
            return ADDRESSES.read(value, place, door)
        if value == "none":
            return "none"
        say = f'expected "none" or a list such as ["api.example.com:443"], found {shown(value)}'
        door.problems.add("E_CHOICE" if isinstance(value, str) else "E_TYPE", place, say)
        return MISSING

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"const": "none"}, ADDRESSES.schema()]}


ADDRESSES: Final = FewOf(ListOf(ADDRESS, "a list of addresses"))
SECRETS: Final = FewOf(ListOf(SECRET, "a list of secrets' names"), MOST_SECRETS)

CODE: Final = Record("code", "`code`", {
    "runtime": Key(Choice(RUNTIMES), "The language (default `python`)."),
    "source": Key(Text(LONGEST_SOURCE, says="the code's text"), "It defines `main(inputs)`, or uses the SDK."),
    "file": Key(Text(LONGEST_PATH, says="a path"), "Instead of `source`: a file in the worker's folder for code."),
    "result": Key(Choice(RESULTS), "What its output is: `output` (default), or `whole`: `{nodes, outputs, message}`."),
    "requirements": Key(FewOf(ListOf(REQUIREMENT, "a list of packages")), "Python packages that the code imports."),
})  # fmt: skip

SANDBOX: Final = Record("sandbox", "`sandbox`", {
    "level": Key(Choice(LEVELS), "How far it must be shut in at least; without it, as far as its worker can."),
    "memory_mb": Key(MEMORY, "Memory in MiB (default 256)."),
    "cpu": Key(CPU, "Cores (default 1)."),
    "pids": Key(PIDS, "Processes and threads at a time (default 64)."),
    "disk_mb": Key(DISK, "Disk space in MiB (default 64)."),
    "wall_sec": Key(SECONDS, "Seconds that it may take (default 300)."),
    "cpu_sec": Key(SECONDS, "Seconds of CPU time that it may use (default 300)."),
    "network": Key(NetworkKind(), 'What it may reach: "none" (default), or ["host:port", ...].'),
})  # fmt: skip

ON_OOM: Final = Record("on_oom", "`on_oom`", {
    "memory": Key(Text(9, TIMES_RULE, 'how many times as much, such as "*2"', "E_CODE"),
                  'How much more the next attempt has (default "*2").'),
    "max_mb": Key(MEMORY, "The most, in MiB; out of that, it fails for good.", required=True),
})  # fmt: skip

PATTERN_RULE: Final = re.compile(r"[A-Za-z0-9_.:*?-]{1,261}")
PATTERN: Final = Text(
    261, PATTERN_RULE, "a name or a pattern such as 'api.example.com:443', '*.example.com:*' or 'DB_*'"
)
PATTERNS: Final = FewOf(ListOf(PATTERN, "a list of names or patterns"))


@dataclass(frozen=True, slots=True)
class Allowing:
    """A list of patterns; `"none"`, or an empty list: nothing."""

    def read(self, value: object, place: Place, door: Door) -> Any:
        return "none" if value == "none" else PATTERNS.read(value, place, door)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"const": "none"}, PATTERNS.schema()]}


ON_LEAK: Final = Choice(("cover", "fail"))

POLICY: Final = Record("policy", "a policy", {
    "level": Key(Choice(LEVELS), "How far code must be shut in at least."),
    "memory_mb": Key(MEMORY, "The most memory in MiB that it may ask for."),
    "cpu": Key(CPU, "The most cores."),
    "pids": Key(PIDS, "The most processes and threads at a time."),
    "disk_mb": Key(DISK, "The most disk space in MiB."),
    "wall_sec": Key(SECONDS, "The most seconds that it may take."),
    "cpu_sec": Key(SECONDS, "The most seconds of CPU time."),
    "network": Key(Allowing(), 'What it may reach at most: "none", or patterns of host:port.'),
    "secrets": Key(Allowing(), 'Which secrets it may list: "none", or patterns of names.'),
    "on_leak": Key(ON_LEAK, "`fail`: an output that holds a secret fails its attempt."),
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class OwnPolicy:
    """A policy, or a list of some, which hold together."""

    def read(self, value: object, place: Place, door: Door) -> Any:
        if not isinstance(value, list | tuple):
            return POLICY.read(value, place, door)
        return FewOf(ListOf(POLICY, "a list of policies"), 100).read(value, place, door)

    def schema(self) -> dict[str, Any]:
        one = POLICY.schema()
        return {"anyOf": [one, {"type": "array", "items": one, "maxItems": 100}]}


CODE_KEYS: Final = {
    "code": Key(CODE, "The code that a node of type `code` runs."),
    "sandbox": Key(SANDBOX, "What code may use, and how far it is shut in."),
    "secrets": Key(SECRETS, "Names of the secrets that code may look up, or that a handler's inputs name."),
    "on_oom": Key(ON_OOM, "Tries code that ran out of memory again with more."),
    "on_leak": Key(ON_LEAK, "What an output comes to that holds a secret: `cover` (default), or `fail`."),
}
