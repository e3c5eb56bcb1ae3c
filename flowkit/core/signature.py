"""What a role takes, as the JSON Schema that its workers announce says it, and which inputs of a graph cannot fit.

Only what is certain is said: a node that is refused here would fail with `bad_input` whenever it ran.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flowkit.core import template
from flowkit.core.filling import unescape
from flowkit.core.graph import MISSING, Graph, Node
from flowkit.core.problems import Place, Problems, render, shown
from flowkit.errors import Problem, did_you_mean

BY_NAME: Final = "x-flowkit-by-name"
"""The key of a schema whose properties are parameters: their names, each with the JSON type that is all that its
annotation asks, or an empty string."""

MOST_NAMES: Final = 20
TYPES: Final[Mapping[str, type]] = {
    "string": str, "integer": int, "number": float, "boolean": bool, "object": dict, "array": list,
}  # fmt: skip
KINDS: Final[Mapping[str, str]] = {
    "string": "a string", "integer": "a whole number", "number": "a number", "boolean": "true or false",
    "object": "an object", "array": "a list",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Signature:
    """`takes` are the parameters, each with the JSON type of its values (empty: any); `needs` those without a default;
    `rest` says that other names are welcome."""

    takes: Mapping[str, str]
    needs: tuple[str, ...]
    rest: bool = False

    @property
    def takes_nothing(self) -> bool:
        return not (self.takes or self.rest)

    def misfit(self, names: Iterable[str]) -> str:
        """What is wrong with inputs of these names; empty where nothing is."""
        given = set(names)
        missing = [name for name in self.needs if name not in given]
        unknown = [] if self.rest else sorted(given.difference(self.takes))
        return misfit(missing, unknown, list(self.takes)) if missing or unknown else ""


def quick_look(signature: Signature) -> Callable[[Any], bool]:
    """A test that inputs which fit nearly always pass, so that a large graph costs little; what fails it is to be
    looked at closely."""
    takes, needs, rest = signature.takes.keys(), frozenset(signature.needs), signature.rest
    kinds = [(name, TYPES.get(kind)) for name, kind in signature.takes.items() if kind]

    def passes(inputs: Any) -> bool:
        if type(inputs) is not dict:
            return False
        names = inputs.keys()
        if not (needs <= names and (rest or names <= takes)):
            return False
        return all(type(inputs[name]) is kind for name, kind in kinds if name in inputs)

    return passes


def read_signature(schema: object) -> Signature | None:
    """The signature that an announced schema describes; None for one that does not say what it takes by name."""
    if not isinstance(schema, dict):
        return None
    takes, needs = schema.get(BY_NAME), schema.get("required", [])
    if not isinstance(takes, dict) or not all(isinstance(kind, str) for kind in takes.values()):
        return None
    if not isinstance(needs, list) or not all(isinstance(name, str) for name in needs):
        return None
    return Signature(takes, tuple(needs), schema.get("additionalProperties") is not False)


def agreed(announced: Iterable[Signature | None]) -> Signature | None:
    """What all workers of a role take; None where they differ (one of them may fit), or where there is none."""
    all_of_them = list(announced)
    first = all_of_them[0] if all_of_them else None
    return first if all(signature == first for signature in all_of_them) else None


def misfit(missing: list[str], unknown: list[str], known: list[str]) -> str:
    """Says which names are missing, which nobody takes, and what is taken."""
    parts = []
    if missing:
        parts.append(f"misses {_listed(missing)}")
    near = did_you_mean(unknown[0], known) if unknown else ""
    if unknown:
        parts.append(f"does not take {_listed(unknown)}{near}")
    # Where a name is all but right, another way to get everything would only distract.
    hint = " (a parameter named `inputs` gets them all)" if len(known) == 1 and missing and not near else ""
    return f"{' and '.join(parts)}; it takes {_listed(known) if known else 'nothing'}{hint}"


# ---------------------------------------------------------------------------------------------- a graph's nodes


def misfits(graph: Graph, signature_of: Callable[[str], Signature | None]) -> Iterator[tuple[str, Problem]]:
    """The nodes whose inputs cannot fit their role, and why. What the params decide is left to `params_misfits`."""
    roles: dict[str, tuple[Signature | None, Callable[[Any], bool]]] = {}
    for number, (name, node) in enumerate(graph.nodes.items()):
        known = roles.get(node.type)
        if known is None:
            signature = signature_of(node.type)
            known = roles[node.type] = (signature, _passes if signature is None else quick_look(signature))
        signature, passes = known
        if signature is None or passes(node.inputs) or (node.foreach is not None and node.inputs is MISSING):
            continue
        place: Place = ("nodes", number)
        if node.inputs is not MISSING:
            problems = _given(node, signature, (place, "inputs"))
        else:
            problems = _from_parents(graph, node, signature, (place, "inputs"))
        for problem in problems:
            yield name, problem


def _passes(inputs: Any) -> bool:
    return True


def given_params(graph: Graph, signature_of: Callable[[str], Signature | None]) -> list[tuple[str, Signature]]:
    """The roots that are given the params, and what they take."""
    found: list[tuple[str, Signature]] = []
    for name in graph.roots:
        node = graph.nodes[name]
        given = node.inputs is MISSING and node.foreach is None
        signature = signature_of(node.type) if given else None
        if signature is not None and not signature.takes_nothing:
            found.append((name, signature))
    return found


def params_misfits(graph: Graph, params: Mapping[str, Any],
                   given: Iterable[tuple[str, Signature]]) -> Iterator[tuple[str, Problem]]:  # fmt: skip
    """The same for the roots that are given the params, as `given_params` found them."""
    for name, signature in given:
        node = graph.nodes[name]
        said = signature.misfit(params)
        if said:
            message = f"node {name!r} gets the params, but {node.type!r} {said}; {_advice(said)}, or give it `inputs`"
            yield name, Problem("E_INPUTS", "params", message)
        else:
            for problem in _values(params, signature, node, "params", literal=True):
                yield name, problem


def _given(node: Node, signature: Signature, place: Place) -> Iterator[Problem]:
    inputs = unescape(node.inputs) if node.constant else node.inputs
    if not node.constant and isinstance(inputs, dict) and not template.FORMS.isdisjoint(inputs):
        return  # what another node, or the params, will give
    if not isinstance(inputs, dict):
        yield from _alone(inputs, node, signature, place)
        return
    said = signature.misfit(inputs)
    if said:
        yield Problem("E_INPUTS", render(place), f"{node.type!r} {said}; {_advice(said)}")
    else:
        yield from _values(inputs, signature, node, place, literal=node.constant)


def _alone(value: Any, node: Node, signature: Signature, place: Place) -> Iterator[Problem]:
    """Inputs that are no object go to the only parameter."""
    if len(signature.takes) == 1:
        (kind,) = signature.takes.values()
        if (node.constant or not isinstance(value, list)) and not _fits(kind, value):
            yield _unfit(node, next(iter(signature.takes)), kind, value, place)
    elif value is not None or signature.needs:
        wanted = _listed(list(signature.takes)) or "nothing"
        message = f"{node.type!r} takes {wanted} by name, found {shown(value)}; write an object with these names"
        yield Problem("E_INPUTS", render(place), message)


def _values(values: Mapping[str, Any], signature: Signature, node: Node, place: Place, *,
            literal: bool) -> Iterator[Problem]:  # fmt: skip
    """`literal`: nothing in the values is to be replaced."""
    for name, value in values.items():
        kind = signature.takes.get(name, "")
        if kind and (literal or not isinstance(value, dict | list)) and not _fits(kind, value):
            yield _unfit(node, name, kind, value, (place, name))


def _unfit(node: Node, name: str, kind: str, value: Any, place: Place) -> Problem:
    message = f"{node.type!r} wants {KINDS.get(kind, kind)} as {name}, found {shown(value)}"
    return Problem("E_INPUTS", render(place), message)


def _from_parents(graph: Graph, node: Node, signature: Signature, place: Place) -> Iterator[Problem]:
    """A node with several parents is given their outputs by their ids; which of them is not certain, only which not."""
    edges = graph.incoming[node.node_id]
    if len(edges) < 2 or signature.takes_nothing:
        return
    sources = [edge.source for edge in edges]
    missing = [name for name in signature.needs if name not in set(sources)]
    if missing:
        example = f'"inputs": {{"{missing[0]}": {{"$from": "{sources[0]}"}}}}'
        message = (
            f"{node.type!r} misses {_listed(missing)}: without `inputs` it gets its parents' outputs by their ids, "
            f"{_listed(sources)}{Problems().suggest(missing[0], sources)}; write {example}"
        )
        yield Problem("E_INPUTS", render(place), message)


def _advice(said: str) -> str:
    if "did you mean" in said:
        return "rename it"
    return "add it, or give the parameter a default" if said.startswith("misses") else "remove it"


def _fits(kind: str, value: Any) -> bool:
    """Whether a value may become what the parameter wants; where that is doubtful, it may."""
    match kind:
        case "string":
            return isinstance(value, str)
        case "integer" | "number":
            if isinstance(value, str):
                return _is_number(value)
            return isinstance(value, int) or (isinstance(value, float) and (kind == "number" or value.is_integer()))
        case "boolean":
            return isinstance(value, str) or (isinstance(value, int | float) and value in (0, 1))
        case "object":
            return isinstance(value, dict)
        case "array":
            return isinstance(value, list)
    return True


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _listed(names: list[str]) -> str:
    said = ", ".join(names[:MOST_NAMES])
    return f"{said} and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else said
