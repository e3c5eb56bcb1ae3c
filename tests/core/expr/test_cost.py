"""No evaluation takes a millisecond: the dearest of each kind, as long and as large as they may be."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.core.expr import ExprError, ExprSyntaxError, parse_expression
from flowkit.core.expr.limits import MAX_SIZE, MAX_STEPS, MAX_TEXT
from flowkit.core.expr.literals import measure
from flowkit.core.expr.names import ROOTS
from tests.core.expr.timing import is_fast

PLENTY = 100_000
NESTED: dict[str, Any] = {"a": 1}
for _ in range(60):
    NESTED = {"a": NESTED}

SCOPE: dict[str, Any] = {
    "params": {
        "a": "a" * MAX_SIZE, "b": "a" * (MAX_SIZE - 1) + "b", "e": "é" * MAX_SIZE, "f": "é" * (MAX_SIZE - 1) + "f",
        "l": list(range(2400)), "m": [*range(2399), "x"], "t": [f"{'x' * 20}{number}" for number in range(2000)],
        "o": {str(number): number for number in range(1500)}, "p": {str(number): number for number in range(1500)},
        "d": [{"a": 1, "b": [1, 2]} for _ in range(600)], "g": [{"a": 1, "b": [1, 2]} for _ in range(600)],
        "w": "a" * 200, "x": "a" * 9000, "y": "a" * 29_000, "h": 10**4000, "n": NESTED,
        "wide": ["é"] * 4000,
        "names": {f"long_name_number_{number:02}_of_many_such_things": 1 for number in range(300)},
    },
    "output": {"a": {"b": {"c": {"d": 1}}}, "n": 2},
    "nodes": {"a": {"output": {"x": 1}}},
    "item": 1,
    "index": 0,
    "task": {},
    "vars": True,
}  # fmt: skip

VALUES = [
    "1", "1.0", '"a"', "item", "output.a.b.c.d", "params.l[item]", 'nodes["a"].output.x', "-item", "[]", "{}",
    'size("")', '"".size()', "min(item, 1)", "max(item, 1.5)", 'int("1")', 'double("1")', "string(1)",
    "string(1.1234567890123456e-300)", f"double('{'1' * 300}')", "min(params.l)", "max(params.t)",
]  # fmt: skip
TRUTHS = [
    "1 < 1", '"a" < "a"', "1 in []", "2 in [1]", "item != item", "{} != {}", "!vars", "has(task.a)",
    f"has(params.n{'.a' * 58}.b)", "has(task[params.x + params.x])", "params.h > params.h", "params.h != params.h",
    "params.a == params.b", "params.e == params.f", "params.a < params.a", "params.e < params.e", "params.a > params.f",
    "params.l == params.m", "params.l == params.l + []", "params.o != params.p", "params.d != params.g",
    '"x" in params.l', "-1 in params.l", '"z" in params.t', "[] in params.l", '{"a": 1} in params.g', '"x" in params.o',
    "params.a.startsWith(params.b)", "params.b.endsWith(params.a)", 'params.a.contains("b")', 'params.a.contains("ba")',
    f'params.x.contains("b{"a" * 100}")', f'params.y.contains("{"a" * 90}b{"a" * 8}")',
    f'params.w.contains("{"a" * 20}b{"a" * 20}")',
    f'params.a.contains("{"a" * 900}b{"a" * 900}")', f'params.e.contains("{"é" * 50}b{"é" * 50}")',
    'params.a.contains(params.w + "b" + params.w)', 'params.a.contains(params.x + "b" + params.x)',
]  # fmt: skip
FAILURES = [
    "1", "!1", "-[]", "1/0", "task.a", "item.a", 'nodes["b"].output', "min(item)", "params.h * params.h > 0", "[1][1]",
    "params.h + 1 > 0", f"{'!' * 60}1", f"{'-' * 60}[]", f"{'[' * 60}-[]{']' * 60}", '"".matches(1)', "params.names.x",
]  # fmt: skip
PATTERNS = [
    r"^(a+)+$", r"(a|a)*b", r"^(a?){20}a{20}b$", r"(?i)([a-z0-9]?){10}[Kk-l]$", r"(?:^|\b|\B){1,50}$",
    r"(?:a{1,5}){1,20}b", r"[[:alpha:]]" * 13, r"\pL" * 40, f"(?i){'k' * 140}", "(?:)" * 100, "a{1}" * 100,
    "((((a))))" * 9, r"(?i)\PL\pN|[^\pL]" * 5, r"^[a-z]{1,900}$", "a" * 500,
    f"(?:{'|'.join(f'a{chr(97 + number % 26)}' for number in range(100))})x",
]  # fmt: skip
SINGLE = [
    "params.l", "params.o", "params.d", "params.t", "params.a", "params.e", "[params.e, params.e]", "params.wide",
    "params.names.long_naem_number_77_of_myna_such_things", "params.names.long_name_number_0_of_many_such_things",
    f"params.n{'.a' * 61}", f"output{'.a' * 2000}", "false ? 1 : " * 300 + "1", f"min({'item,' * 63}1)",
    f"[{'1,' * 2000}]", f"[{'item,' * 800}]", "{" + ",".join(f'"{number}":1' for number in range(450)) + "}",
    f"[{'params.d,' * 400}]", f"[{'params.w,' * 400}]", "params.a + params.a",
]  # fmt: skip


def repeated(part: str, sign: str) -> str:
    """As often as the length and the steps allow."""
    count = (MAX_TEXT - 2) // (len(part) + len(sign))
    while count > 1:
        text = sign.join([part] * count)
        try:
            parse_expression(text, ROOTS)
        except ExprSyntaxError:
            count = count * 2 // 3
        else:
            return text
    return part


@pytest.mark.parametrize("part", VALUES, ids=range(len(VALUES)))
def test_values(part: str) -> None:
    assert_fast(repeated(part, "+"))
    assert_fast(f"[{repeated(part, ',')}]")


@pytest.mark.parametrize("part", TRUTHS, ids=range(len(TRUTHS)))
def test_conditions(part: str) -> None:
    assert_fast(repeated(part, "||"))
    assert_fast(repeated(part, "&&"))


@pytest.mark.parametrize("part", FAILURES, ids=range(len(FAILURES)))
def test_failures_that_are_absorbed(part: str) -> None:
    assert_fast(repeated(part, "||"))


@pytest.mark.parametrize("pattern", PATTERNS, ids=range(len(PATTERNS)))
def test_patterns(pattern: str) -> None:
    for text in ("params.a", "params.x", "params.w"):
        assert_fast(f"{text}.matches(r'{pattern}')")
        assert_fast(f"{text}.matches('' + r'{pattern}')")
    assert_fast(repeated(f"'aé'.matches('' + r'{pattern}')", "||"))


@pytest.mark.parametrize("text", SINGLE, ids=range(len(SINGLE)))
def test_large_values(text: str) -> None:
    assert_fast(text)


def assert_fast(text: str) -> None:
    assert is_fast(parse_expression(text, ROOTS), SCOPE), f"{text[:200]} takes more than a millisecond"


# A charge that is forgotten would be seen above only where a machine is slow.
STEPS = {
    "1": 1,
    "1 + 1": 5,
    "item + item - item": 8,
    "item < 1 && vars": 7,
    "vars ? item : 2": 5,
    "-item": 3,
    "output.a.b.c": 12,
    "params.l[item]": 7,
    'nodes["a"].output.x': 5,
    "has(params.n.a)": 10,
    "{'a': item}": 13,
    "[item, item]": 13,
    "size(params.l)": 8,
    "params.l == params.m": 4815,
    "params.o == params.p": 3015,
    "params.a == params.b": 137,
    "params.a < params.b": 137,
    "params.a + ''": 135,
    "params.l + params.l == []": 316,
    "7 in params.l": 2410,
    "'z' in params.t": 2010,
    "params.x in params.t": 36012,
    "[] in params.l": 9613,
    "params.x in params.o": 26,
    "has(task[params.x])": 27,
    "{params.x: 1}": 32,
    "min(params.l)": 2412,
    "max(params.t)": 2103,
    "1 || true": 16,
    "task.a || true": 18,
    f"double('{'1' * 100}')": 39,
    "params.a.startsWith(params.b)": 139,
    "params.a.endsWith(params.b)": 139,
    "params.w.contains('b')": 10,
    "params.w.contains(params.w + 'b')": 15,
    "params.x.contains(params.w + 'b')": 1273,
    "params.a.contains(params.w + 'b')": 2754,
    "params.w.matches('a+b')": 253,
    "params.w.matches('' + 'a+b')": 388,
    "params.l": 2408,
    "params.o": 3008,
    "params.wide[0]": 7,
}


@pytest.mark.parametrize(("text", "wanted"), STEPS.items(), ids=STEPS)
def test_the_steps_are_those_of_the_parts_and_of_what_they_look_at(text: str, wanted: int) -> None:
    assert steps(text) == wanted


def steps(text: str) -> int:
    """How many steps it takes; those of the parts are taken off what is left when it is read."""
    expression = parse_expression(text, ROOTS)
    meter = [expression._steps + PLENTY]
    measure(expression._run(SCOPE, meter), meter, (0, 0))
    return MAX_STEPS + PLENTY - meter[0]


def test_what_an_evaluation_may_take_does_not_depend_on_earlier_ones() -> None:
    expression = parse_expression("params.a.matches('x') || params.w.matches('a+b')", ROOTS)

    said = set()
    for _ in range(3):
        with pytest.raises(ExprError) as caught:
            expression.evaluate(SCOPE)
        said.add(str(caught.value))
    assert len(said) == 1
