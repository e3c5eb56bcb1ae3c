"""Is a failed or lost attempt tried again, and when? Pure: the jitter comes from the attempt's own name."""

from __future__ import annotations

import zlib

from flowkit.core.graph import RetryPolicy
from flowkit.core.keys import RETRY_POLICY
from flowkit.core.kinds import Door
from flowkit.core.node_run import NodeRun
from flowkit.core.policies import retry_policy
from flowkit.core.problems import Problems
from flowkit.core.template import TemplateReader
from flowkit.core.values import Copier

LONGEST_WAIT_SEC = 1e9


def retry_at(policy: RetryPolicy, run: NodeRun, *, code: str, permanent: bool, retry_after: float | None,
             name: str, now: float, final: bool = False) -> tuple[float | None, str]:  # fmt: skip
    """When to try again (epoch seconds; None = never), and the rule's code whose budget pays (empty = the policy's).

    A rule that names the code goes before `permanent`, which may be no more than the default for an exception such as
    `ValueError`; before `final`, which the handler said itself, goes nothing.
    """
    if final:
        return None, ""
    rule = next((rule for rule in policy.rules if code in rule.codes), None)

    if rule is not None:
        used = (run.budgets or {}).get(code, 0) + 1
        if used >= rule.max_attempts:
            return None, code
        wait = _backoff(rule.backoff_sec, rule.factor, rule.cap_sec, used)
    else:
        used = run.failures + 1
        if permanent or code in policy.permanent_on or used >= policy.max_attempts:
            return None, ""
        wait = _backoff(policy.backoff_sec, policy.factor, policy.cap_sec, used)

    if retry_after is not None:
        wait = min(max(0.0, retry_after), LONGEST_WAIT_SEC)
    elif policy.jitter:
        wait *= _fraction(name)
    return now + wait, code if rule is not None else ""


def handlers_policy(said: object) -> RetryPolicy | None:
    """The policy that a worker reports as its handler's; None for one that this version cannot read."""
    problems = Problems()
    door = Door(problems, Copier(problems), TemplateReader({}, problems))
    fields = RETRY_POLICY.read(said, "retry_policy", door)
    return None if problems else retry_policy(fields)


def declined_wait(declines: int) -> float:
    """Seconds before a declined attempt is placed again: at once the first time, then doubling up to 5 s."""
    return 0.0 if declines == 0 else min(5.0, 0.05 * 2 ** min(declines, 10))


def _backoff(base: float, factor: float, cap: float, failures: int) -> float:
    try:
        return min(cap, base * float(factor) ** (failures - 1))
    except OverflowError:
        return cap if base else 0.0


def _fraction(name: str) -> float:
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) / 0xFFFFFFFF
