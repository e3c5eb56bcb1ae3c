"""What code may ask for at most, and how far it has to be shut in at least: what an operator says by tenant and by
flow, and a graph of itself. All rules that are about a node hold together, so that none can loosen another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from flowkit.core.code import CODE, LEVEL_LABEL, LEVELS, MEMORY_MB, Code
from flowkit.core.graph import Graph, Node
from flowkit.core.labels import Wanted
from flowkit.core.lane import Lane
from flowkit.core.problems import Place, Problems, shown

COVER: Final = "cover"
FAIL: Final = "fail"
OWN: Final = "the graph's `policy`"
NUMBERS: Final = {
    "memory_mb": "MiB of memory",
    "cpu": "cores",
    "pids": "processes",
    "disk_mb": "MiB of disk",
    "wall_sec": "seconds",
    "cpu_sec": "seconds of CPU time",
}
USUAL: Final = {"memory_mb": float(MEMORY_MB), "cpu": 1.0, "pids": 64.0, "disk_mb": 64.0}
"""What programs may use where nothing is said; of times, that depends on the node."""
REMEMBERED: Final = 10_000


@dataclass(frozen=True, slots=True)
class CodeRule:
    """One policy: who says it, in words, and what it says (the keys of a policy; what is left out is not bounded)."""

    origin: str
    said: Mapping[str, Any]

    @property
    def level(self) -> str:
        """The lowest level at which code may run; empty: any."""
        return str(self.said.get("level", ""))

    def allows(self, what: str, name: str) -> bool:
        """Whether code may have this address of the `network`, or this one of the `secrets`."""
        patterns = self.said.get(what)
        if patterns is None:
            return True
        return patterns != "none" and any(fnmatchcase(name, pattern) for pattern in patterns)

    def allowed(self, what: str) -> str:
        """What it allows, in words."""
        patterns = self.said.get(what, ())
        return "none" if not patterns or patterns == "none" else f"only {', '.join(patterns)}"


Rules = tuple[CodeRule, ...]


class CodePolicies:
    """An operator's policies: `every` is about all code; `tenants` and `flows` are by names, or patterns of names with
    `*` and `?`, all that fit hold. A task of no flow has the flow `` (nothing), which only `*` fits."""

    def __init__(self, every: Mapping[str, Any] | None = None, tenants: Mapping[str, Mapping[str, Any]] | None = None,
                 flows: Mapping[str, Mapping[str, Any]] | None = None) -> None:  # fmt: skip
        self._every: Rules = (CodeRule("the policy of all code", every),) if every else ()
        self._tenants = {
            name: CodeRule(f"the policy of tenant {name!r}", rule) for name, rule in (tenants or {}).items()
        }
        self._flows = {name: CodeRule(f"the policy of flow {name!r}", rule) for name, rule in (flows or {}).items()}
        self._known: dict[tuple[str, str], Rules] = {}

    def __bool__(self) -> bool:
        return bool(self._every or self._tenants or self._flows)

    @property
    def rules(self) -> Rules:
        """All of them, whomever they are about."""
        return (*self._every, *self._tenants.values(), *self._flows.values())

    def of(self, tenant: str, flow: str) -> Rules:
        """The rules for the code of a flow (its name, of whatever version; empty: of none) of a tenant."""
        if not self:
            return ()
        found = self._known.get((tenant, flow))
        if found is None:
            tenants = (rule for pattern, rule in self._tenants.items() if fnmatchcase(tenant, pattern))
            found = (*self._every, *tenants, *self.of_flow(flow))
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[tenant, flow] = found
        return found

    def on(self, tenant: str, flow: str, graph: Graph) -> Rules:
        """The rules for the code of a task, what its graph says of itself among them."""
        return (*self.of(tenant, flow), *own_rules(graph.policy))

    def of_flow(self, flow: str) -> Rules:
        """Those that are about the flow, whoever's it is."""
        name = flow.partition("@")[0]
        return tuple(rule for pattern, rule in self._flows.items() if fnmatchcase(name, pattern))


NOTHING_SAID: Final = CodePolicies()


def own_rules(policy: Any) -> Rules:
    """What a graph's `policy` says: one, or several that hold together."""
    several = policy if isinstance(policy, list | tuple) else [policy] if policy else []
    return tuple(CodeRule(OWN, one) for one in several)


def rows_of(rules: Rules) -> list[list[Any]]:
    """As rules travel with an attempt."""
    return [[rule.origin, dict(rule.said)] for rule in rules]


def rules_of(rows: Iterable[Any]) -> Rules:
    """What `rows_of` wrote."""
    return tuple(CodeRule(str(origin), dict(said)) for origin, said in rows)


# ---------------------------------------------------------------------------------------------- the level


def strictest(rules: Rules) -> CodeRule | None:
    """The rule that asks for the highest level, None where none asks for one."""
    asking = [rule for rule in rules if rule.level]
    return max(asking, key=lambda rule: rule.level) if asking else None


def stricter_lane(lane: Lane, rules: Rules) -> Lane:
    """The lane of code under these rules: of the same name, on workers that shut it in far enough."""
    rule = strictest(rules) if lane.role == CODE else None
    if rule is None:
        return lane
    enough = tuple(LEVELS[LEVELS.index(rule.level) :])
    asked = dict(lane.demand.labels)
    asked[LEVEL_LABEL] = tuple(level for level in asked.get(LEVEL_LABEL, LEVELS) if level in enough)
    labels: Wanted = tuple(sorted(asked.items()))
    demand = lane.demand._replace(labels=labels)
    return Lane(lane.key, demand, lane.priority, lane.prefers, lane.follows, lane.patience_sec)


# ---------------------------------------------------------------------------------------------- what is asked for


def breaches(asked: Mapping[str, Any], rules: Rules) -> Iterator[tuple[str, str]]:
    """What code asks for (`level`, `network`, `secrets`, and the numbers in `limits`) and may not have: the key, and
    why, with what to do."""
    for rule in rules:
        if asked.get("level") and asked["level"] < rule.level:
            say = (
                f"asks for level {asked['level']} at least, and {rule.origin} for {rule.level}: write that, or nothing"
            )
            yield "level", say
        limits = asked.get("limits", {})
        for key, noun in NUMBERS.items():
            most = rule.said.get(key)
            if most is not None and limits.get(key) is not None and limits[key] > most:
                yield key, f"asks for {limits[key]:g} {noun}, and {rule.origin} allows {most:g} at most"
        for what, noun in (("network", "address"), ("secrets", "secret")):
            for name in asked.get(what, ()):
                if not rule.allows(what, name.partition("@")[0] if what == "secrets" else name):
                    yield what, f"asks for the {noun} {shown(name)}, and {rule.origin} allows {rule.allowed(what)}"


def bounded(limits: Mapping[str, Any], rules: Rules, usual: Mapping[str, float]) -> dict[str, Any]:
    """The limits of a program, with what nothing was said of: as much as is usual, and as the rules allow."""
    found = dict(limits)
    for key in NUMBERS:
        most = [rule.said[key] for rule in rules if rule.said.get(key) is not None]
        if most and key not in limits and key in usual:
            least = min(*most, usual[key])
            found[key] = int(least) if key in ("memory_mb", "pids", "disk_mb") else float(least)
    return found


def fails_on_leak(asked: str, rules: Rules) -> bool:
    """Whether an output that holds a secret fails its attempt, and is not only covered."""
    return FAIL in (asked, *(rule.said.get("on_leak") for rule in rules))


# ---------------------------------------------------------------------------------------------- a graph


def check_graph(graph: Graph, rules: Rules, parse: Any, problems: Problems, base: Place = "") -> None:
    """Report the nodes of a graph, and of those inside it, that ask for more than the rules, and its own, allow.
    `parse` reads a graph that stands inside it."""
    rules = (*rules, *own_rules(graph.policy))
    for number, node in enumerate(graph.nodes.values()):
        place: Place = ((base, "nodes"), number)
        code = node.code
        if code is not None:
            for key, say in breaches(_asked(code), rules):
                problems.add("E_POLICY", _place_of(place, key, code), f"the code {say}")
        for key, say in breaches({"secrets": node.secrets}, rules):
            problems.add("E_POLICY", (place, key), f"the node {say}")
        child = _inside(node)
        if child is not None and (rules or _has_policy(child)):
            check_graph(parse(dict(child)), rules, parse, problems, (place, "graph"))


def inherited(child: Mapping[str, Any], rules: Rules) -> dict[str, Any]:
    """A graph inside another as the graph of a task of its own: what holds for the one holds for it."""
    own = [dict(rule.said) for rule in (*own_rules(child.get("policy")), *rules)]
    return {**child, "policy": own} if rules else dict(child)


def policies_in(graph: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a graph, as it is written, and those inside it say of their own code, each once."""
    found = [rule.said for rule in own_rules(graph.get("policy"))]
    for node in graph["nodes"]:
        if "graph" in node:
            found += [said for said in policies_in(node["graph"]) if said not in found]
    return found


def _inside(node: Node) -> Mapping[str, Any] | None:
    while node.child is None and node.body is not None:
        node = node.body
    return node.child


def _has_policy(graph: Mapping[str, Any]) -> bool:
    """Whether a graph, or one inside it, says something of its own code."""
    inside = (node["graph"] for node in graph["nodes"] if "graph" in node)
    return bool(graph.get("policy")) or any(map(_has_policy, inside))


def _asked(code: Code) -> dict[str, Any]:
    limits = dict(code.limits)
    if code.memory_given:
        limits["memory_mb"] = code.memory_mb
    if code.most_mb:
        limits["memory_mb"] = max(code.most_mb, limits.get("memory_mb", 0))
    return {"level": code.level, "limits": limits, "network": code.network, "secrets": code.secrets}


def _place_of(place: Place, key: str, code: Code) -> Place:
    if key == "secrets":
        return (place, key)
    if key == "memory_mb" and code.most_mb:
        return ((place, "on_oom"), "max_mb")
    return ((place, "sandbox"), key)


def who_asks(rules: Rules) -> str:
    """Who asks for the level that a node waits for; empty where nobody does."""
    rule = strictest(rules)
    return "" if rule is None else f"{rule.origin} asks for {rule.level} at least"
