"""Which facts end an attempt, and how."""

from __future__ import annotations

from flowkit.core import facts as f

Ending = tuple[str, str, str, float, f.Usage | None]
"""Whose attempt ends: that of a node, if it has one, or of every node where the name is empty; the outcome, which is
succeeded, failed, cancelled or lost; why, but for the first; seconds of run time; what it used."""


def ending_of(fact: f.Fact) -> Ending | None:
    """None where the fact ends none. A lease that was given back stands as lost, as `released`: also that of whoever
    was told to stop."""
    if type(fact) is f.AttemptSucceeded:  # with leases, nearly all
        return fact.node, "succeeded", "", fact.run_sec, fact.usage
    match fact:
        case f.AttemptFailed(node=node, error=error, run_sec=run_sec, usage=usage):
            return node, "failed", str(error.get("code", "")), run_sec, usage
        case f.LeaseLost(node=node, why=why, usage=usage):
            return node, "lost", why, 0.0, usage
        case f.NodeCancelled(node=node, reason=reason, usage=usage):
            return node, "cancelled", reason, 0.0, usage
        case f.NodeFailed(node=node, error=error):
            return node, "failed", str(error.get("code", "")), 0.0, None
        case f.TaskEnded(status=status):
            return "", "cancelled", status, 0.0, None
    return None
