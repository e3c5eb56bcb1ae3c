"""What `flowkit.records` makes behaves as what the standard library makes of the same class."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from flowkit import records

NAN = float("nan")
Makes = Callable[..., Callable[[type[Any]], type[Any]]]


def classes(dataclass: Makes) -> dict[str, type[Any]]:
    """The same ones, by this decorator."""

    @dataclass(frozen=True, slots=True)
    class Base:
        """In the text of its own."""

        at: int = field(default=0, compare=False, repr=False, kw_only=True)

    @dataclass(frozen=True, slots=True)
    class Frozen(Base):
        kinds: ClassVar[int] = 3

        a: Any
        b: Any = "b"
        c: list[Any] = field(default_factory=list, hash=False)

    @dataclass(frozen=True, slots=True)
    class One:
        a: Any

    @dataclass(frozen=True, slots=True)
    class Nothing: ...

    @dataclass(slots=True)
    class Mutable:
        a: Any
        known: dict[str, Any] = field(default_factory=dict, init=False)
        twice: Any = field(init=False, repr=False)

        def __post_init__(self) -> None:
            self.twice = self.a * 2

    @dataclass(slots=True, eq=False)
    class Itself:
        a: Any

    @dataclass(slots=True, unsafe_hash=True)
    class Hashed:
        a: Any
        b: Any = field(default=1, compare=False)

    @dataclass(frozen=True, slots=True)
    class Own:  # noqa: PLW1641 - what becomes of its hash is the question
        a: Any

        def __repr__(self) -> str:
            return "mine"

        def __eq__(self, other: object) -> bool:
            return isinstance(other, type(self))

    @dataclass(frozen=True, slots=True)
    class OwnHash:
        a: Any

        def __hash__(self) -> int:
            return 7

    return {kind.__name__: kind for kind in (Base, Frozen, One, Nothing, Mutable, Itself, Hashed, Own, OwnHash)}


ORIGINAL, OURS = classes(dataclass), classes(records.dataclass)
GIVEN: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("Base", (), {}), ("Base", (), {"at": 4}),
    ("Frozen", (1,), {}), ("Frozen", (1,), {"at": 5}), ("Frozen", (1, 2, [3]), {}), ("Frozen", (), {"b": 1, "a": NAN}),
    ("One", (1,), {}), ("One", (NAN,), {}), ("Mutable", (2,), {}), ("Itself", (1,), {}),
    ("Hashed", (1,), {}), ("Hashed", (1, 2), {}), ("Own", (1,), {}), ("OwnHash", (1,), {}),
]  # fmt: skip
# What cannot be made, and what it is given.
WRONG: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("Base", (1,), {}), ("Frozen", (), {}), ("One", (1, 2), {}), ("Mutable", (1,), {"known": {}}), ("One", (), {"x": 1})
]  # fmt: skip


def came_to(what: Callable[[], Any]) -> Any:
    try:
        return what()
    except Exception as error:
        return type(error), str(error)


@pytest.mark.parametrize("given", GIVEN, ids=str)
def test_an_object_is_what_it_would_be(given: tuple[str, tuple[Any, ...], dict[str, Any]]) -> None:
    name, args, named = given
    first = next(iter(ORIGINAL[name].__slots__), "at")
    seen = []
    for kinds in (ORIGINAL, OURS):
        one, same = kinds[name](*args, **named), kinds[name](*args, **named)
        seen.append([
            repr(one), one == same, one != same, one == 1, hasattr(one, "__dict__"),
            came_to(lambda one=one: {one: 1}[one]), came_to(lambda one=one, same=same: hash(one) == hash(same)),
            repr(dataclasses.asdict(one)), repr(copy.copy(one)), copy.deepcopy(one) == one,
            repr(dataclasses.replace(one)), came_to(lambda one=one: setattr(one, first, 9)), repr(one),
            came_to(lambda one=one: delattr(one, first)), came_to(lambda one=one: repr(one)),
        ])  # fmt: skip

    assert seen[0] == seen[1]


@pytest.mark.parametrize("given", WRONG, ids=str)
def test_what_cannot_be_made_is_refused_alike(given: tuple[str, tuple[Any, ...], dict[str, Any]]) -> None:
    name, args, named = given
    ours, original = (came_to(lambda kinds=kinds: kinds[name](*args, **named)) for kinds in (OURS, ORIGINAL))

    assert ours == original
    assert ours[0] is TypeError


@pytest.mark.parametrize("name", ORIGINAL)
def test_a_class_is_what_it_would_be(name: str) -> None:
    ours, original = OURS[name], ORIGINAL[name]

    assert str(inspect.signature(ours)) == str(inspect.signature(original))
    assert ours.__init__.__qualname__ == original.__init__.__qualname__
    assert ours.__match_args__ == original.__match_args__
    assert ours.__slots__ == original.__slots__
    assert (ours.__hash__ is None) is (original.__hash__ is None)
    assert [item.name for item in dataclasses.fields(ours)] == [item.name for item in dataclasses.fields(original)]
    assert dataclasses.is_dataclass(ours)
    assert ours.__doc__ == (None if name != "Base" else "In the text of its own.")


def test_one_without_fields_equals_another() -> None:
    nothing = OURS["Nothing"]

    assert (repr(nothing()), hash(nothing())) == (repr(ORIGINAL["Nothing"]()), hash(ORIGINAL["Nothing"]()))
    assert nothing() == nothing() != ORIGINAL["Nothing"]()


def test_one_that_holds_itself_is_shown() -> None:
    one, other = OURS["Mutable"](1), ORIGINAL["Mutable"](1)
    one.a, other.a = one, other

    assert repr(one) == repr(other)
    assert "..." in repr(one)


def test_nothing_of_a_frozen_one_changes_in_a_class_below_it() -> None:
    kind: Any = OURS["One"]

    class Below(kind):  # type: ignore[misc]
        pass

    one = Below(1)
    one.more = 2

    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'a'"):
        one.a = 2
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'a'"):
        del one.a
    assert (one.a, one.more, one == OURS["One"](1)) == (1, 2, False)


@pytest.mark.parametrize("name", ["Base", "Frozen", "One", "Nothing", "Own", "OwnHash"])
def test_a_frozen_one_takes_no_name_that_it_does_not_know(name: str) -> None:
    one = OURS[name]() if name in ("Base", "Nothing") else OURS[name](1)

    # The original stumbles over its own slots there, in Python 3.11.
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'unknown'"):
        one.unknown = 1


def test_what_it_does_not_make_is_refused() -> None:
    with pytest.raises(TypeError, match="makes classes with slots"):
        records.dataclass(slots=False)  # type: ignore[call-overload]
