"""Nodes of type `code`: the user's own program, what it may use, and how that is written. Code is data here: it is
carried, never run. And the secrets of nodes, whose handlers may have some too."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from flowkit.core.problems import Place, Problems, shown, written

CODE: Final = "code"
OOM: Final = "oom"
"""The error code of an attempt that ran out of memory, and the name of what its retries are counted under."""
LEVELS: Final = ("L1", "L2", "L3")
RUNTIMES: Final = ("python", "node", "bash")
WHOLE: Final = "whole"
RESULTS: Final = ("output", WHOLE)
ONLY_CODE: Final = ("code", "sandbox", "on_oom")
OF_SECRETS: Final = ("secrets", "on_leak")
BUILT_IN: Final = frozenset({"sleep", "signal", "task", "end", "coordinator_fn"})
"""Types of nodes that neither a program nor a handler runs."""
MEMORY_MB: Final = 256
LONGEST_SOURCE: Final = 1_000_000
MOST_MEMORY_MB: Final = 1_048_576
LEVEL_LABEL: Final = "flowkit.sandbox"
RUNTIME_LABEL: Final = "flowkit.runtime."
"""Labels that workers with the role `code` have of themselves: how far they shut programs in, and for which languages
beside Python they have an interpreter."""
SECRETS_LABEL: Final = "flowkit.secrets"
"""The label of workers that know where the secrets of handlers come from."""

PLACEHOLDER: Final = re.compile(r"\{\{\{secret::([^{}\n]{1,200})\}\}\}")
SECRET_RULE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}(@[1-9][0-9]{0,8})?")
REQUIREMENT_RULE: Final = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(\[[A-Za-z0-9._, -]+\])?"
    r" *((===|==|>=|<=|~=|!=|<|>) *[A-Za-z0-9.*+!_-]+( *, *(===|==|>=|<=|~=|!=|<|>) *[A-Za-z0-9.*+!_-]+)*)?"
)
ADDRESS_RULE: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?:[1-9][0-9]{0,4}")
TIMES_RULE: Final = re.compile(r"\*[0-9]{1,3}(\.[0-9]{1,3})?")


@dataclass(frozen=True, slots=True)
class Code:
    """What a node of type `code` runs: `source`, or the text of `file` in the worker's folder for code. `limits` are
    those of its `sandbox` that are said, beside its memory, of which `memory_given` tells. With `result` "whole" its
    output is all that it gave, and it chooses among no successors. `network` are the addresses that it may reach. Out
    of memory, it is tried again with `times` as much, up to `most_mb`; 0: it is tried again like after any failure.
    `on_leak` is what an output with a secret in it comes to: covered (empty), or a failure."""

    runtime: str = "python"
    source: str = ""
    file: str = ""
    result: str = "output"
    requirements: tuple[str, ...] = ()
    memory_mb: int = MEMORY_MB
    memory_given: bool = False
    limits: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    level: str = ""
    network: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    times: float = 0.0
    most_mb: int = 0
    on_leak: str = ""

    def memory_after(self, ooms: int) -> int:
        """The memory (MiB) of the attempt after so many that ran out of it."""
        memory = self.memory_mb
        for _ in range(ooms if self.times else 0):
            if memory >= self.most_mb:
                break
            memory = min(self.most_mb, max(memory + 1, int(memory * self.times)))
        return memory

    def job(self, ooms: int) -> dict[str, Any]:
        """What a worker is told of it for the attempt after so many out-of-memory ones; what is usual is not said."""
        memory = {"memory_mb": self.memory_after(ooms)} if self.memory_given or (ooms and self.times) else {}
        said = {
            "runtime": self.runtime,
            "limits": {**self.limits, **memory},
            "source": self.source,
            "file": self.file,
            "result": self.result if self.result == WHOLE else "",
            "requirements": list(self.requirements),
            "level": self.level,
            "network": list(self.network),
            "secrets": list(self.secrets),
            "on_leak": self.on_leak,
        }
        return {name: value for name, value in said.items() if value or name == "limits"}


def of(fields: Mapping[str, Any]) -> Code:
    """The code that a node's fields describe."""
    code, sandbox = _own(fields["code"]), _own(fields.get("sandbox", {}))
    network = sandbox.pop("network", "none")
    said: dict[str, Any] = {
        "memory_given": "memory_mb" in sandbox,
        "memory_mb": sandbox.pop("memory_mb", MEMORY_MB),
        "level": sandbox.pop("level", ""),
        "limits": MappingProxyType(sandbox),
        "network": () if network == "none" else tuple(network),
        "secrets": tuple(fields.get("secrets", ())),
        "requirements": tuple(sorted(set(code.pop("requirements", ())))),
        "on_leak": fields.get("on_leak", ""),
    }
    if "on_oom" in fields:
        on_oom = fields["on_oom"]
        said |= {"times": float(on_oom.get("memory", "*2")[1:]), "most_mb": on_oom["max_mb"]}
    return Code(**code, **said)


def labels_of(fields: Mapping[str, Any]) -> dict[str, str | Sequence[str]]:
    """The labels that a worker must have to run a node with these fields: its code, or with its secrets."""
    labels: dict[str, str | Sequence[str]] = {}
    if fields.get("type") != CODE:
        return {SECRETS_LABEL: "yes"} if fields.get("secrets") else labels
    if level := fields.get("sandbox", {}).get("level"):
        labels[LEVEL_LABEL] = LEVELS[LEVELS.index(level) :]
    if (runtime := fields.get("code", {}).get("runtime", "python")) != "python":
        labels[f"{RUNTIME_LABEL}{runtime}"] = "yes"
    return labels


# ---------------------------------------------------------------------------------------------- what is wrong


def check(fields: Mapping[str, Any], place: Place, problems: Problems) -> None:
    """Report what a node says of its code against itself."""
    if fields.get("type") != CODE:
        for name in ONLY_CODE:
            if name in fields:
                problems.add("E_KEY_CONFLICT", (place, name), f'`{name}` belongs to a node of type "code"')
        if fields.get("type") in BUILT_IN:
            _check_no_secrets(fields, place, problems)
        else:
            _check_secrets(fields, place, problems)
            _check_each_is_used(fields, place, problems)
        return
    if "code" not in fields:
        say = 'a node of type "code" needs `code`, such as {"runtime": "python", "source": "def main(inputs): ..."}'
        problems.add("E_KEY_MISSING", (place, "code"), say)
    _check_code(fields.get("code", {}), (place, "code"), problems)
    _check_memory(fields, place, problems)
    _check_secrets(fields, place, problems)


def _check_code(code: Mapping[str, Any], place: Place, problems: Problems) -> None:
    if code and ("source" in code) == ("file" in code):
        say = "code has either `source`, its text, or `file`, a path in the worker's folder for code"
        problems.add("E_CODE", place, say)
    file = code.get("file", "")
    if file.startswith("/") or ".." in file.split("/") or "\\" in file or "\0" in file:
        say = f"found {shown(file)}; write a path inside the worker's folder for code, such as 'steps/clean.py'"
        problems.add("E_CODE", (place, "file"), say)
    if "requirements" in code and code.get("runtime", "python") != "python":
        say = "requirements are Python packages; code of another runtime has what its machine has"
        problems.add("E_KEY_CONFLICT", (place, "requirements"), say)


def _check_memory(fields: Mapping[str, Any], place: Place, problems: Problems) -> None:
    on_oom = fields.get("on_oom", {})
    memory = fields.get("sandbox", {}).get("memory_mb", MEMORY_MB)
    if "max_mb" in on_oom and on_oom["max_mb"] <= memory:
        say = f"the first attempt has {memory} MiB already; raise `max_mb`, or leave `on_oom` out"
        problems.add("E_CODE", ((place, "on_oom"), "max_mb"), say)
    if "memory" in on_oom and not float(on_oom["memory"][1:]) > 1:
        problems.add("E_CODE", ((place, "on_oom"), "memory"), 'more memory is more than once as much; write "*2"')


def _check_secrets(fields: Mapping[str, Any], place: Place, problems: Problems) -> None:
    named = fields.get("secrets", ())
    inputs = fields.get("inputs")
    for name in sorted(inputs.secrets if inputs is not None else ()):
        if name not in named:
            problems.add("E_SECRET", (place, "inputs"), _undeclared(name, named, problems))
    source = fields.get("code", {}).get("source", "")
    for name in dict.fromkeys(PLACEHOLDER.findall(source)):
        if not SECRET_RULE.fullmatch(name):
            say = f"{shown(name)} is no secret's name: letters, digits and `_ . -`, perhaps `@` and a version"
            problems.add("E_SECRET", ((place, "code"), "source"), say)
        elif name not in named:
            problems.add("E_SECRET", ((place, "code"), "source"), _undeclared(name, named, problems))


def _undeclared(name: str, named: Sequence[str], problems: Problems) -> str:
    hint = problems.suggest(name, named)
    return f"it uses the secret {shown(name)}, which `secrets` does not name{hint}; a node says what it may look up"


def _check_each_is_used(fields: Mapping[str, Any], place: Place, problems: Problems) -> None:
    """A handler has no other way to a secret than its inputs."""
    inputs = fields.get("inputs")
    used = inputs.secrets if inputs is not None else frozenset()
    for number, name in enumerate(fields.get("secrets", ())):
        if name not in used:
            say = (
                f'no `$secret` of its inputs names {shown(name)}: write {{"$secret": {written(name)}}} where it belongs'
            )
            problems.add("E_SECRET", ((place, "secrets"), number), say)


def _check_no_secrets(fields: Mapping[str, Any], place: Place, problems: Problems) -> None:
    inputs = fields.get("inputs")
    if inputs is not None and inputs.secrets:
        say = (
            "`$secret` is for what programs and handlers are given: elsewhere its value would be stored and sent about"
        )
        problems.add("E_TEMPLATE", (place, "inputs"), say)
    for name in OF_SECRETS:
        if name in fields:
            say = f"`{name}` belongs to a node that a program or a handler runs"
            problems.add("E_KEY_CONFLICT", (place, name), say)


def check_elsewhere(templates: Mapping[Place, Any], problems: Problems) -> None:
    """Report secrets in templates that are not the inputs of a node."""
    for place, template in templates.items():
        if template is not None and template.secrets:
            say = "`$secret` is for the `inputs` of a node that a program or a handler runs"
            problems.add("E_TEMPLATE", place, say)


def _own(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if not name.startswith("x-")}
