"""What is said about an expression that cannot be read, or that has no value: where, what was seen, what to do."""

from __future__ import annotations

import gc
import re
from contextlib import suppress
from typing import Any

import pytest

from flowkit.core.expr import ExprError, ExprSyntaxError, parse_expression
from flowkit.core.expr.limits import MAX_DEPTH, MAX_SIZE, MAX_TEXT
from flowkit.errors import FlowKitError

ALLOWED = {"params", "output", "nodes"}
SCOPE: dict[str, Any] = {
    "params": {
        "mode": "full",
        "count": 3,
        "list": [1, 2],
        "none": None,
        "empty": [],
        "huge": 10**5000,
        "a b": 1,
        "m" * 40: 1,
    },
    "output": {"errors": 3, "text": "x" * MAX_SIZE, "wide": "é" * (MAX_SIZE // 2), "numbers": [0] * 4000},
    "nodes": {"a": {"output": {"x": 5}}, "b": {}},
}


def refusal(text: str, allowed: Any = ALLOWED) -> ExprSyntaxError:
    with pytest.raises(ExprSyntaxError) as caught:
        parse_expression(text, allowed)
    return caught.value


def failure(text: str) -> ExprError:
    expression = parse_expression(text, ALLOWED)
    with pytest.raises(ExprError) as caught:
        expression.evaluate(SCOPE)
    return caught.value


# Reading.


@pytest.mark.parametrize(
    ("text", "position", "say"),
    [
        ("", 0, "the expression is empty; write a condition or a value, such as output.errors > 0"),
        (" // x", 5, "the expression is empty"),
        ("params.", 7, 'expected a field behind the dot, found the end; other names are written x["name"]'),
        ("params..x", 7, "expected a field behind the dot, found `.`"),
        ("params.mode ==", 14, "expected a value, found the end"),
        ("== 1", 0, "expected a value, found `==`"),
        ("params.x ++ 1", 10, "expected a value, found `+`"),
        ("1 2", 2, "expected an operator or the end, found `2`"),
        ("'it''s'", 4, '''expected an operator or the end, found "'s'"'''),
        ("(1", 2, "expected `)` to close the parenthesis, found the end"),
        ("[1 2]", 3, "expected `,` or `]` to end the list, found `2`"),
        ("params[]", 7, "expected a value, found `]`"),
        ("params['a' 'b']", 11, "expected `]` behind an index"),
        ("{'a' 1}", 5, "expected `:` between a key and its value, found `1`"),
        ("{'a': 1", 7, "expected `,` or `}` to end the map, found the end"),
        ("{1: 2}", 1, "a key is a string, found 1; put it in quotes"),
        ("{a: 1}", 1, 'a key is a string; write "a"'),
        ("params.mode = 'x'", 12, "'=' means nothing here; compare with =="),
        ("true & true", 5, "'&' means nothing here; write &&"),
        ("true | true", 5, "'|' means nothing here; write ||"),
        ("$params.x", 0, "write params.x, not $params.x"),
        ("params.x;", 8, "';' means nothing here"),
        ("'abc", 0, "this string does not end; close it with the quote that it began with"),
        ('1 + "a\nb"', 4, "this string does not end"),
        ("1 + '''abc'", 4, "this string does not end"),
        ("params.é", 7, """names are ASCII letters, digits and _; write x["é"] for any other field"""),
        ("params.x and true", 9, "found `and`; write &&"),
        ("params.x and params.y = 3", 9, "found `and`; write &&"),
        ("params.x or true", 9, "found `or`; write ||"),
        ("params.x is null", 9, "found `is`; write =="),
        ("not params.x", 0, "not is not a name of this language; write !"),
        ("True", 0, "True is not a name of this language; write true"),
        ("params.x == None", 12, "None is not a name of this language; write null"),
        ("prams.x", 0, "there is no 'prams' (did you mean 'params'?); here are params, output, nodes"),
        ("tru", 0, "there is no 'tru' (did you mean 'true'?)"),
        ("item.x", 0, "item has no value at this place; here are params, output, nodes"),
        ("size", 0, "size is a function; call it, as in size(x)"),
        ("contains", 0, "contains is a function; call it, as in text.contains(part)"),
        ("f(1)", 0, "there is no function 'f'; there are size, min, max, int, double, string, contains, startsWith"),
        ("sise('a')", 0, "there is no function 'sise' (did you mean 'size'?)"),
        ("'a'.contain('b')", 4, "there is no method 'contain' (did you mean 'contains'?)"),
        ("len('a')", 0, "there is no function len; write size(x)"),
        ("'a'.length()", 4, "there is no method length; write size(x)"),
        ("contains('a', 'b')", 0, "contains is not a function; write text.contains(part)"),
        ("params.x.min()", 9, "min is not a method; write min(a, b) or min(list)"),
        ("params.has()", 7, "has is not a method; write has(x.y)"),
        ("size()", 0, "size takes 1 argument, not 0: size(x)"),
        ("min()", 0, "min takes 1 to 64 arguments, not 0: min(a, b) or min(list)"),
        ("'a'.startsWith('b', 'c')", 4, "startsWith takes 1 argument, not 2: text.startsWith(part)"),
        ("has(params)", 0, "has() asks about a field or an index, such as has(params.mode) or has(output.rows[0])"),
        ("has(params.x == 1)", 0, "has() asks about a field or an index"),
        ("has('a'.size())", 0, "has() asks about a field or an index"),
        ("has(params.x, 1)", 0, "has takes 1 argument, not 2"),
        ("nodes", 0, 'nodes are named by a literal: nodes["id"].output'),
        ("nodes.a.output", 0, 'nodes are named by a literal: nodes["id"].output'),
        ("1 + nodes['a']", 4, 'nodes are named by a literal: nodes["id"].output'),
        ("nodes['a'].error", 0, 'nodes are named by a literal: nodes["id"].output'),
        ("nodes['a' + 'b'].output", 0, 'nodes are named by a literal: nodes["id"].output'),
        ("nodes[params.x].output", 0, 'nodes are named by a literal: nodes["id"].output'),
        ("params.list.0", 11, "found `.0`; an element is written x[0]"),
        ("1 < 2 < 3", 6, "comparisons do not chain; write a < b && b < c, or use parentheses"),
        ("1 < 2 == true", 6, "comparisons do not chain"),
        ("true ? 1", 8, "expected `:` between the two values of a choice, found the end"),
        ("true ? true ? 1 : 2 : 3", 12, "found `?`; put a choice that stands in another in parentheses"),
        ("1u", 1, "there are no unsigned numbers here, as there are none in JSON; leave the u out"),
        ("1abc", 1, "a number ends before 'a'; put a sign or a space between them"),
        ("9223372036854775808", 0, "an integer has at most 64 bits; write it as a float, such as 1e20"),
        ("0xFFFFFFFFFFFFFFFFFF", 0, "an integer has at most 64 bits"),
        ("-9223372036854775809", 1, "an integer has at most 64 bits"),
        ("1" * 4000, 0, "an integer has at most 64 bits"),
        ("1e999", 0, "1e999 is beyond what a float can hold, which is about 1.8e308"),
        ("b'x'", 0, "a string has no prefix 'b'; only r, for raw, is known"),
        (r"'a\q'", 2, r"there is no escape \q; there are \\ "),
        (r"'\u12'", 1, r"there is no escape \u"),
        (r"'\ud800'", 1, r"\ud800 is no Unicode character; write one beyond \uFFFF as \U0001F600"),
        (r"'\U00110000'", 1, r"\U00110000 is no Unicode character"),
        ("'\ud800'", 0, "a lone surrogate is not a character; decode the text properly"),
        ("'a'.matches('a**')", 12, "this pattern cannot be used, from its character 3 on: * is followed by another"),
        ("'a'.matches('(?=a)')", 12, "from its character 1 on: looking ahead, (?=...), needs going back in the text"),
    ],
)
def test_what_cannot_be_read_is_said_and_where(text: str, position: int, say: str) -> None:
    error = refusal(text)

    assert say in error.reason
    assert error.position == position
    assert str(error).startswith(error.reason)
    assert error.code == "E_EXPR_PARSE"
    assert isinstance(error, FlowKitError)


def test_the_message_shows_the_place() -> None:
    assert str(refusal("params.mode = 'x'")) == (
        "column 13: '=' means nothing here; compare with ==\n"
        "    params.mode = 'x'\n"
        "                ^"
    )  # fmt: skip


def test_the_message_shows_the_line_of_a_longer_text() -> None:
    assert str(refusal("params.count > 0\n  && params.mod = 3\n  || true")) == (
        "line 2, column 17: '=' means nothing here; compare with ==\n"
        "      && params.mod = 3\n"
        "                    ^"
    )  # fmt: skip


def test_the_message_shows_a_part_of_a_long_line() -> None:
    excerpt = str(refusal(f"{'1 + ' * 50}= + {'1 + ' * 50}1")).splitlines()[1:]

    assert excerpt == [
        "    ...1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + = + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1 + ...",
        "                                           ^",
    ]


def test_nothing_can_be_used_where_nothing_is_allowed() -> None:
    assert "no name can be used here, only literals" in refusal("params.x", ()).reason
    assert parse_expression("1 + 1", ()).evaluate({}) == 2


# Running.


@pytest.mark.parametrize(
    ("text", "part", "say"),
    [
        ("params.cuont > 0", "params.cuont", "the object has no 'cuont' (did you mean 'count'?); has("),
        ("params.mod == 'x'", "params.mod", "the object has no 'mod' (did you mean 'mode'?)"),
        ("params.x.y.z", "params.x", "the object has no 'x'; has(params.x) asks first"),
        ("params['x']", "params['x']", "the object has no 'x'; has(params['x']) asks first"),
        ("params['a' + 'b']", "params['a' + 'b']", "the object has no 'ab'; has"),
        ("params.mode.x", "params.mode.x", "found 'full', which has no field 'x'; has(params.mode.x) asks first"),
        ("params.none.x", "params.none.x", "found null, which has no field 'x'"),
        ("params.mode[0]", "params.mode[0]", "found 'full', which has no element 0"),
        ("params.list[2]", "params.list[2]", "there is no element 2, the list has 2 elements, the first is [0]; has("),
        ("params.list[-1]", "params.list[-1]", "there is no element -1"),
        ("params.empty[0]", "params.empty[0]", "there is no element 0, the list is empty"),
        ("params.list.x", "params.list.x", "a list has no fields, so no 'x'; write x[0], size(x) or `value in x`"),
        ("params.list[1.0]", "params.list[1.0]", "an element is found by an integer from 0 on, found 1.0"),
        ("params.list[true]", "params.list[true]", "an element is found by an integer from 0 on, found true"),
        ("params[1]", "params[1]", "a field is named by a string, found 1"),
        ("nodes['b'].output", "nodes['b'].output", "node 'b' has no output (it was skipped, failed, or has"),
        ("nodes['c'].output.x", "nodes['c'].output", "node 'c' has no output"),
        ("1 + params.count > 'a'", "1 + params.count > 'a'", "compares two numbers or two strings, found 4 and 'a'"),
        ("params.none < 1", "params.none < 1", "`<` compares two numbers or two strings, found null and 1"),
        ("true <= false", "true <= false", "found true and false"),
        ("[1] >= [0]", "[1] >= [0]", "found a list and a list"),
        ("1 + 2 + 'a' + 3", "1 + 2 + 'a'", "cannot compute 3 + 'a'; make a string of the other with string(x)"),
        ("[1] + 1", "[1] + 1", "cannot compute a list + 1; `+` takes numbers, strings or lists"),
        ("2 * true", "2 * true", "cannot compute 2 * true; `*` takes numbers"),
        ("(1 - 'a') * 2", "1 - 'a'", "cannot compute 1 - 'a'; `-` takes numbers"),
        ("{} + {}", "{} + {}", "cannot compute an object + an object"),
        ("5 % 2.0", "5 % 2.0", "`%` takes integers, found 5 and 2.0; write int(x)"),
        ("1 / 0", "1 / 0", "1 / 0 has no value; ask first, as in x == 0 ? 0 : y / x"),
        ("1.5 / 0.0", "1.5 / 0.0", "1.5 / 0 has no value"),
        ("1 % 0", "1 % 0", "1 % 0 has no value"),
        ("9223372036854775807 + 1", "9223372036854775807 + 1", "is beyond 64 bits; compute with floats: double(x)"),
        ("-9223372036854775808 - 1", "-9223372036854775808 - 1", "is beyond 64 bits"),
        ("-9223372036854775808 / -1", "-9223372036854775808 / -1", "is beyond 64 bits"),
        ("4611686018427387904 * 2", "4611686018427387904 * 2", "is beyond 64 bits"),
        ("-(-9223372036854775808)", "-(-9223372036854775808)", "is beyond 64 bits"),
        ("params.huge + 1", "params.huge + 1", "a huge integer + 1 is beyond 64 bits"),
        ("params.huge * 0", "params.huge * 0", "is beyond 64 bits"),
        ("params.huge % 2", "params.huge % 2", "is beyond 64 bits"),
        ("params.huge / 1.5", "params.huge / 1.5", "is beyond 64 bits"),
        ("1e308 * 10", "1e308 * 10", "1e+308 * 10 is no number that JSON can say"),
        ("-'a'", "-'a'", "`-` takes a number, found 'a'"),
        ("-true", "-true", "`-` takes a number, found true"),
        ("!1", "1", "`!` takes true or false, found 1; compare it with something"),
        ("params.list && true", "params.list", "`&&` takes true or false, found a list"),
        ("false || params.none", "params.none", "`||` takes true or false, found null"),
        ("params.mode ? 1 : 2", "params.mode", "`?` takes true or false, found 'full'"),
        ("params.x && params.y", "params.x", "the object has no 'x'"),
        ("'a' in 'abc'", "'a' in 'abc'", "`in` looks into lists and objects, found 'abc'; write text.contains(part)"),
        ("1 in params", "1 in params", "an object's keys are strings, found 1 on the left of `in`"),
        ("1 in 2", "1 in 2", "`in` looks into lists and objects, found 2"),
        ("size(1)", "size(1)", "size() takes a string, a list or an object, found 1"),
        ("params.count.size()", "params.count.size()", "size() takes a string, a list or an object, found 3"),
        ("min(params.empty)", "min(params.empty)", "an empty list has no min; ask first, as in size(x) > 0"),
        ("max(1)", "max(1)", "max() takes a list, or two values or more, found 1"),
        ("min(1, 'a')", "min(1, 'a')", "`min` compares two numbers or two strings, found 1 and 'a'"),
        ("max([1, true])", "max([1, true])", "found 1 and true"),
        ("min([null])", "min([null])", "found null and null"),
        ("int('x')", "int('x')", "int() takes a number or its digits, within 64 bits, found 'x'"),
        ("int(1e30)", "int(1e30)", "within 64 bits, found 1e+30"),
        ("int('9223372036854775808')", "int('9223372036854775808')", "within 64 bits"),
        ("int(true)", "int(true)", "found true"),
        ("double('x')", "double('x')", "double() takes a number or its text, such as '1.5', found 'x'"),
        ("double('1e999')", "double('1e999')", "found '1e999'"),
        ("double('nan')", "double('nan')", "found 'nan'"),
        ("double(params.huge)", "double(params.huge)", "found a huge integer"),
        ("string(null)", "string(null)", "string() takes a string, a number or a boolean, found null"),
        ("string(params.huge)", "string(params.huge)", "found a huge integer"),
        ("params.list.contains(1)", "params.list.contains(1)", "contains() looks into text; write 1 in x"),
        ("'a'.contains(1)", "'a'.contains(1)", "contains() takes two strings, found 'a' and 1"),
        ("params.count.startsWith('a')", "params.count.startsWith('a')", "startsWith() takes two strings, found 3 "),
        ("params.count.matches('a')", "params.count.matches('a')", "matches() takes two strings, found 3 and 'a'"),
        ("'a'.matches('(' + '')", "'a'.matches('(' + '')", "the pattern '(' cannot be used, from its character 1 on"),
        ("{params.mode: 1, 'full': 2}", "'full'", "the key 'full' stands here twice"),
        ("{params.count + 0: 1}", "params.count + 0", "a key is a string, found 3; write string(x)"),
    ],
)  # fmt: skip
def test_what_has_no_value_is_said_and_where(text: str, part: str, say: str) -> None:
    error = failure(text)

    assert say in str(error)
    assert str(error).startswith(f"in `{part}`: ")
    assert error.part == part
    assert text[error.position :].startswith(part)
    assert error.code == "expr_error"
    assert isinstance(error, FlowKitError)


def test_a_root_without_a_value_is_said() -> None:
    with pytest.raises(ExprError, match="in `output`: output has no value here"):
        parse_expression("output.x", ALLOWED).evaluate({"params": {}})


def test_a_node_is_missing_where_the_scope_has_no_nodes() -> None:
    with pytest.raises(ExprError, match="node 'a' has no output"):
        parse_expression("nodes['a'].output", ALLOWED).evaluate({})


def test_parentheses_belong_to_the_part_that_is_shown() -> None:
    assert failure("(1 + 2) * ('a' + 'b')").part == "(1 + 2) * ('a' + 'b')"


def test_a_long_part_is_shortened_and_on_one_line() -> None:
    error = failure(f"'a\\n' +\n\t// why\n 1 + '{'x' * 200}'")
    assert error.part == r"'a\n' + // why 1"

    error = failure(f"'{'x' * 200}' + 1")
    assert error.part == "'" + "x" * 76 + "..."


def test_a_long_value_is_shortened() -> None:
    assert f"found '{'x' * 57}...'" in str(failure("output.text.x"))


def test_the_first_failure_is_told_when_none_is_absorbed() -> None:
    assert failure("params.a && params.b && true").part == "params.a"
    assert failure("params.a || 1 || false").part == "params.a"


def test_a_name_is_looked_for_among_few_and_short_ones() -> None:
    """Comparing names is dearer than all of an evaluation may be."""
    expression = parse_expression("params.count", ALLOWED)

    def said(*names: str) -> str:
        with pytest.raises(ExprError) as caught:
            expression.evaluate({"params": dict.fromkeys(names, 1)})
        return str(caught.value)

    others = [f"other{number}" for number in range(30)]
    assert "did you mean 'cuont'" in said(*others[:15], "cuont")
    assert "did you mean" not in said(*others, "cuont")
    assert "did you mean" not in str(failure(f"params.{'m' * 41}"))


def test_a_failure_keeps_no_frames_alive() -> None:
    error = failure("params.a && params.b")

    assert error.__context__ is None
    assert error.__cause__ is None


@pytest.mark.parametrize(
    "text",
    ["params.a && params.b", "params.a || 1 / 0 == 1 || true", "output.text.matches('x')", "1 +", "'a", "nodes.x",
     "'a'.matches('(')", "'aaab'.matches('a*a+b')", "'a'.matches('(' + '')", "params.list[2]", "f(1)",
     "output.text + 'x' == '' || true"],
)  # fmt: skip
def test_nothing_is_left_for_the_cycle_collector(text: str) -> None:
    gc.collect()
    gc.disable()
    try:
        with suppress(ExprError, ExprSyntaxError):
            parse_expression(text, ALLOWED).evaluate(SCOPE)
        assert gc.collect() == 0
    finally:
        gc.enable()


# Limits.


def test_an_expression_has_a_length() -> None:
    longest = "1" + " " * (MAX_TEXT - 1)

    assert parse_expression(longest, ()).evaluate({}) == 1
    error = refusal(longest + " ")
    assert error.reason == "an expression has at most 4,096 characters, this one has 4,097; compute it in a node"
    assert error.position == MAX_TEXT


@pytest.mark.parametrize(
    ("opening", "closing"),
    [("(", ")"), ("[", "]"), ("{'a': ", "}"), ("!", ""), ("-", ""), ("size(", ")"), ("1 + (", ")"), ("params[", "]"),
     ("true || true && 1 == 1 + 1 * (", ")"), ("false ? 1 : (", ")"), ("true ? (", ") : 1"), ("'a'.contains(", ")")],
)  # fmt: skip
def test_an_expression_has_a_depth(opening: str, closing: str) -> None:
    deep = opening * 100 + "1" + closing * 100

    assert "an expression is nested at most 64 deep; compute a part of it in a node" in refusal(deep).reason


def test_the_deepest_expression_is_possible() -> None:
    depth = MAX_DEPTH - 1
    assert parse_expression("(" * depth + "1" + ")" * depth, ()).evaluate({}) == 1
    assert parse_expression("[" * depth + "]" * depth, ()).evaluate({})
    assert "nested at most 64 deep" in refusal("[" * (depth + 2) + "]" * (depth + 2)).reason


def test_what_stands_side_by_side_is_not_deep() -> None:
    assert parse_expression("0" + " + 1 - 1" * 400 + " + 7", ()).evaluate({}) == 7
    assert parse_expression("false || " * 400 + "true", ()).evaluate({}) is True
    assert parse_expression("false ? 1 : " * 300 + "2", ()).evaluate({}) == 2
    assert parse_expression("params" + ".a" * 200, {"params"}).roots == {"params"}


def test_an_expression_that_takes_too_many_steps_anyway_is_refused_at_once() -> None:
    assert re.search(r"running it takes 6,1\d\d steps or more, and may take 5,000", refusal("1" + "+1" * 2047).reason)


@pytest.mark.parametrize(
    "text",
    ["output.numbers + [1] == output.numbers + [1] || true", "[output.numbers, output.numbers]",
     "false && true || output.text.matches('x')", "[1 in output.numbers, 2 in output.numbers]",
     "'a'.matches(output.text)", "output.text.contains('x' + 'y') || output.text.contains('xx' + 'yy') ||"
     " output.text.contains('xxx' + 'yy')"],
)  # fmt: skip
def test_an_evaluation_has_a_number_of_steps(text: str) -> None:
    say = "an evaluation takes at most 5,000 steps, and this one needs more; give it smaller values"

    assert say in str(failure(text))


@pytest.mark.parametrize(
    "text",
    ["output.text + 'x'", "[output.text]", "{'a': output.text}", "[output.wide, 'x']", "'x' + output.text + '' == ''"],
)
def test_a_result_has_a_size(text: str) -> None:
    assert "what an expression makes or gives is at most 65,536 bytes" in str(failure(text))


def test_the_largest_result_is_possible() -> None:
    assert parse_expression("output.text", ALLOWED).evaluate(SCOPE) == SCOPE["output"]["text"]
    assert parse_expression("output.wide", ALLOWED).evaluate(SCOPE) == SCOPE["output"]["wide"]


def test_the_patterns_of_an_expression_share_a_size() -> None:
    many = " || ".join(["'a'.matches('a{1000}')"] * 2)

    assert parse_expression(many, ()).evaluate({}) is False
    error = refusal(f"{many} || 'a'.matches('a{{1000}}')")
    assert "the patterns so far have more than 2,100 parts when their repetitions are written out" in error.reason
    assert error.position == 64


def test_limits_are_not_absorbed() -> None:
    assert "bytes" in str(failure("output.text + 'x' == '' || true"))
    assert "steps" in str(failure("output.text.matches('x') || true"))
