"""Reads the pages of the documentation: what is to be run, and what it is said to print.

A fence is run in the order of the page:

- ```python, in one namespace per page, with `await` allowed at the top level;
- ```console, its lines that begin with `$ `, in the page's folder; `&` at the end leaves a command running;
- after `<!-- file: NAME -->` it is written to the page's folder instead.

`<!-- needs: kafka mongo -->` before it asks for the services, `<!-- not run: reason -->` leaves it out. The ports that
a page names in `<!-- ports: 18000 18500 -->` are others where it is run: free ones. What it prints is told by
`# -> value` comments, by a ```text fence right behind it, or in the console itself; `...` stands for anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

FENCE = re.compile(r"^(```+)(\w*)[^\n]*\n(.*?)^\1[ ]*$", re.MULTILINE | re.DOTALL)
PORTS = re.compile(r"<!-- ports: ([\d ]+) -->")
NOTE = re.compile(r"<!-- (file|needs|not run): (.*?) -->")
ARROW = re.compile(r"# -> ?(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """One fence to be run. `kind` is `python`, `console` or `file`; `prints` is None where nothing is said about it."""

    kind: str
    line: int
    text: str
    prints: str | None
    file: str = ""
    needs: frozenset[str] = frozenset()


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def steps_of(page: Path) -> list[Step]:
    """What a page has to be run, in order. Raises `ValueError` for a fence that is neither run nor said not to be."""
    source = page.read_text()
    fences = list(FENCE.finditer(source))
    steps = []
    for number, fence in enumerate(fences):
        before = source[fences[number - 1].end() if number else 0 : fence.start()]
        notes = dict(NOTE.findall(before.rpartition("\n\n")[2] if "\n\n" in before else before))
        kind, text = fence[2], fence[3]
        if kind not in ("python", "console") and "file" not in notes:
            continue
        if "not run" in notes:
            continue
        line = source.count("\n", 0, fence.start()) + 2
        if "file" in notes:
            steps.append(Step("file", line, text, None, file=notes["file"]))
            continue
        follower = fences[number + 1] if number + 1 < len(fences) else None
        told = _told(kind, text, source[fence.end() : follower.start()] if follower else "", follower)
        steps.append(Step(kind, line, text, told, needs=frozenset(notes.get("needs", "").split())))
    return steps


def ports_of(page: Path) -> list[str]:
    """The ports on which a page's commands listen."""
    return [port for found in PORTS.finditer(page.read_text()) for port in found[1].split()]


def on_ports(steps: list[Step], others: Mapping[str, int]) -> list[Step]:
    """The same with other ports in the place of these."""
    if not others:
        return steps
    named = re.compile(rf"\b({'|'.join(others)})\b")

    def moved(text: str) -> str:
        return named.sub(lambda found: str(others[found[1]]), text)

    return [
        replace(step, text=moved(step.text), prints=None if step.prints is None else moved(step.prints))
        for step in steps
    ]


def needs_of(page: Path) -> frozenset[str]:
    return frozenset().union(*(step.needs for step in steps_of(page)))


def agrees(told: str, printed: str) -> bool:
    """Whether what was printed is what the page tells; `...` in the page stands for anything."""
    pattern = ".*".join(re.escape(part) for part in _tidy(told).split("..."))
    return re.fullmatch(pattern, _tidy(printed), re.DOTALL) is not None


def _told(kind: str, text: str, between: str, follower: re.Match[str] | None) -> str | None:
    if kind == "console":
        return "\n".join(line for line in text.splitlines() if not line.startswith("$ "))
    if arrows := ARROW.findall(text):
        return "\n".join(arrows)
    if follower is not None and follower[2] == "text" and not between.strip():
        return follower[3]
    return ""


def _tidy(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
