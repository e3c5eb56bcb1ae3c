"""What the doctor finds, and the checks that need no service: Python, packages."""

from __future__ import annotations

import platform
import re
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from flowkit import __version__

DISTRIBUTION = "flowkit-engine"
PYTHON, SQLITE = (3, 11), (3, 37, 0)
OF_THE_CLUSTER = ("aiokafka", "pymongo")
REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)\s*([^;]*)")


@dataclass(frozen=True, slots=True)
class Finding:
    """`level` is `ok`, `warn` or `FAIL`; `hint` says what to do about it."""

    level: str
    subject: str
    message: str
    hint: str = ""


def ok(subject: str, message: str) -> Finding:
    return Finding("ok", subject, message)


def warn(subject: str, message: str, hint: str = "") -> Finding:
    return Finding("warn", subject, message, hint)


def fail(subject: str, message: str, hint: str = "") -> Finding:
    return Finding("FAIL", subject, message, hint)


def contents_of(about: Mapping[str, Any]) -> str:
    """How much there is in a store, as it describes itself."""
    said = f"{about['tasks']} tasks, {about['commits']} commits"
    return said + (f", {about['deleted']} of the tasks deleted and not yet removed" if about["deleted"] else "")


def of_python(*, cluster: bool) -> Iterator[Finding]:
    """The interpreter and the packages; `cluster` says whether Kafka's and MongoDB's drivers are needed."""
    where = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < PYTHON:
        yield fail("python", where, "FlowKit needs Python 3.11 or newer")
    else:
        yield ok("python", f"{where}, FlowKit {__version__}")
    yield from of_packages(cluster=cluster)
    if sqlite3.sqlite_version_info < SQLITE:
        level = warn if cluster else fail
        yield level("sqlite", f"SQLite {sqlite3.sqlite_version}", "files need 3.37 or newer: use a newer Python")
    else:
        yield ok("sqlite", f"SQLite {sqlite3.sqlite_version}")


def of_packages(*, cluster: bool) -> Iterator[Finding]:
    found = []
    for name, wanted in requirements(cluster=cluster):
        try:
            there = version(name)
        except PackageNotFoundError:
            extra = "[cluster]" if name in OF_THE_CLUSTER else ""
            yield fail("packages", f"{name} is not installed", f"pip install '{DISTRIBUTION}{extra}'")
            continue
        found.append(f"{name} {there}")
        if not fits(there, wanted):
            yield warn("packages", f"{name} {there} is not {wanted}", f"pip install '{name}{wanted}'")
    yield ok("packages", ", ".join(found))


def requirements(*, cluster: bool) -> list[tuple[str, str]]:
    """The packages that FlowKit's own metadata asks for, with their ranges."""
    try:
        lines = requires(DISTRIBUTION) or []
    except PackageNotFoundError:
        lines = ["msgspec", "pydantic", "rich", *(f'{name}; extra == "x"' for name in OF_THE_CLUSTER)]
    found = {}
    for line in lines:
        matched = REQUIREMENT.match(line)
        base = "extra ==" not in line
        if matched and (base or (cluster and matched[1] in OF_THE_CLUSTER)):
            found[matched[1]] = matched[2].strip()
    return list(found.items())


def fits(there: str, wanted: str) -> bool:
    """Whether a version is in a range of `>=` and `<` parts; what else a range may say is taken for true."""
    have = numbers(there)
    for part in filter(None, (part.strip() for part in wanted.split(","))):
        if part.startswith(">=") and have < numbers(part[2:]):
            return False
        if part.startswith("<") and not part.startswith("<=") and have >= numbers(part[1:]):
            return False
    return True


def numbers(text: str) -> tuple[int, ...]:
    found = [int(part) for part in re.findall(r"\d+", text)[:3]]
    return tuple(found + [0] * (3 - len(found)))
