"""Small random graphs with everything that this release runs: for the state machine."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NAMES = "abcdefg"


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """Up to seven nodes, each waiting for some before it: edges of all kinds, joins, references, few retries."""
    names = NAMES[: draw(st.sampled_from([1, 2, 3, 4, 5, 5, 6, 6, 7, 7]))]
    nodes, edges = [], []
    for place, name in enumerate(names):
        sources = [source for source in names[:place] if draw(st.sampled_from([True, False, False]))]
        edges += [
            {
                "from": source,
                "to": name,
                "on": draw(st.sampled_from(["success", "success", "success", "failure", "end"])),
            }
            for source in sources
        ]
        nodes.append(_node(draw, name, names[:place], len(sources)))
    whole: dict[str, Any] = {"nodes": nodes, "edges": draw(st.permutations(edges))}
    if draw(st.sampled_from([False, False, False, True])):
        whole["fail_fast"] = True
    if draw(st.integers(0, 7)) == 3:
        whole["timeout_sec"] = 50
    if draw(st.integers(0, 7)) == 3:
        whole["output"] = {"x": _reference(draw, names)}
    return whole


def _node(draw: st.DrawFn, name: str, before: str, sources: int) -> dict[str, Any]:
    policy: dict[str, Any] = {"max": draw(st.integers(1, 2)), "backoff_sec": draw(st.sampled_from([0, 3]))}
    if draw(st.booleans()):
        policy["lost_max"] = draw(st.integers(1, 2))
    if draw(st.sampled_from([False, False, False, False, True])):
        policy["rules"] = [{"on": ["Rare"], "max": 2}]
    said: dict[str, Any] = {"node_id": name, "type": draw(st.sampled_from(["p", "q"])), "retry_policy": policy}

    references = draw(st.sampled_from([0, 0, 1, 1, 2])) if before else 0
    if references:
        said["inputs"] = {f"i{number}": _reference(draw, before) for number in range(references)}
    if sources > 1 and draw(st.booleans()):
        said["fan_in"] = draw(st.sampled_from(["any", {"count": 2}, {"count": sources}]))
        said["losers"] = draw(st.sampled_from(["ignore", "cancel"]))
    if draw(st.sampled_from([False, False, False, False, True])):
        said["continue_on_failure"] = True
    if draw(st.integers(0, 7)) == 3:
        said["timeouts"] = {draw(st.sampled_from(["queued_sec", "total_sec"])): 20}
    return said


def _reference(draw: st.DrawFn, names: str) -> dict[str, Any]:
    reference: dict[str, Any] = {"$from": draw(st.sampled_from(names)) + draw(st.sampled_from(["", "", ".v"]))}
    return reference | {"default": "d"} if draw(st.booleans()) else reference
