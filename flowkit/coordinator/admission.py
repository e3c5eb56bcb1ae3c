"""What is asked of a task beside a readable graph before it is accepted: params that JSON can say, options that can be
stored, targets that exist, and inputs that fit what the roles take, as far as their handlers are known."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from flowkit.coordinator.off_loop import off_loop
from flowkit.core import selection
from flowkit.core.code_policy import NOTHING_SAID, CodePolicies, check_graph
from flowkit.core.dialect import parse_graph
from flowkit.core.graph import BUILT_INS, Graph, Node
from flowkit.core.limits import check_params
from flowkit.core.moments import read_moment
from flowkit.core.problems import MAX_PROBLEMS, Problems, shown
from flowkit.core.signature import Signature, given_params, misfits, params_misfits, quick_look
from flowkit.core.starts import function_role
from flowkit.core.traceparent import read_traceparent
from flowkit.core.values import Copier
from flowkit.errors import GraphError, InputError, Problem, did_you_mean
from flowkit.telemetry import current_traceparent
from flowkit.wire.codec import dumps

MAX_PARAMS_BYTES: Final = 1024 * 1024
MAX_PAYLOAD_BYTES: Final = 64 * 1024
LONGEST_REASON: Final = 1000
MOST_PRIORITY: Final = 1_000_000_000
LONGEST_TIMEOUT_SEC: Final = 1e9
LARGE_NODES: Final = 2000
KNOWN_GRAPHS: Final = 256
FUNCTION_ROLES: Final = function_role("")
"""So begin the roles of a coordinator's own functions, which no worker type names."""

SignatureOf = Callable[[str], Signature | None]


def nobody_known(role: str) -> Signature | None:
    """Where no handler is at hand, nothing is said about inputs."""
    return None


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of a graph when its roles took what `signatures` say. `roots` are given the params; there is a quick
    look for each of the different things that they take."""

    signatures: Mapping[str, Signature | None]
    problems: Sequence[tuple[str, Problem]]
    roots: Sequence[tuple[str, Signature]]
    looks: Sequence[Callable[[Any], bool]]


class Admission:
    """Checks inputs against the roles' signatures; a graph that comes again costs a look at its roles."""

    def __init__(self, signature_of: SignatureOf = nobody_known, roles: Collection[str] = (),
                 functions: Collection[str] | None = None,
                 policies: CodePolicies = NOTHING_SAID) -> None:  # fmt: skip
        self._signature_of = signature_of
        self._policies = policies
        self._roles = frozenset(roles)
        self._functions = functions
        self._findings: OrderedDict[str, Finding] = OrderedDict()
        self._fit: OrderedDict[tuple[str, str, str], None] = OrderedDict()

    async def check(self, ref: str, graph: Graph, params: Mapping[str, Any] | None, targets: Sequence[str]) -> None:
        """Raise `GraphError` for targets that are no nodes, roles that nobody was said to serve, keys of limits that
        lack a param, and inputs that cannot fit. `params` None: they are yet to come, and nothing is said of them."""
        self.check_with(await self.finding(ref, graph), graph, params, targets)

    def check_with(
        self, finding: Finding, graph: Graph, params: Mapping[str, Any] | None, targets: Sequence[str]
    ) -> None:
        """The same, with what was found out about the graph a moment ago."""
        if targets:
            _check_targets(targets, graph)
        if graph.limited and params is not None:
            problems = Problems()
            check_params(graph, params, problems)
            problems.raise_any()
        found = [*finding.problems]
        if params is not None and not all(passes(params) for passes in finding.looks):
            found += params_misfits(graph, params, finding.roots)
        if found:
            left_out = set(selection.not_needed(graph, targets))
            misfitting = [problem for node, problem in found if node not in left_out]
            if misfitting:
                raise GraphError(misfitting[:MAX_PROBLEMS])

    async def check_code(self, ref: str, graph: Graph, tenant: str, flow: str) -> None:
        """Raise `GraphError` for code that asks for more than a policy allows it. One that did not is known again."""
        key = ref, tenant, flow
        if key in self._fit:
            self._fit.move_to_end(key)
            return
        problems = Problems()
        check = partial(check_graph, graph, self._policies.of(tenant, flow), parse_graph, problems)
        await off_loop(check) if len(graph.nodes) > LARGE_NODES else check()
        problems.raise_any()
        self._fit[key] = None
        if len(self._fit) > KNOWN_GRAPHS:
            self._fit.popitem(last=False)

    async def finding(self, ref: str, graph: Graph) -> Finding:
        """What is to be said of a graph while its roles take what they take now."""
        known = self._findings.get(ref)
        if known is not None and all(self._signature_of(role) == said for role, said in known.signatures.items()):
            self._findings.move_to_end(ref)
            return known
        signatures = {role: self._signature_of(role) for role in {node.type for node in graph.nodes.values()}}
        large = len(graph.nodes) > LARGE_NODES
        look = partial(_look, graph, signatures, self._unknown)
        finding = await off_loop(look) if large else look()
        self._findings[ref] = finding
        if len(self._findings) > KNOWN_GRAPHS:
            self._findings.popitem(last=False)
        return finding

    def _unknown(self, node: Node, place: int) -> Problem | None:
        """What nobody was said to serve; without `roles` any role may be, without `functions` any function."""
        function = node.fn or (node.type.removeprefix(FUNCTION_ROLES) if node.type.startswith(FUNCTION_ROLES) else "")
        if function:
            if self._functions is None or function in self._functions:
                return None
            hint = did_you_mean(function, self._functions) or f"; there are {', '.join(self._functions) or 'none'}"
            say = f"this coordinator has no function {function!r}{hint}"
            return Problem("E_ADAPTER_UNKNOWN", f"nodes[{place}].io.fn", say)
        if not self._roles or node.type in self._roles or node.type in BUILT_INS:
            return None
        known = ", ".join(sorted(self._roles))
        say = f"{node.type!r} is not one of worker_types{did_you_mean(node.type, self._roles)}: {known}"
        return Problem("E_ROLE_UNKNOWN", f"nodes[{place}].type", say)


def _look(graph: Graph, signatures: Mapping[str, Signature | None],
          unknown: Callable[[Node, int], Problem | None]) -> Finding:  # fmt: skip
    found = ((node.node_id, unknown(node, place)) for place, node in enumerate(graph.nodes.values()))
    problems = [(name, problem) for name, problem in found if problem is not None]
    if not any(signatures.values()):
        return Finding(signatures, problems, (), ())
    roots = given_params(graph, signatures.__getitem__)
    different = {id(signature): signature for _, signature in roots}.values()
    looks = [quick_look(signature) for signature in different]
    return Finding(signatures, [*problems, *misfits(graph, signatures.__getitem__)], roots, looks)


def checked_params(params: object) -> tuple[dict[str, Any], str]:
    """A copy of the params, and their JSON text. Raises `GraphError` for what JSON cannot say, and for too much."""
    if params is None:
        return {}, "{}"
    if not isinstance(params, (dict, Mapping)):  # to ask the latter alone is dear
        raise GraphError([Problem("E_TYPE", "params", f"expected an object, found {shown(params)}")])
    problems = Problems()
    copied = Copier(problems).copy(params if isinstance(params, dict) else dict(params), "params")
    problems.raise_any()
    try:
        text = dumps(copied)
    except (ValueError, TypeError) as error:  # a number of thousands of digits, say
        raise GraphError([Problem("E_VALUE", "params", str(error))]) from error
    if len(text) > MAX_PARAMS_BYTES:
        say = f"{len(text)} bytes, at most {MAX_PARAMS_BYTES}: pass a reference instead"
        raise GraphError([Problem("E_PARAMS_SIZE", "params", say)])
    return copied, text.decode()


def checked_payload(payload: object) -> Any:
    """A copy of a signal's payload. Raises `GraphError` for what JSON cannot say, and for too much."""
    problems = Problems()
    copied = Copier(problems).copy(payload, "payload")
    problems.raise_any()
    size = len(dumps(copied))
    if size > MAX_PAYLOAD_BYTES:
        say = f"{size} bytes, at most {MAX_PAYLOAD_BYTES}: pass a reference instead"
        raise GraphError([Problem("E_PAYLOAD_SIZE", "payload", say)])
    return copied


def checked_labels(labels: object) -> dict[str, str]:
    """The labels as text. Raises `GraphError` for what no store can look for."""
    if not labels:
        return {}
    if not isinstance(labels, Mapping):
        raise GraphError([Problem("E_TYPE", "labels", f"expected an object, found {shown(labels)}")])
    texts = {str(key): str(value) for key, value in labels.items()}
    problems = Problems()
    Copier(problems).copy(texts, "labels")
    problems.raise_any()
    return texts


def check_options(priority: object, timeout: object) -> None:
    """Raise `GraphError` for a priority or a timeout (seconds) that means nothing."""
    if priority == 0 and type(priority) is int and timeout is None:
        return  # nearly always
    problems = Problems()
    if isinstance(priority, bool) or not isinstance(priority, int) or abs(priority) > MOST_PRIORITY:
        problems.add("E_VALUE", "priority", f"expected a whole number up to {MOST_PRIORITY:,}, found {shown(priority)}")
    if timeout is not None:
        number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
        if not number or not 0 < timeout <= LONGEST_TIMEOUT_SEC:  # type: ignore[operator]
            problems.add("E_VALUE", "timeout", f"expected seconds above 0, found {shown(timeout)}")
    problems.raise_any()


def checked_moment(value: object) -> float:
    """Epoch seconds of a deadline. Raises `GraphError` for what is no moment."""
    try:
        return read_moment(value)
    except InputError as error:
        raise GraphError([Problem("E_DEADLINE", "deadline", str(error))]) from error


def checked_traceparent(given: object) -> str:
    """The span that a task is created in: what is given, else the caller's own. Raises `GraphError` for what is no
    `traceparent`."""
    if given is None:
        return current_traceparent()
    if given == "":
        return ""
    context = read_traceparent(given) if isinstance(given, str) else None
    if context is None:
        say = (
            f"expected a W3C traceparent such as 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01, found "
            f'{shown(given)}; give none ("") for a trace of the task\'s own'
        )
        raise GraphError([Problem("E_VALUE", "traceparent", say)])
    return str(context)


def plain_reason(reason: object) -> str:
    """A caller's reason as text that may be stored and shown."""
    text = str(reason)
    text = text if len(text) <= LONGEST_REASON else f"{text[: LONGEST_REASON - 3]}..."
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def checked_grace(grace_sec: object) -> float:
    """Raises `ValueError` for a grace that is no number of seconds."""
    number = isinstance(grace_sec, int | float) and not isinstance(grace_sec, bool)
    if not number or not math.isfinite(grace_sec) or grace_sec < 0:  # type: ignore[arg-type, operator]
        raise ValueError(f"grace_sec is a number of seconds, 0 or more, not {grace_sec!r}")
    return float(grace_sec)  # type: ignore[arg-type]


def _check_targets(targets: Sequence[str], graph: Graph) -> None:
    if isinstance(targets, str):
        say = f"expected a list of node ids, found {shown(targets)}; write [{shown(targets)}]"
        raise GraphError([Problem("E_TYPE", "targets", say)])
    problems = [
        Problem("E_TARGET_UNKNOWN", f"targets[{place}]", f"no node {name!r}{did_you_mean(name, graph.nodes)}")
        for place, name in enumerate(targets)
        if name not in graph.nodes
    ]
    if problems:
        raise GraphError(problems)
