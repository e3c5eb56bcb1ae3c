"""What a failure says: what was seen, and what to do. Each takes the text of the part that failed."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

from flowkit.core.expr.regex.problem import PatternError
from flowkit.core.payload import Artifact
from flowkit.core.problems import shown

LONGEST_NAME: Final = 40
SLIP: Final = 2  # characters
FEW: Final = 20
MANY: Final = 200


def seen(value: Any) -> str:
    """A value as a message shows it."""
    return "an artifact" if type(value) is Artifact else shown(value)


def no_root(_part: str, name: str) -> str:
    return f"{name} has no value here"


def no_output(part: str, node: str) -> str:
    return f"node {shown(node)} has no output (it was skipped, failed, or has not ended); has({part}) asks first"


def no_field(part: str, value: Mapping[str, Any], name: str) -> str:
    return f"the object has no {shown(name)}{_nearest(name, value)}; has({part}) asks first"


def no_element(part: str, value: list[Any], index: int) -> str:
    count = len(value)
    there = "is empty" if not count else f"has {count} element{'s' * (count != 1)}, the first is [0]"
    return f"there is no element {shown(index)}, the list {there}; has({part}) asks first"


def no_step(part: str, value: Any, key: Any) -> str:
    match value, key:
        case dict(), _:
            return f"a field is named by a string, found {seen(key)}"
        case list(), str():
            return f"a list has no fields, so no {shown(key)}; write x[0], size(x) or `value in x`"
        case list(), _:
            return f"an element is found by an integer from 0 on, found {seen(key)}"
    if type(value) is Artifact:
        return unreadable(part, value)
    what = f"field {shown(key)}" if isinstance(key, str) else f"element {seen(key)}"
    return f"found {seen(value)}, which has no {what}; has({part}) asks first"


def unreadable(_part: str, value: Any) -> str:
    if type(value) is Artifact:
        return "found an artifact, a value over 64 KiB, which no expression reads; let the node give what is asked for"
    return f"found {seen(value)}, which JSON cannot say"


def not_boolean(_part: str, sign: str, value: Any) -> str:
    return f"`{sign}` takes true or false, found {seen(value)}; compare it with something"


def not_ordered(_part: str, sign: str, left: Any, right: Any) -> str:
    return f"`{sign}` compares two numbers or two strings, found {seen(left)} and {seen(right)}"


def not_container(_part: str, left: Any, right: Any) -> str:
    if isinstance(right, str):
        return f"`in` looks into lists and objects, found {seen(right)}; write text.contains(part)"
    if isinstance(right, dict):
        return f"an object's keys are strings, found {seen(left)} on the left of `in`"
    return f"`in` looks into lists and objects, found {seen(right)}"


def not_computable(_part: str, sign: str, left: Any, right: Any) -> str:
    say = f"cannot compute {seen(left)} {sign} {seen(right)}"
    if sign == "+" and (isinstance(left, str) or isinstance(right, str)):
        return f"{say}; make a string of the other with string(x)"
    return f"{say}; `+` takes numbers, strings or lists" if sign == "+" else f"{say}; `{sign}` takes numbers"


def not_whole(_part: str, left: Any, right: Any) -> str:
    return f"`%` takes integers, found {seen(left)} and {seen(right)}; write int(x)"


def not_negatable(_part: str, value: Any) -> str:
    return f"`-` takes a number, found {seen(value)}"


def overflow(_part: str, sign: str, left: Any, right: Any) -> str:
    return f"{seen(left)} {sign} {seen(right)} is beyond 64 bits; compute with floats: double(x)"


def not_finite(_part: str, sign: str, left: Any, right: Any) -> str:
    return f"{seen(left)} {sign} {seen(right)} is no number that JSON can say"


def by_zero(_part: str, sign: str, left: Any) -> str:
    return f"{seen(left)} {sign} 0 has no value; ask first, as in x == 0 ? 0 : y {sign} x"


def not_a_key(_part: str, key: Any) -> str:
    return f"a key is a string, found {seen(key)}; write string(x)"


def key_twice(_part: str, key: str) -> str:
    return f"the key {shown(key)} stands here twice"


def _nearest(name: str, value: Mapping[Any, Any]) -> str:
    # Comparing names as it is done at the door would cost more than all of an evaluation may.
    if len(name) > LONGEST_NAME:
        return ""
    known = [key for key in islice(value, MANY) if isinstance(key, str) and abs(len(key) - len(name)) <= SLIP]
    found = next((key for key in known[:FEW] if _alike(name, key)), None)
    return f" (did you mean {shown(found)}?)" if found else ""


def _alike(one: str, other: str) -> bool:
    """Whether all that differs stands together, and is short."""
    shorter = min(len(one), len(other))
    begin = next((at for at in range(shorter) if one[at] != other[at]), shorter)
    end = next((at for at in range(shorter - begin) if one[-1 - at] != other[-1 - at]), shorter - begin)
    return max(len(one), len(other)) - begin - end <= SLIP < len(one)


def no_size(_part: str, value: Any) -> str:
    return f"size() takes a string, a list or an object, found {seen(value)}"


def no_extreme(_part: str, name: str, value: Any) -> str:
    if value == []:
        return f"an empty list has no {name}; ask first, as in size(x) > 0"
    return f"{name}() takes a list, or two values or more, found {seen(value)}"


def no_integer(_part: str, value: Any) -> str:
    return f"int() takes a number or its digits, within 64 bits, found {seen(value)}"


def no_double(_part: str, value: Any) -> str:
    return f"double() takes a number or its text, such as '1.5', found {seen(value)}"


def no_string(_part: str, value: Any) -> str:
    return f"string() takes a string, a number or a boolean, found {seen(value)}"


def bad_pattern(_part: str, pattern: str, error: PatternError) -> str:
    return f"the pattern {shown(pattern)} cannot be used, from its character {error.position + 1} on: {error.say}"


def not_text(_part: str, name: str, text: Any, part: Any) -> str:
    if name == "contains" and isinstance(text, list):
        return f"contains() looks into text; write {seen(part)} in x"
    return f"{name}() takes two strings, found {seen(text)} and {seen(part)}"
