"""Inputs with holes: `$from` reads a node's output, `$param` the params, `$var` a variable, `$item`, `$index` and
`$previous` what a group gives its members; `$expr` is computed, and `$literal` means what it says.

Read once at the door, where every reference must name a node; filled for every attempt (`filling`).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flowkit.core.code import SECRET_RULE
from flowkit.core.conditions import read_expression
from flowkit.core.expr import Expression
from flowkit.core.graph import Reference
from flowkit.core.problems import LONGEST_NAME, Place, Problems, shown, written
from flowkit.core.values import DECLINED, Copier
from flowkit.errors import nearest

FROM: Final = "$from"
PARAM: Final = "$param"
LITERAL: Final = "$literal"
STREAM: Final = "$stream"
ITEM: Final = "$item"
INDEX: Final = "$index"
PREVIOUS: Final = "$previous"
VAR: Final = "$var"
EXPR: Final = "$expr"
SECRET: Final = "$secret"  # noqa: S105 - a key of the dialect
DEFAULT: Final = "default"
COMPANY: Final[Mapping[str, frozenset[str]]] = {  # what may stand beside each
    FROM: frozenset({DEFAULT}),
    PARAM: frozenset({DEFAULT}),
    LITERAL: frozenset(),
    STREAM: frozenset(),
    ITEM: frozenset({DEFAULT}),
    INDEX: frozenset(),
    PREVIOUS: frozenset({DEFAULT}),
    VAR: frozenset({DEFAULT}),
    EXPR: frozenset(),
    SECRET: frozenset(),
}
PATHS: Final[Mapping[str, str]] = {ITEM: "item", PREVIOUS: "previous", VAR: "vars"}
EXPRESSION_ROOTS: Final = ("params", "nodes", "vars", "item", "index", "previous", "task")
FORMS: Final = frozenset(COMPANY)

LONGEST_REFERENCE: Final = 1024
STEP: Final = re.compile(r"\.([^.\[\]]+)|\[(0|[1-9][0-9]{0,8})\]")

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Template:
    """A copy of what the user wrote, whether nothing in it is replaced, its `$from`s and the nodes that its
    expressions name, which of `item`, `index` and `previous` it uses, and its `$stream`s: the input's name, or nothing
    where it is the whole, and the nodes; `secrets` are the names of those that it has."""

    value: Any
    constant: bool = True
    references: tuple[Reference, ...] = ()
    uses: frozenset[str] = frozenset()
    streams: tuple[tuple[str, tuple[str, ...]], ...] = ()
    secrets: frozenset[str] = frozenset()


def split_reference(text: str, known: Container[str]) -> tuple[str, str] | None:
    """The longest known node id that `text` begins with, and the rest; None if it begins with none."""
    if text in known:
        return text, ""
    for end in range(min(len(text) - 1, LONGEST_NAME), 0, -1):
        if text[end] in ".[" and text[:end] in known:
            return text[:end], text[end:]
    return None


def parse_path(text: str) -> Path | None:
    """The steps of `.field[0].other`; None if it is not written so."""
    path: list[str | int] = []
    at = 0
    while at < len(text):
        step = STEP.match(text, at)
        if step is None:
            return None
        path.append(step[1] if step[2] is None else int(step[2]))
        at = step.end()
    return tuple(path)


class TemplateReader:
    """Reads the templates of one graph whose nodes are `known`."""

    def __init__(self, known: Mapping[str, Any], problems: Problems) -> None:
        self.known = known
        self._problems = problems
        self._copier = Copier(problems, self._form, FORMS)
        self._literals = Copier(problems)
        self._defaults = Copier(problems, self._refuse_form, FORMS)
        self._constant = True
        self._found: dict[tuple[str, Path], Reference] = {}
        self._streams: dict[str, tuple[str, ...]] = {}
        self._uses: set[str] = set()
        self._secrets: set[str] = set()

    def read(self, template: object, place: Place) -> Template:
        self._constant = True
        if self._found:
            self._found = {}
        if self._streams:
            self._streams = {}
        value = self._copier.copy(template, place)
        if not (self._uses or self._streams or self._secrets):
            return Template(value, self._constant, tuple(self._found.values()))
        uses, self._uses = frozenset(self._uses), set()
        secrets, self._secrets = frozenset(self._secrets), set()
        streams = tuple(self._streams.items())
        return Template(value, self._constant, tuple(self._found.values()), uses, streams, secrets)

    def _form(self, value: dict[Any, Any], place: Place, depth: int) -> Any:
        if FORMS.isdisjoint(value):
            self._check_slip(value, place)
            return DECLINED
        name = next(name for name in value if name in FORMS)
        self._check_company(name, value, place)
        if name == LITERAL:
            return {LITERAL: self._literals.copy(value[LITERAL], (place, LITERAL), depth + 1)}

        self._constant = False
        if name == STREAM:
            return {STREAM: self._stream(value[STREAM], place, depth)}
        if name == INDEX:
            self._uses.add("index")
            return {INDEX: ""}
        if name == EXPR:
            return self._read_expression(value[EXPR], (place, EXPR))
        if name == SECRET:
            return {SECRET: self._secret(value[SECRET], (place, SECRET))}
        text = self._text(value[name], (place, name))
        copied = {name: text}
        if DEFAULT in value:
            copied[DEFAULT] = self._defaults.copy(value[DEFAULT], (place, DEFAULT), depth + 1)
        if text is None:
            return copied
        if name == FROM:
            self._note_reference(text, copied, (place, FROM))
        else:
            if parse_param(text) is None or (name == VAR and not text):
                self._problems.add("E_REFERENCE", (place, name), 'write a path as "name.field[0]"')
            if name in (ITEM, PREVIOUS):
                self._uses.add(PATHS[name])
        return copied

    def _stream(self, said: object, place: Place, depth: int) -> list[str]:
        """The nodes whose batches an input is made of."""
        name = place[1] if depth == 2 and not isinstance(place, str) else ""
        if depth > 2 or not isinstance(name, str):
            say = 'a stream is an input of its own, as in {"rows": {"$stream": "node"}}'
            self._problems.add("E_TEMPLATE", (place, STREAM), say)
            return []
        texts = [said] if isinstance(said, str) else said
        if not isinstance(texts, list | tuple) or not texts or not all(isinstance(text, str) for text in texts):
            say = f"expected a node's id or a list of them, found {'an empty list' if said == [] else shown(said)}"
            self._problems.add("E_TYPE", (place, STREAM), say)
            return []
        for text in texts:
            if text not in self.known:
                self._report_unknown(text, (place, STREAM))
        known = [str.__str__(text) for text in dict.fromkeys(texts) if text in self.known]
        self._streams[name] = tuple(known)
        return known

    def _read_expression(self, text: object, place: Place) -> Any:
        expression = read_expression(text, place, EXPRESSION_ROOTS, self.known, self._problems)
        if expression is None:
            return None
        self._uses |= expression.roots & {"item", "index", "previous"}
        for reference in expression_references(expression):
            self._found.setdefault((reference.source, reference.path), reference)
        return {EXPR: expression.text}

    def _secret(self, name: object, place: Place) -> str:
        if not isinstance(name, str) or not SECRET_RULE.fullmatch(name):
            say = f"expected a secret's name, such as 'DB_PASSWORD' or 'DB_PASSWORD@2', found {shown(name)}"
            self._problems.add("E_SECRET", place, say)
            return ""
        self._secrets.add(name)
        return str.__str__(name)

    def _refuse_form(self, value: dict[Any, Any], place: Place, depth: int) -> Any:
        for name in value:
            if name in FORMS:
                say = f"a default is taken as it is, so `{name}` would not be replaced; write a plain value"
                self._problems.add("E_TEMPLATE", (place, name), say)
        return DECLINED

    def _check_slip(self, value: dict[Any, Any], place: Place) -> None:
        # Other keys with a dollar are data (a MongoDB filter, say), unless one all but spells a form.
        first = next(iter(value))
        if not isinstance(value[first], str) or len(value) > 2 or len(first) > len(LITERAL) + 1:
            return
        meant = nearest(first, COMPANY)
        if meant is not None and abs(len(meant) - len(first)) <= 1:
            say = f'did you mean {meant!r}? If not, wrap the object: {{"{LITERAL}": {{{written(first)}: ...}}}}'
            self._problems.add("E_TEMPLATE", (place, first), say)

    def _check_company(self, name: str, value: dict[Any, Any], place: Place) -> None:
        beside = "".join(f", or beside `{other}`" for other in COMPANY[name])
        for other in value:
            if other != name and other not in COMPANY[name]:
                key = other if isinstance(other, str) else shown(other)
                say = f"`{name}` stands alone{beside}; move {shown(other)} elsewhere"
                self._problems.add("E_TEMPLATE", (place, key), say)

    def _text(self, value: object, place: Place) -> str | None:
        if not isinstance(value, str):
            say = f'expected a string such as "name.field[0]", found {shown(value)}'
            self._problems.add("E_TYPE", place, say)
            return None
        if len(value) > LONGEST_REFERENCE:
            self._problems.add("E_REFERENCE", place, f"longer than {LONGEST_REFERENCE} characters")
            return None
        text: str = self._literals.copy(value, place)
        return text

    def _note_reference(self, text: str, form: dict[str, Any], place: Place) -> None:
        split = split_reference(text, self.known)
        if split is None:
            self._report_unknown(text, place)
            return
        path = parse_path(split[1])
        if path is None:
            say = f"{shown(split[1])} after {shown(split[0])} is no path"
            self._problems.add("E_REFERENCE", place, f'{say}; write it as "node.field[0].other"')
            return

        source, has_default = split[0], DEFAULT in form
        before = self._found.get((source, path))
        # A value that is wanted once without a default is wanted.
        if before is None or (before.has_default and not has_default):
            reference = Reference(source, path, has_default, form.get(DEFAULT))
            self._found[source, path] = reference

    def _report_unknown(self, text: str, place: Place) -> None:
        head = re.split(r"[.\[]", text, maxsplit=1)[0]
        hint = self._problems.suggest(text, self.known) or self._problems.suggest(head, self.known)
        self._problems.add("E_REFERENCE_UNKNOWN", place, f"{shown(text)} begins with no node's id{hint}")


def expression_references(expression: Expression) -> Iterable[Reference]:
    """The nodes that an expression waits for: those that it asks about by `has` may have no output."""
    for name in expression.nodes:
        yield Reference(name, (), has_default=name in expression.guarded)


def parse_param(text: str) -> Path | None:
    """The steps of a param's path, `name.field[0]`; nothing means all params."""
    return parse_path(f".{text}") if text else ()
