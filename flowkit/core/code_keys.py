"""The keys by which a node says what its code is, and what it may use."""

from __future__ import annotations

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
    "cpu": Key(Number(0, 1024, above=True), "Cores (default 1)."),
    "pids": Key(Number(1, 32_768, whole=True), "Processes and threads at a time (default 64)."),
    "disk_mb": Key(Number(1, MOST_MEMORY_MB, whole=True), "Disk space in MiB (default 64)."),
    "wall_sec": Key(SECONDS, "Seconds that it may take (default 300)."),
    "cpu_sec": Key(SECONDS, "Seconds of CPU time that it may use (default 300)."),
    "network": Key(NetworkKind(), 'What it may reach: "none" (default), or ["host:port", ...].'),
})  # fmt: skip

ON_OOM: Final = Record("on_oom", "`on_oom`", {
    "memory": Key(Text(9, TIMES_RULE, 'how many times as much, such as "*2"', "E_CODE"),
                  'How much more the next attempt has (default "*2").'),
    "max_mb": Key(MEMORY, "The most, in MiB; out of that, it fails for good.", required=True),
})  # fmt: skip

CODE_KEYS: Final = {
    "code": Key(CODE, "The code that a node of type `code` runs."),
    "sandbox": Key(SANDBOX, "What code may use, and how far it is shut in."),
    "secrets": Key(SECRETS, "Names of the secrets that code may look up."),
    "on_oom": Key(ON_OOM, "Tries code that ran out of memory again with more."),
}
