"""A node's policies as the core uses them: retries, timeouts, fan-in."""

from __future__ import annotations

from typing import Any, Final

from flowkit.core import code, lane, limits, starts
from flowkit.core.graph import FanIn, RetryPolicy, RetryRule, Timeouts
from flowkit.core.problems import Place, Problems
from flowkit.core.stream import streaming

ALL: Final = FanIn()
USUAL: Final = RetryPolicy()

NAMES_IN_CORE: Final = {"max": "max_attempts"}


def of(fields: dict[str, Any]) -> dict[str, Any]:
    """What a node's fields say beside its name, role and inputs: arguments of `Node`."""
    said: dict[str, Any] = {}
    if "fan_in" in fields:
        said["fan_in"] = fan_in(fields)
    if "retry_policy" in fields:
        said |= {"retry": retry_policy(fields["retry_policy"]), "retry_given": True}
    if "timeouts" in fields or "timeout_sec" in fields:
        said["timeouts"] = timeouts(fields)
    if (stream := streaming(fields)) is not None:
        said["stream"] = stream
    if "limits" in fields:
        said["limits"] = limits.of(fields["limits"])
    said |= {name: fields[name] for name in ("continue_on_failure", "when") if name in fields}
    if "io" in fields:
        said["io"] = {name: value for name, value in fields["io"].items() if name not in ("fn", "fn_args")} or None
    if "code" in fields:
        said["code"] = code.of(fields)
    elif "secrets" in fields:
        said |= {"secrets": tuple(dict.fromkeys(fields["secrets"])), "on_leak": fields.get("on_leak", "")}
    if "deadline" in fields:
        said["deadline"] = fields["deadline"].value
    if not lane.KEYS.isdisjoint(fields) or "code" in fields or "secrets" in fields:
        said["lane"] = lane.lane_of(fields)
    return said | starts.of(fields)


def retry_policy(fields: dict[str, Any]) -> RetryPolicy:
    """The policy that a `retry_policy` describes; a rule takes what it leaves out from its policy. A first wait that is
    longer than the usual cap is meant so: only a cap that is given shortens it."""
    said = {NAMES_IN_CORE.get(name, name): value for name, value in _own(fields)}
    said["permanent_on"] = tuple(said.get("permanent_on", ()))
    rules = said.pop("rules", ())
    said.setdefault("cap_sec", max(USUAL.cap_sec, said.get("backoff_sec", 0)))
    policy = RetryPolicy(**said)
    if not rules:
        return policy
    return RetryPolicy(**said, rules=tuple(_retry_rule(rule, policy) for rule in rules))


def _retry_rule(fields: dict[str, Any], policy: RetryPolicy) -> RetryRule:
    return RetryRule(
        codes=tuple(fields["on"]),
        max_attempts=fields["max"],
        backoff_sec=fields.get("backoff_sec", policy.backoff_sec),
        factor=fields.get("factor", policy.factor),
        cap_sec=fields.get("cap_sec", max(policy.cap_sec, fields.get("backoff_sec", 0))),
    )


def timeouts(fields: dict[str, Any]) -> Timeouts:
    """A node's `timeouts`, `timeout_sec` included."""
    said = dict(_own(fields.get("timeouts", {})))
    if "timeout_sec" in fields:
        said["run_sec"] = fields["timeout_sec"]
    return Timeouts(**said)


def fan_in(fields: dict[str, Any]) -> FanIn:
    """When a node's edges let it start."""
    said = fields.get("fan_in", "all")
    if said == "all":
        return ALL
    return FanIn(need_of(said), fields.get("losers") == "cancel")


def need_of(said: Any) -> int | None:
    """How many `"all"`, `"any"` or `{"count": n}` needs; None: all of them."""
    return None if said == "all" else 1 if said == "any" else int(said["count"])


def check(fields: dict[str, Any], place: Place, problems: Problems) -> None:
    """Report what a node's policies say against each other."""
    run_sec = fields.get("timeouts", {}).get("run_sec")
    if run_sec is not None and fields.get("timeout_sec", run_sec) != run_sec:
        say = "`timeout_sec` and `timeouts.run_sec` are the same limit; keep one of them"
        problems.add("E_KEY_CONFLICT", (place, "timeout_sec"), say)
    if fields.get("losers") == "cancel" and fields.get("fan_in", "all") == fields.get("gather", "all") == "all":
        say = 'with `fan_in: "all"` no parent loses; use "any" or {"count": n}, or leave `losers` out'
        problems.add("E_FAN_IN", (place, "losers"), say)
    limits.check(fields, place, problems)
    lane.check(fields, place, problems)


def _own(fields: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in fields.items() if not name.startswith("x-")]
