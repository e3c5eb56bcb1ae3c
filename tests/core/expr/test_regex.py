"""Patterns: what they match, what is refused, and that nothing takes more than linear time."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.core.expr.failure import Exceeded
from flowkit.core.expr.limits import MAX_PATTERN, MAX_PROGRAM
from flowkit.core.expr.regex import PatternError, build, parse_pattern, search, size_of
from tests.thorough import at_night

PLENTY = 10**9


def matches(pattern: str, text: str, steps: int = PLENTY) -> bool:
    return steps_of(pattern, text, steps)[0]


def steps_of(pattern: str, text: str, steps: int = PLENTY) -> tuple[bool, int]:
    parsed = parse_pattern(pattern)
    size_of(parsed)
    meter = [steps]
    return search(build(parsed), text, meter, (0, 0)), steps - meter[0]


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("", ["", "a"], []),
        ("abc", ["abc", "xabcx"], ["ab", "ABC", ""]),
        ("^abc$", ["abc"], ["abc\n", "xabc"]),
        ("a|b|", ["a", "b", ""], []),
        ("^(?:a|bc|)d$", ["ad", "bcd", "d"], ["bd", "acd"]),
        ("^a*$", ["", "aaa"], ["b", "ab"]),
        ("^a+?b??$", ["a", "aab"], ["b", "abb"]),
        ("^a{2}$", ["aa"], ["a", "aaa"]),
        ("^a{2,}$", ["aa", "aaaa"], ["a"]),
        ("^a{0,2}?$", ["", "a", "aa"], ["aaa"]),
        ("^(ab){2,3}$", ["abab", "ababab"], ["ab", "abababab", "aba"]),
        ("^a{,2}$", ["a{,2}"], ["aa"]),
        ("^a{x}{$", ["a{x}{"], []),
        ("^.$", ["a", "é", "\U0001f600"], ["\n", "", "ab"]),
        ("(?s)^.$", ["\n"], [""]),
        ("(?s:^.)x", ["\nx"], []),
        ("(?i)straße", ["STRAßE", "straße"], ["strasse"]),
        ("(?i)^k$", ["k", "K", "\u212a"], ["c"]),
        ("(?i)^\u212a$", ["k", "K"], []),
        ("(?i)^[^k]$", ["a"], ["K", "\u212a"]),
        ("(?i)[a-c]é", ["Bé", "bÉ"], ["dé"]),
        ("a(?i)b|c", ["aB", "C"], ["AB"]),
        ("(?i:a)b", ["Ab"], ["AB"]),
        ("(?i)a(?-i:b)", ["Ab"], ["AB"]),
        ("(?im-s)^b.c", ["a\nBxC"], ["b\nc"]),
        ("(?m)^b$", ["a\nb\nc", "b"], ["ab"]),
        (r"\Ab\z", ["b"], ["b\n", "a\nb"]),
        (r"(?m)\Ab", ["b"], ["a\nb"]),
        (r"\bfoo\b", ["foo", "a foo.", "éfooé"], ["food", "_foo"]),
        (r"\Boo\B", ["foods"], ["foo", "oo"]),
        (r"^\d\D\w\W\s\S$", ["1aa- x", "0__ \tx"], ["1aa-  ", "٣aa- x"]),
        (r"^\s$", [" ", "\t", "\n", "\r", "\f"], ["\v", "\u00a0"]),
        (r"^\w$", ["a", "_", "9"], ["é", "-"]),
        (r"^[\w.-]+@[\d\-x]+$", ["a.b-c@1-x"], ["a@y", "@1"]),
        (r"^[]a]+$", ["]a"], ["b"]),
        (r"^[^]a]$", ["b"], ["]", "a"]),
        (r"^[a-]$", ["-", "a"], ["b"]),
        (r"^[-a]$", ["-", "a"], []),
        (r"^[a\-c]$", ["-"], ["b"]),
        (r"^[a-c-e]$", ["b", "-", "e"], ["d"]),
        (r"^[\d-z]$", ["5", "-", "z"], ["a"]),
        (r"^[^\D5]$", ["4"], ["5", "a"]),
        (r"^[^a]$", ["\n", "b"], ["a"]),
        (r"^[[:alpha:][:digit:]]$", ["q", "7"], ["_", ":"]),
        (r"^[[:^space:]]$", ["q"], [" ", "\v"]),
        (r"^[[:punct:]]$", ["!", "~", "`", "["], ["a", " "]),
        (r"^[[a]$", ["[", "a"], []),
        (r"^[\]\\]$", ["]", "\\"], ["a"]),
        (r"^\pL\p{Lu}\PN\p{^L}\P{^Nd}$", ["éÉx77", "aBc-5"], ["ééx77"]),
        (r"^[\pL\d]$", ["é", "5"], ["-"]),
        (r"^\p{Any}$", ["\n", "x"], [""]),
        (r"^\x41\x{1F600}\t\n\r\f\v\a\101\0$", ["A\U0001f600\t\n\r\f\v\aA\0"], []),
        (r"^\.\*\+\?\(\)\[\]\{\}\|\^\$\\\/\-\_$", [".*+?()[]{}|^$\\/-_"], []),
        (r"^\Qa.b*\E+$", ["a.b*", "a.b**"], ["aXb*"]),
        (r"\Qa(", ["a("], []),
        ("^(?P<year>[0-9]{4})-(?<month>[0-9]{2})$", ["2027-01"], ["2027-1"]),
        ("(?U)^a+$", ["aa"], []),
        ("^*a", ["a", "ba"], []),
        ("^(?:)$", [""], ["a"]),
        ("^(a|)*b$", ["b", "aab"], ["c"]),
        ("x$|^y", ["ax", "ya"], ["xy z"]),
        ("(^|,)b(,|$)", ["b", "a,b", "b,c", "a,b,c"], ["ab", "bc"]),
        ("", ["\ud800"], []),
    ],
)
def test_a_pattern_matches(pattern: str, yes: list[str], no: list[str]) -> None:
    assert {text: matches(pattern, text) for text in yes + no} == dict.fromkeys(yes, True) | dict.fromkeys(no, False)


@pytest.mark.parametrize(
    ("pattern", "position", "say"),
    [
        (r"(a)\1", 3, r"\1 refers to a group, which needs going back in the text, and this engine never does"),
        (r"(?P<a>x)(?P=a)", 8, "a reference to a group, (?P=...), needs going back"),
        (r"\k<a>", 0, "references to groups need going back"),
        ("a(?=b)", 1, "looking ahead, (?=...), needs going back in the text"),
        ("(?!a)", 0, "looking ahead"),
        ("(?<=a)", 0, "looking behind"),
        ("(?<!a)", 0, "looking behind"),
        ("(?>a)", 0, "an atomic group"),
        ("(?(1)a|b)", 0, "a condition"),
        ("(?#x)", 0, "after (? stands a flag (i, m, s, U), a colon, or P<name>"),
        ("(?)", 0, "after (? stands a flag"),
        ("(?z)a", 0, "after (? stands a flag"),
        ("(?P<a>x)(?P<a>y)", 8, "two groups are named a"),
        ("(a", 0, "this group does not end; close it with )"),
        ("a)", 1, r") closes nothing; write \) for the sign itself"),
        ("[a", 0, "this class does not end; close it with ]"),
        ("[]", 0, "this class does not end"),
        ("[a-", 0, "this class does not end"),
        ("[b-a]", 1, r"b-a is no range; write \- for the sign itself"),
        (r"[a-\d]", 1, "is no range"),
        ("[[:letter:]]", 1, "there is no class [:letter:]; there are alnum, alpha"),
        (r"[\b]", 1, r"there is no escape \b; leave the backslash out"),
        ("*a", 0, r"* repeats nothing; write \* for the sign itself"),
        ("a|+", 2, "+ repeats nothing"),
        ("(?i)?", 4, "? repeats nothing"),
        ("a**", 2, "* is followed by another repetition; put the first into a group, (?:...)"),
        ("a++", 2, "+ is followed by another repetition"),
        ("a{2}{3}", 4, "{2} is followed by another repetition"),
        ("a{1001}", 1, "{1001}: at most 1,000 repetitions can be asked for"),
        ("a{1,1001}", 1, "at most 1,000"),
        ("a{3,2}", 1, "{3,2}: the most is less than the least"),
        ("a\\", 1, "a backslash ends the pattern; write two for the sign itself"),
        (r"\Z", 0, r"there is no escape \Z; write \z or $"),
        (r"\y", 0, r"there is no escape \y; leave the backslash out"),
        (r"\é", 0, "there is no escape"),
        (r"\p", 0, r"write \p{Lu}, or \pL, with a general category of Unicode"),
        (
            r"\p{Greek}",
            0,
            "there is no category 'Greek'; there are Unicode's general ones, such as L, Lu, Nd and P, and no",
        ),
        (r"\p{lu}", 0, "there is no category 'lu' (did you mean 'Lu'?)"),
        (r"\x{110000}", 0, r"\x{110000} is no Unicode character"),
        (r"\xg", 0, r"there is no escape \x"),
    ],
)
def test_what_is_wrong_with_a_pattern_is_said_and_where(pattern: str, position: int, say: str) -> None:
    with pytest.raises(PatternError, match=re.escape(say)) as caught:
        matches(pattern, "")

    assert caught.value.position == position


# Against Python's engine, where both mean the same.

CHARACTERS = "abAB01_- \n"
ATOMS = st.sampled_from(
    ["a", "b", "A", "1", "-", " ", r"\n", ".", "[ab]", "[^a]", "[a-b1]", r"[\d_]", r"[^\w\n]", r"\d", r"\D", r"\w",
     r"\W", r"\s", r"\S", r"\b", r"\B", "^", "$", "(?:)"]
)  # fmt: skip
REPETITIONS = st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{0,1}", "{2,}", "*?", "+?", "??", "{1,3}?"])


def larger(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return (
        st.lists(parts, min_size=2, max_size=4).map("".join)
        | st.lists(parts, min_size=2, max_size=3).map(lambda several: f"(?:{'|'.join(several)})")
        | st.tuples(parts, REPETITIONS).map(lambda pair: f"(?:{pair[0]}){pair[1]}")
        | parts.map(lambda part: f"({part})")
        | st.tuples(st.sampled_from(["i", "s", "m", "im", "-i"]), parts).map(lambda pair: f"(?{pair[0]}:{pair[1]})")
    )


PATTERNS = st.recursive(ATOMS, larger, max_leaves=8)


@given(PATTERNS, st.lists(st.text(CHARACTERS, max_size=7), min_size=1, max_size=8))
@settings(max_examples=at_night(400))
def test_a_pattern_matches_what_python_matches(pattern: str, texts: list[str]) -> None:
    ours = build(parse_pattern(pattern))
    theirs = re.compile(as_python_has_it(pattern), re.ASCII)

    found = [search(ours, text, [PLENTY], (0, 0)) for text in texts]

    assert found == [theirs.search(text) is not None for text in texts]


def as_python_has_it(pattern: str) -> str:
    # Python's $ also matches before a newline that ends the text, unless (?m) is on: then both mean the same.
    # Its \B does not match in an empty text.
    pattern = pattern.replace(r"\B", r"(?!\b)")
    return re.sub(r"\$", lambda found: r"$(?:(?=\n)|\Z)" if in_lines(pattern[: found.start()]) else r"\Z", pattern)


def in_lines(before: str) -> bool:
    """Whether what follows `before` stands in a group with the flag m."""
    stack = [False]
    for opening in re.finditer(r"\(\?([a-z-]*):|\(|\)", before):
        if opening[0] == ")":
            stack.pop()
        else:
            stack.append(stack[-1] or "m" in (opening[1] or ""))
    return stack[-1]


# Time.


@pytest.mark.parametrize(
    ("pattern", "unit"),
    [
        ("^(a+)+$", "a"),
        ("(a|a)*b", "a"),
        ("(a|aa)+$", "a"),
        ("(.*)*x", "a"),
        ("^(([a-z])+.)+[A-Z]([a-z])+$", "a"),
        ("(x+x+)+y", "x"),
        (r"(\d+,?)*;", "1"),
        ("(?:a?){20}a{20}$", "a"),
        ("a*a*a*a*a*a*b", "a"),
        (r"(\w|\b)+!", "ab "),
    ],
)
def test_time_is_linear_in_the_text(pattern: str, unit: str) -> None:
    some = steps_of(pattern, unit * 500 + "\x00")[1]
    more = steps_of(pattern, unit * 1000 + "\x00")[1]

    assert more <= 2 * some + 100


def test_time_is_linear_in_the_text_also_when_nothing_repeats() -> None:
    """Every character finds another set of ways through the program, so that nothing that was worked out helps."""
    text = "".join("ab"[bin(number).count("1") % 2] for number in range(2000))

    some, more = (steps_of("(?:a|b){0,10}c", text[:length])[1] for length in (1000, 2000))

    assert more <= 2 * some + 100


@pytest.mark.parametrize(
    "pattern",
    [
        "(a{1000}){1000}",
        "((a{100}){100}){100}",
        "(((){1000}){1000}){1000}",
        "(?:a{0,1000}){0,1000}",
        "(?:(?:a|b){500}){3}",
    ],
)
def test_repetitions_of_repetitions_are_refused_by_their_size(pattern: str) -> None:
    with pytest.raises(PatternError, match=f"more than {MAX_PROGRAM:,} parts when its repetitions are written out"):
        matches(pattern, "a")


def test_the_longest_repetition_is_possible() -> None:
    assert matches("^a{1000}$", "a" * 1000)
    assert not matches("^a{1000}$", "a" * 999)


def test_a_pattern_has_a_length() -> None:
    assert matches("a" * MAX_PATTERN, "a" * MAX_PATTERN)
    with pytest.raises(PatternError, match="a pattern has at most 1,024 characters, not 1,025"):
        parse_pattern("a" * (MAX_PATTERN + 1))


def test_groups_nest_to_a_depth() -> None:
    assert matches("(" * 64 + "a" + ")" * 64, "a")
    with pytest.raises(PatternError, match="groups are nested at most 64 deep"):
        parse_pattern("(" * 65 + "a" + ")" * 65)


def test_a_search_stops_when_its_steps_are_used_up() -> None:
    needed = steps_of("(a|b)+c", "abab" * 20)[1]

    assert matches("(a|b)+c", "abab" * 20, needed) is False
    with pytest.raises(Exceeded):
        matches("(a|b)+c", "abab" * 20, needed - 1)


def test_what_a_search_costs_does_not_depend_on_earlier_ones() -> None:
    program = build(parse_pattern("[a-z]+@[a-z]+"))
    spent = []
    for _ in range(2):
        meter = [PLENTY]
        search(program, "somebody@somewhere", meter, (0, 0))
        spent.append(PLENTY - meter[0])

    assert spent[0] == spent[1]
