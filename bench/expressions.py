"""`python -m bench.expressions`: what reading and computing expressions costs, in CPU time of this process.

The first table is of usual ones, the second of the dearest that the limits allow: those have a millisecond.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flowkit.core.expr import ExprError, parse_expression
from flowkit.core.expr.names import ROOTS

SCOPE: dict[str, Any] = {
    "params": {"mode": "full", "folder": "2027/01", "log": "a" * 65_536, "page": "a" * 9_000, "huge": 10**4000},
    "output": {
        "errors": 3, "rows": [{"id": number, "tags": ["a", "b"]} for number in range(600)],
        "same": [{"id": number, "tags": ["a", "b"]} for number in range(600)], "numbers": list(range(4_000)),
    },
    "nodes": {"load": {"output": {"rows": 38}}},
    "task": {},
}  # fmt: skip

USUAL = [
    'output.errors > 0 && params.mode == "full"',
    'has(output.warnings) && output.warnings > 0',
    'nodes["load"].output.rows * 2 + 1',
    "params.mode in ['full', 'delta', 'none']",
    "'rows of ' + params.folder",
    r"params.folder.matches(r'^\d{4}/\d{2}$')",
    "params.log.contains('error')",
]  # fmt: skip
DEAREST = {
    "lists of objects, compared": "output.rows == output.same",
    "a list of numbers, looked through": "-1 in output.numbers",
    "a list of numbers, given": "output.numbers",
    "a text, searched": "params.log.contains('aaaaaaaab')",
    "a pattern with many ways": "params.page.matches('^(a?){20}a{20}b$')",
    "a computed pattern": f"params.mode.matches('' + '(?i){'k' * 140}')",
    "failures, absorbed": " || ".join(["task.a"] * 400),
    "huge integers, refused": " || ".join(["params.huge + 1 > 0"] * 170),
    "deep failures, absorbed": " || ".join(["!" * 60 + "1"] * 36),
    "additions": " + ".join(["1"] * 1_000),
}


def nanoseconds(act: Callable[[], Any], times: int) -> float:
    """The best of many: whatever else the machine does only adds to it."""
    best = float("inf")
    for _ in range(60):
        start = time.process_time_ns()
        for _ in range(times):
            act()
        best = min(best, (time.process_time_ns() - start) / times)
    return best


def main() -> None:
    print(f"{'reading':>12} {'computing':>12}")
    for text in USUAL:
        expression = parse_expression(text, ROOTS)
        reading = nanoseconds(lambda text=text: parse_expression(text, ROOTS), 20)  # type: ignore[misc]
        computing = nanoseconds(lambda expression=expression: expression.evaluate(SCOPE), 200)  # type: ignore[misc]
        print(f"{reading / 1000:9.1f} us {computing:9.0f} ns   {text}")
    print()
    for name, text in DEAREST.items():
        expression = parse_expression(text, ROOTS)

        def compute(expression: Any = expression) -> None:
            with suppress(ExprError):
                expression.evaluate(SCOPE)

        print(f"{nanoseconds(compute, 1) / 1e6:22.2f} ms   {name}")


if __name__ == "__main__":
    main()
