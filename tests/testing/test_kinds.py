"""Every kind of violation that the checks can report is put into words, and no other."""

from __future__ import annotations

import ast
from pathlib import Path

import flowkit.testing
from flowkit.testing.kinds import KINDS


def test_the_kinds_are_those_that_the_checks_report() -> None:
    folder = Path(flowkit.testing.__file__).parent
    reported = {kind for path in folder.glob("*.py") for kind in kinds_in(ast.parse(path.read_text()))}

    assert reported == set(KINDS)


def kinds_in(tree: ast.AST) -> set[str]:
    """First arguments of `say`, and the kinds that are noted elsewhere: under `unjust` and `bad`."""
    found: set[object] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="say"), args=[ast.Constant(value=kind), *_]):
                found.add(kind)
            case ast.Assign(
                targets=[ast.Subscript(value=ast.Attribute(attr="unjust"))], value=ast.Constant(value=kind)
            ):
                found.add(kind)
            case ast.Subscript(value=ast.Attribute(attr="bad"), slice=ast.Constant(value=kind)):
                found.add(kind)
    return {kind for kind in found if isinstance(kind, str)}
