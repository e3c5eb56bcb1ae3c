"""What templates and expressions of a node can see: params, outputs, variables, the item and the repetition."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from flowkit.core import filling
from flowkit.core.derived import base_of, group_of, item_of, number_of
from flowkit.core.effects import Fetch, Question
from flowkit.core.expr import Expression, parse_expression
from flowkit.core.graph import MISSING, Foreach
from flowkit.core.model import Task
from flowkit.core.node_run import NodeState
from flowkit.core.payload import Artifact, holds_artifacts
from flowkit.core.problems import shown
from flowkit.errors import InputError

_FORM_OF = {"params": "$param", "vars": "$var"}
ROOTS = ("params", "output", "nodes", "vars", "item", "index", "previous", "task")


class Unanswered(Exception):
    """A decision needs what only the store can tell. The owner asks it, and then the decision is made again."""

    def __init__(self, question: Question) -> None:
        super().__init__(str(question))
        self.question = question


@lru_cache(maxsize=4096)
def compiled(text: str) -> Expression:
    """An expression that was accepted at the door."""
    return parse_expression(text, ROOTS)


class Scope:
    """What the node `name` of a task can see. `output` is the source's where a condition of an edge is decided."""

    def __init__(self, task: Task, name: str = "", *, output: Any = MISSING) -> None:
        self._task = task
        self._name = name
        self._output = output

    def fill(self, holes: Any, *, place: str = "inputs") -> Any:
        """A template with its holes filled; may hold `Artifact`s. Raises `InputError`, `ExprError`, `Unanswered`."""
        return filling.resolve(
            holes, params=self._task.params, output_of=self.output_of, known=self._task.graph.nodes, roots=self.root,
            evaluate=lambda text: self.evaluate(compiled(text)), holds=self._holds, place=place,
        )  # fmt: skip

    def evaluate(self, expression: Expression) -> Any:
        """What an expression says. Raises `ExprError`, `Unanswered`."""
        values: dict[str, Any] = {}
        for root in expression.roots:
            if root == "nodes":
                values[root] = _Nodes(self, expression.nodes)
            elif (value := self.root(root)) is not MISSING:
                values[root] = self.plain(value)
        return expression.evaluate(values)

    def root(self, root: str) -> Any:
        """The value of a root, MISSING where this place has none."""
        task = self._task
        match root:
            case "params":
                return task.params
            case "vars":
                return task.vars
            case "output":
                return self._output
            case "task":
                return {"id": task.task_id, "generation": task.generation, "created_at": task.created_at}
            case "item":
                return self._item()
            case "index":
                place = _item_place(self._name)
                return MISSING if place is None else place[1]
            case "previous":
                return self._previous()
        return MISSING

    def output_of(self, name: str) -> Any:
        """A node's output (a value that may hold `Artifact`s), or MISSING if it has none."""
        task = self._task
        run = task.runs[name]
        if run.state is not NodeState.FINISHED:
            return MISSING
        if run.group is not None and (foreach := task.node(name).foreach) is not None:
            return gathered(task, name, foreach)
        return MISSING if run.output is None else run.output.get()

    def plain_output_of(self, name: str) -> Any:
        """The same with everything in it, or MISSING. Raises `Unanswered`."""
        return self.plain(self.output_of(name))

    def items(self, group: str) -> list[Any]:
        """The list that a group's `foreach` gives. Raises `InputError`, `ExprError`, `Unanswered`."""
        run = self._task.runs[group]
        if run.group is not None and run.group.items is not None:
            return run.group.items
        known: dict[str, list[Any]] = self._task.fetched("items")
        if group not in known:
            foreach = self._task.node(group).foreach
            assert foreach is not None
            value = self.fill(foreach.items, place="foreach")
            known[group] = as_list(self._fetched(value) if isinstance(value, Artifact) else value)
        return known[group]

    # ------------------------------------------------------------------------------------------ items, repetitions

    def _item(self) -> Any:
        place = _item_place(self._name)
        if place is None:
            return MISSING
        group, index = place
        items = Scope(self._task, group).items(group)
        return items[index] if index < len(items) else MISSING

    def _previous(self) -> Any:
        owner = group_of(self._name)
        if not owner or self._name.endswith("]"):
            return MISSING
        group = self._task.runs[owner].group
        return None if group is None or group.last is None else group.last.get()

    # ------------------------------------------------------------------------------------------ artifacts

    def plain(self, value: Any) -> Any:
        """A value with what the `Artifact`s in it stand for; itself, if there are none. Raises `InputError`,
        `Unanswered`."""
        if isinstance(value, Artifact):
            return self._fetched(value)
        if isinstance(value, dict | list) and holds_artifacts(value):
            return _replaced(value, self._fetched)
        return value

    def _holds(self, artifact: Artifact) -> bool:
        """Whether the path of an artifact leads to anything. Raises `InputError`, `Unanswered`."""
        return artifact.kind == "json" and filling.follow(self._content(artifact), artifact.path) is not MISSING

    def _fetched(self, artifact: Artifact) -> Any:
        value = self._content(artifact)
        found = filling.follow(value, artifact.path)
        if found is MISSING:
            raise InputError(f"the output has {filling.lack(value, artifact.path)}")
        return found

    def _content(self, artifact: Artifact) -> Any:
        """What an artifact holds, whatever its path."""
        fetched: dict[str, Any] = self._task.fetched("values")
        if artifact.ref not in fetched:
            raise Unanswered(Fetch(artifact.ref, artifact.kind))
        value, error = fetched[artifact.ref]
        if error:
            raise InputError(f"artifact {artifact.ref[:12]} cannot be read: {error}")
        return value


def depends_on(template: Any, root: str) -> bool:
    """Whether what a template gives depends on `root`, which is `params` or `vars`."""
    match template:
        case {"$literal": _}:
            return False
        case {"$expr": str(text)}:
            return root in compiled(text).roots
        case dict():
            return _FORM_OF[root] in template or any(depends_on(part, root) for part in template.values())
        case list():
            return any(depends_on(part, root) for part in template)
    return False


class _Nodes(Mapping[str, Any]):
    """`nodes["id"]` of an expression: the outputs of the nodes that it names."""

    def __init__(self, scope: Scope, names: tuple[str, ...]) -> None:
        self._scope = scope
        self._names = names

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        output = self._scope.plain_output_of(name)
        return {} if output is MISSING else {"output": output}

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def gathered(task: Task, name: str, foreach: Foreach) -> list[Any]:
    """The output of a group: those of its items in their order."""
    group = task.runs[name].group
    assert group is not None
    indexes = range(group.count) if foreach.need is None else sorted(group.counted)
    return [_element(task, item_of(name, index), collect=foreach.collect) for index in indexes]


def _element(task: Task, item: str, *, collect: bool) -> Any:
    run = task.runs[item]
    if run.state is NodeState.FINISHED:
        value = None if run.output is None else run.output.get()
        return {"output": value} if collect else value
    error = run.error or {"code": "cancelled", "message": run.reason}
    return {"error": {"code": error.get("code"), "message": error.get("message")}} if collect else None


def _item_place(name: str) -> tuple[str, int] | None:
    """The group and the number of the item that a node is, or belongs to."""
    base = base_of(name)
    if not name.startswith(f"{base}["):
        return None
    stop = name.index("]", len(base)) + 1
    return base, number_of(name[:stop])


def as_list(value: Any) -> list[Any]:
    """What a `foreach` came to, if it is a list. Raises `InputError`, which says what to do."""
    if not isinstance(value, list):
        raise InputError(f"foreach: expected a list, found {_found(value)}")
    return value


def _found(value: Any) -> str:
    """What stands where a list should, and what to do."""
    match value:
        case None:
            return "null: the node or param that it reads gives nothing"
        case dict():
            keys = ", ".join(map(shown, list(value)[:3])) + (", ..." if len(value) > 3 else "")
            said = f" with the keys {keys}" if value else " with nothing in it"
            return f"an object{said}: name the list in it by its path, or make one of it in the node before"
        case str():
            forms = '{"$param": "rows"}, {"$from": "node.rows"} or {"$expr": "..."} gives one'
            return f"{shown(value)}, which is text: {forms}; or split it in the node before"
    return f"{shown(value)}: write [...] around it"


def _replaced(value: Any, fetched: Callable[[Artifact], Any]) -> Any:
    if isinstance(value, Artifact):
        return fetched(value)
    if isinstance(value, dict):
        return {key: _replaced(item, fetched) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, fetched) for item in value]
    return value
