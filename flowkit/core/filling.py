"""Fills the holes of a template, for every attempt anew."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, Final

from flowkit.core.graph import MISSING, Missing
from flowkit.core.payload import PLAIN, Artifact, SecretHole
from flowkit.core.problems import LONGEST_NAME, Place, render, shown
from flowkit.core.template import (
    COMPANY,
    DEFAULT,
    EXPR,
    FORMS,
    FROM,
    LITERAL,
    PARAM,
    PATHS,
    SECRET,
    STREAM,
    Path,
    parse_param,
    parse_path,
    split_reference,
)
from flowkit.core.values import MAX_DEPTH
from flowkit.errors import ExprError, InputError, did_you_mean

NOUNS: Final[Mapping[type, str]] = {
    str: "a string", int: "a number", float: "a number", bool: "a boolean", Artifact: "an artifact",
}  # fmt: skip


def nothing_there(name: str) -> Any:
    """The root of a place that has none."""
    return MISSING


def resolve(template: Any, *, params: Any, output_of: Callable[[str], Any], known: Container[str],
            roots: Callable[[str], Any] = nothing_there, evaluate: Callable[[str], Any] = nothing_there,
            holds: Callable[[Artifact], bool] = bool, place: str = "inputs") -> Any:  # fmt: skip
    """The template with its holes filled; a template without any is returned as it is.

    `output_of(node_id)` gives an output or MISSING; it is asked for the longest id among `known` that a
    reference begins with. `roots` gives `item`, `index`, `previous` and `vars`, or MISSING; `evaluate` what an
    expression says. A path into an `Artifact` gives an `Artifact` of that path; where there is a default, `holds` says
    whether it leads to anything. Raises `InputError` for a value that is not there and has no default, and what
    `evaluate` and `holds` raise.
    """
    return _Resolver(params, output_of, known, roots, evaluate, holds).value(template, place, 1)


def unescape(template: Any) -> Any:
    """A constant template without its `$literal`s; one that has none is returned as it is."""
    if type(template) is dict and FORMS.isdisjoint(template) and PLAIN.issuperset(map(type, template.values())):
        return template  # that of nearly every node
    return _Resolver(None, nothing_there, ()).value(template, "inputs", 1)


class _Resolver:
    def __init__(self, params: Any, output_of: Callable[[str], Any], known: Container[str],
                 roots: Callable[[str], Any] = nothing_there, evaluate: Callable[[str], Any] = nothing_there,
                 holds: Callable[[Artifact], bool] = bool) -> None:  # fmt: skip
        self._params = params
        self._output_of = output_of
        self._known = known
        self._roots = roots
        self._evaluate = evaluate
        self._holds = holds

    def value(self, template: Any, place: Place, depth: int) -> Any:
        if not isinstance(template, dict | list):
            return template
        if depth > MAX_DEPTH + 1:
            raise InputError(f"{render(place)}: nested more than {MAX_DEPTH} deep")
        if isinstance(template, list):
            items = [self.value(item, (place, number), depth + 1) for number, item in enumerate(template)]
            return template if all(map(_same, items, template)) else items
        if not FORMS.isdisjoint(template):
            return self._form(template, place)
        fields = {key: self.value(item, (place, key), depth + 1) for key, item in template.items()}
        return template if all(map(_same, fields.values(), template.values())) else fields

    def _form(self, form: dict[str, Any], place: Place) -> Any:
        if LITERAL in form:
            return form[LITERAL]
        if STREAM in form:
            return None  # the worker puts the stream there
        if SECRET in form:
            return SecretHole(str(form[SECRET]))
        name = next((key for key in form if key != DEFAULT), "")
        if name not in COMPANY or not isinstance(form[name], str):
            raise InputError(f"{render(place)}: no template that this release knows")
        match name:
            case "$expr":
                try:
                    return self._evaluate(form[EXPR])
                except ExprError as error:
                    raise error.at(render((place, name))) from None
            case "$from":
                value, explain = self._from(form[FROM])
            case "$param":
                value, explain = self._param(form[PARAM])
            case "$index":
                value, explain = self._roots("index"), lambda: "there is no item here"
            case _:
                value, explain = self._root(PATHS[name], form[name])
        if DEFAULT in form and isinstance(value, Artifact) and value.path and not self._holds(value):
            return form[DEFAULT]
        if value is not MISSING:
            return value
        if DEFAULT in form:
            return form[DEFAULT]
        raise InputError(f"{render((place, name))}: {explain()}")

    def _from(self, text: str) -> tuple[Any, Callable[[], str]]:
        split = split_reference(text, self._known)
        path = None if split is None else parse_path(split[1])
        if split is None or path is None:
            return MISSING, lambda: f"{shown(text)} names no node's output"
        output = self._output_of(split[0])
        if output is MISSING:
            return MISSING, lambda: f"{split[0]!r} has no output"
        return follow(output, path), lambda: f"the output of {split[0]!r} has {lack(output, path)}"

    def _root(self, root: str, text: str) -> tuple[Any, Callable[[], str]]:
        path, whole = parse_param(text), self._roots(root)
        if path is None or whole is MISSING:
            return MISSING, lambda: f"there is no {root} here"
        return follow(whole, path), lambda: f"{root} has {lack(whole, path)}"

    def _param(self, text: str) -> tuple[Any, Callable[[], str]]:
        path = parse_param(text)
        if path is None:
            return MISSING, lambda: f"{shown(text)} is no path into the params"
        params = {} if self._params is None else self._params
        return follow(params, path), lambda: f"the task's params have {lack(params, path)}"


def follow(value: Any, path: Iterable[str | int]) -> Any | Missing:
    """What `path` leads to inside `value`, or MISSING."""
    steps = tuple(path)
    for done, step in enumerate(steps):
        if isinstance(value, Artifact):
            return value.at(steps[done:])
        value = _step(value, step)
        if value is MISSING:
            return MISSING
    return value


def lack(value: Any, path: Path) -> str:
    """Says which step of `path` is missing inside `value`, and what is there instead."""
    for done, step in enumerate(path):
        found = _step(value, step)
        if found is MISSING:
            where = f" in {render(_place(path[:done]))}" if done else ""
            return f"no {shown(step)}{where}; found {_describe(value, step)}"
        value = found
    return "it all"


def _step(value: Any, step: str | int) -> Any:
    if isinstance(step, str):
        return value.get(step, MISSING) if isinstance(value, dict) else MISSING
    return value[step] if isinstance(value, list | tuple) and step < len(value) else MISSING


def _describe(value: Any, step: str | int) -> str:
    if isinstance(value, dict):
        if isinstance(step, int):
            return "an object, which has names and no positions"
        names = sorted(key for key in value if isinstance(key, str) and len(key) <= LONGEST_NAME)[:200]
        listed = ", ".join(map(shown, names[:10])) + (", ..." if len(names) > 10 else "")
        return f"an object with {listed or 'nothing in it'}{did_you_mean(step, names)}"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}" + ("; write [0] for its first" if isinstance(step, str) else "")
    return "null" if value is None else NOUNS.get(type(value), f"a {type(value).__name__}")


def _place(path: Path) -> Place:
    place: Place = ""
    for step in path:
        place = (place, step)
    return place


def _same(new: object, old: object) -> bool:
    return new is old
