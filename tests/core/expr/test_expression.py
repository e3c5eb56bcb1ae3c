"""What expressions give, by value."""

from __future__ import annotations

import math
from typing import Any

import pytest

from flowkit.core.expr import ExprError, Expression, parse_expression
from flowkit.core.expr.names import ROOTS
from flowkit.core.payload import Artifact

LARGEST = 2**63 - 1
SCOPE: dict[str, Any] = {
    "params": {"mode": "full", "n": 3, "list": [1, 2, 3], "none": None, "in": {"a b": 1}, "huge": 10**30, "half": 0.5},
    "output": {"errors": 2, "rows": [{"id": "x"}, {"id": "y"}], "text": "a\nb", "size": 9},
    "nodes": {"load": {"output": {"rows": 5}}, "a.b": {"output": None}, "skipped": {}},
    "item": "one",
    "index": 0,
    "vars": {},
    "task": {"big": Artifact("ref", 100_000, "json")},
}


def value_of(text: str, scope: dict[str, Any] = SCOPE) -> Any:
    return parse_expression(text, ROOTS).evaluate(scope)


def check(text: str, value: Any) -> None:
    found = value_of(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("42", 42),
        ("-7", -7),
        ("- 7", -7),
        ("0x1F", 31),
        ("-0X10", -16),
        ("9223372036854775807", LARGEST),
        ("-9223372036854775808", -LARGEST - 1),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("2.5E-1", 0.25),
        ("1.7976931348623157e308", 1.7976931348623157e308),
        ("true", True),
        ("false", False),
        ("null", None),
        ('""', ""),
        ("'\"'", '"'),
        ('"\'"', "'"),
        (r'"\\ \" \' \` \?"', "\\ \" ' ` ?"),
        (r"'\a\b\f\n\r\t\v'", "\a\b\f\n\r\t\v"),
        (r"'\x41\X41\u00e9\U0001F600\101'", "AAé\U0001f600A"),
        (r"r'\d+\n'", r"\d+\n"),
        (r'R"\"', "\\"),
        ("'''it's'''", "it's"),
        ('"""a\n"b" """', 'a\n"b" '),
        ("r'''\\n\n'''", "\\n\n"),
        ("'é😀'", "é😀"),
        ("[]", []),
        ("[1, 'a', [true], ]", [1, "a", [True]]),
        ("{}", {}),
        ("{'a': 1, 'b': {'c': null}, }", {"a": 1, "b": {"c": None}}),
        ("{'a' + 'b': params.n}", {"ab": 3}),
        ("1 // and nothing else", 1),
        (" \t\r\n\f1", 1),
        ("((1))", 1),
    ],
)
def test_literals_stand_for_themselves(text: str, value: Any) -> None:
    check(text, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('output.errors > 0 && params.mode == "full"', True),
        ("output.rows[1].id", "y"),
        ("output.rows", [{"id": "x"}, {"id": "y"}]),
        ("output.size", 9),
        ('params["in"]["a b"]', 1),
        ("params.in['a b']", 1),
        ("params['mo' + 'de']", "full"),
        ("output.rows[index].id", "x"),
        ("output.rows[params.n - 2].id", "y"),
        ("output . rows [ 0 ] . id", "x"),
        ('nodes["load"].output.rows', 5),
        ('nodes["a.b"].output', None),
        ("nodes[r'load'].output.rows", 5),
        ("{'a': [7]}.a[0]", 7),
        ("[4, 5][1]", 5),
        ("(output.rows[0]).id", "x"),
        ("item", "one"),
        ("params.huge", 10**30),
    ],
)
def test_paths_lead_into_the_scope(text: str, value: Any) -> None:
    check(text, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("has(params.mode)", True),
        ("has(params['mode'])", True),
        ("has(params.none)", True),
        ("has(params.none.x)", False),
        ("has(params.mode.x)", False),
        ("has(params.mode[0])", False),
        ("has(params.list[2])", True),
        ("has(params.list[3])", False),
        ("has(params.list[-1])", False),
        ("has(params.list['0'])", False),
        ("has(params.list[params.n])", False),
        ("has(params.list[params.n - 1])", True),
        ("has(params.other.x.y[0])", False),
        ("has(previous.x)", False),
        ("has({'a': 1}.a)", True),
        ('has(nodes["load"].output)', True),
        ('has(nodes["load"].output.rows)', True),
        ('has(nodes["load"].output.cows)', False),
        ('has(nodes["a.b"].output)', True),
        ('has(nodes["a.b"].output.x)', False),
        ('has(nodes["skipped"].output)', False),
        ('has(nodes["nowhere"].output.x)', False),
        ("has(task.big)", True),
    ],
)
def test_has_asks_whether_a_path_leads_somewhere(text: str, value: bool) -> None:
    check(text, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 - 4", -1),
        ("1 - 2 - 3", -4),
        ("2 + 3 * 4", 14),
        ("(2 + 3) * 4", 20),
        ("24 / 4 / 2", 3),
        ("7 / 2", 3),
        ("-7 / 2", -3),
        ("7 / -2", -3),
        ("7 % 3", 1),
        ("-7 % 3", -1),
        ("7 % -3", 1),
        ("7 / 2.0", 3.5),
        ("6.0 / 2", 3.0),
        ("1 + 0.5", 1.5),
        ("2 * 1.5", 3.0),
        ("3.0 - 1", 2.0),
        ("-params.n", -3),
        ("--3", 3),
        ("-(-params.half)", 0.5),
        ("2 - -2", 4),
        ("9223372036854775806 + 1", LARGEST),
        ("9223372036854775807 + 0.0", 9223372036854775807.0),
        ("'a' + 'b' + 'c'", "abc"),
        ("[1] + [] + ['a']", [1, "a"]),
        ("'rows of ' + params.mode", "rows of full"),
        ("'n = ' + string(params.n)", "n = 3"),
    ],
)
def test_arithmetic(text: str, value: Any) -> None:
    check(text, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 == 1.0", True),
        ("1 == true", False),
        ("0 == false", False),
        ("1.0 != true", True),
        ("null == null", True),
        ("null == false", False),
        ("'1' == 1", False),
        ("'a' == 'a'", True),
        ("'a' != 'b'", True),
        ("[1, [2.0, {'a': null}]] == [1.0, [2, {'a': null}]]", True),
        ("[1, 2] == [2, 1]", False),
        ("[1] == [true]", False),
        ("[1] == [1, 1]", False),
        ("{'a': 1, 'b': 2} == {'b': 2, 'a': 1}", True),
        ("{'a': 1} == {'a': true}", False),
        ("{'a': 1} == {'b': 1}", False),
        ("{'a': 1} != {'a': 1, 'b': 1}", True),
        ("[] == {}", False),
        ("params.huge == params.huge", True),
        ("params.huge > 1.5", True),
        ("params.list == [1, 2, 3]", True),
        ("1 < 2", True),
        ("2 <= 2.0", True),
        ("2.5 > 2", True),
        ("-1 >= 0", False),
        ("9007199254740993 > 9007199254740992.0", True),
        ("'a' < 'b'", True),
        ("'Z' < 'a'", True),
        ("'' < 'a'", True),
        ("'10' < '9'", True),
        ("params.mode >= 'full'", True),
        ("2 in [1, 2.0]", True),
        ("true in [1]", False),
        ("1 in [true, '1', null]", False),
        ("null in [null]", True),
        ("'b' in ['a', 'b']", True),
        ("[1] in [[1.0]]", True),
        ("{'a': 1} in [1, {'a': 1}]", True),
        ("params.n in params.list", True),
        ("9 in params.list", False),
        ("1 in []", False),
        ("'mode' in params", True),
        ("'mood' in params", False),
        ("item + '' in {'one': 1}", True),
    ],
)
def test_comparisons(text: str, value: bool) -> None:
    check(text, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true && true", True),
        ("true && false", False),
        ("false || true", True),
        ("false || false", False),
        ("!true", False),
        ("!!true", True),
        ("true || false && false", True),
        ("(true || false) && false", False),
        ("!false && false", False),
        ("(1 < 2) == true", True),
        ("true ? 1 : 2", 1),
        ("false ? 1 : 2", 2),
        ("false ? 1 : true ? 2 : 3", 2),
        ("false ? 1 : false ? 2 : 3", 3),
        ("true || false ? 1 : 2", 1),
        ("params.n > 2 ? 'many' : 'few'", "many"),
        ("true ? 1 : params.missing", 1),
        ("false ? params.missing : 2", 2),
        ("false && params.missing", False),
        ("params.missing && false", False),
        ("true || params.missing", True),
        ("params.missing || true", True),
        ("1 && false", False),
        ("'x' || true", True),
        ("params.missing && true && false", False),
        ("1 / 0 == 1 || params.missing.x > 3 || true", True),
        ("has(params.x) && params.x > 3", False),
        ("!has(params.x) || params.x > 3", True),
    ],
)
def test_conditions(text: str, value: Any) -> None:
    check(text, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("size('')", 0),
        ("size('é😀')", 2),
        ("'abc'.size()", 3),
        ("size([1, [2, 3]])", 2),
        ("params.list.size()", 3),
        ("size({'a': 1})", 1),
        ("min(3, 1, 2)", 1),
        ("max(3, 1.5)", 3),
        ("min(1, 1.0)", 1),
        ("max(params.list)", 3),
        ("min(['b', 'a'])", "a"),
        ("max('a', 'b')", "b"),
        ("min([5])", 5),
        ("'hello'.contains('ell')", True),
        ("'hello'.contains('')", True),
        ("'hello'.contains('elo')", False),
        ("'hello'.contains('hello there')", False),
        ("'hello'.startsWith('he')", True),
        ("'hello'.startsWith('el')", False),
        ("'hello'.startsWith('hello!')", False),
        ("'hello'.endsWith('lo')", True),
        ("'hello'.endsWith('')", True),
        ("'hello'.endsWith('ll')", False),
        ("'hello'.matches('l+')", True),
        ("'hello'.matches('^l+$')", False),
        ("'hello'.matches('^' + 'h')", True),
        (r"output.text.matches('(?m)^b$')", True),
        (r"'2027-01-31'.matches(r'^\d{4}-\d{2}-\d{2}$')", True),
        ("int(2.9)", 2),
        ("int(-2.9)", -2),
        ("int('42')", 42),
        ("int('-9223372036854775808')", -LARGEST - 1),
        ("int(7)", 7),
        ("double(3)", 3.0),
        ("double('1.5e3')", 1500.0),
        ("double('-.5')", -0.5),
        ("double(2.5)", 2.5),
        ("double(7) / 2", 3.5),
        ("string(3)", "3"),
        ("string(-0.5)", "-0.5"),
        ("string(1e100)", "1e+100"),
        ("string(true)", "true"),
        ("string('x')", "x"),
    ],
)
def test_functions(text: str, value: Any) -> None:
    check(text, value)


def test_an_expression_says_what_it_uses() -> None:
    expression = parse_expression(
        'nodes["b"].output.x > nodes["a"].output || nodes["b"].output.y in params.list', ROOTS
    )

    assert expression.text.startswith('nodes["b"]')
    assert expression.roots == {"nodes", "params"}
    assert expression.nodes == ("b", "a")


def test_an_expression_uses_what_it_only_asks_about() -> None:
    assert parse_expression('has(nodes["a"].output) || has(item.x)', ROOTS).nodes == ("a",)
    assert parse_expression("has(item.x)", ROOTS).roots == {"item"}


def test_expressions_are_values() -> None:
    one, other = (parse_expression("params.a + 1", ROOTS) for _ in range(2))

    assert one == other
    assert hash(one) == hash(other)
    assert one != parse_expression("params.a+1", ROOTS)
    assert repr(one) == "Expression(text='params.a + 1', roots=frozenset({'params'}), nodes=(), guarded=frozenset())"


def test_an_expression_is_read_once_and_computed_often() -> None:
    expression = parse_expression("params.n * 2", {"params"})

    assert [expression.evaluate({"params": {"n": n}}) for n in (1, 2, 1.5)] == [2, 4, 3.0]


def test_a_list_that_an_expression_makes_is_new_each_time() -> None:
    expression = parse_expression("[1, 2]", ROOTS)
    expression.evaluate({}).append(3)

    assert expression.evaluate({}) == [1, 2]


@pytest.mark.parametrize("character", ["a", "b", "é"])
@pytest.mark.parametrize("length", [300, 3_000, 40_000])
def test_a_part_is_found_in_a_long_text(character: str, length: int) -> None:
    def contains(text: str, part: str) -> Any:
        return parse_expression("params.text.contains(params.part)", ROOTS).evaluate(
            {"params": {"text": text, "part": part}}
        )

    filling, part = character * length, f"{character * 100}!{character * 100}"

    assert contains(f"{filling}!{filling}", part) is True
    assert contains(filling, part) is False
    assert contains(f"{filling}!{character * 99}", part) is False
    for last in "ab":
        assert contains(filling, character * 250 + last) is (last == character)


def test_an_artifact_may_be_passed_on() -> None:
    assert value_of("[task.big]") == [SCOPE["task"]["big"]]


@pytest.mark.parametrize(
    "text",
    ["task.big.x", "task.big[0]", "task.big == 1", "1 == task.big", "1 in [task.big]", "has(task.big.x)",
     "'a' in [1, task.big]", "task.big in [1]", "[task.big] == [[]]"],
)  # fmt: skip
def test_an_artifact_is_not_looked_into(text: str) -> None:
    with pytest.raises(ExprError, match="found an artifact, a value over 64 KiB, which no expression reads"):
        value_of(text)


@pytest.mark.parametrize("text", ["1e308 * 10", "-1e308 * 10", "1e308 + 1e308", "1e300 / 1e-300"])
def test_no_result_is_infinite(text: str) -> None:
    with pytest.raises(ExprError, match="is no number that JSON can say"):
        value_of(text)


def test_negative_zero_is_a_float_like_any_other() -> None:
    assert math.copysign(1, value_of("-0.0")) == -1
    check("-0.0 == 0", True)


def test_expressions_cannot_be_changed() -> None:
    expression = parse_expression("1", ROOTS)

    with pytest.raises(AttributeError):
        expression.text = "2"  # type: ignore[misc]
    assert isinstance(expression, Expression)
