"""Handlers become roles."""

from __future__ import annotations

import functools
import types
from typing import Any

import pytest

import flowkit
from flowkit.errors import ConfigError
from flowkit.worker.handlers.base import RoleHandler
from flowkit.worker.registry import Kind, Registry, handler


def greet(name: str) -> str:
    return name


async def shout(text: str) -> str:
    return text.upper()


class Indexer(RoleHandler):
    role = "indexer"


def module(**things: Any) -> types.ModuleType:
    made = types.ModuleType("made")
    for name, thing in things.items():
        setattr(made, name, thing)
    return made


def test_a_list_names_roles_by_functions() -> None:
    registry = Registry([greet, shout])

    assert registry.roles == ["greet", "shout"]
    assert [role.kind for role in registry] == [Kind.PLAIN, Kind.ASYNC]
    assert registry.get("nobody") is None


def test_a_dict_names_roles_itself() -> None:
    registry = Registry({"a.b-1": greet, "double": lambda n: 2 * n, "indexer": Indexer()})

    assert registry.roles == ["a.b-1", "double", "indexer"]


def test_a_module_gives_its_own_public_functions() -> None:
    def own() -> None: ...
    def _private() -> None: ...

    own.__module__ = _private.__module__ = "made"

    assert Registry(module(own=own, _private=_private, greet=greet)).roles == ["own"]


def test_a_module_gives_its_marked_functions_if_it_has_some() -> None:
    @flowkit.handler
    def marked() -> None: ...

    @flowkit.handler(role="named.so")
    async def other() -> None: ...

    def own() -> None: ...

    own.__module__ = "made"

    assert Registry(module(own=own, marked=marked, other=other)).roles == ["marked", "named.so"]


def test_a_module_without_functions_is_refused() -> None:
    with pytest.raises(ConfigError, match="no public function"):
        Registry(module())


def test_the_decorator_sets_defaults() -> None:
    @handler(role="greeting", retry_policy={"max": 5}, timeout_sec=2.5)
    def polite(name: str) -> str:
        return name

    role = Registry([polite]).get("greeting")

    assert role is not None
    assert role.said.retry_policy == {"max": 5}
    assert role.said.timeout_sec == 2.5
    assert polite("Ada") == "Ada"


def test_the_name_in_a_dict_counts_more_than_the_decorator() -> None:
    @handler(role="greeting")
    def polite() -> None: ...

    assert Registry({"other": polite}).roles == ["other"]


def test_two_handlers_for_one_role_are_refused() -> None:
    with pytest.raises(ConfigError, match="two handlers for the role 'greet'"):
        Registry([greet, greet])


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, "...", "a/b", "ü"])
def test_a_role_that_no_node_could_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a role"):
        Registry({name: greet})


@pytest.mark.parametrize("name", ["sleep", "code", "task"])
def test_a_built_in_role_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="built in"):
        Registry({name: greet})
    with pytest.raises(ConfigError, match="built in"):
        handler(role=name)


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(ConfigError, match="a lambda has no name"):
        Registry([lambda: None])


@pytest.mark.parametrize("given", ["greet", 5, {"a": 5}, [5], {5: greet}, {"a": int}])
def test_what_is_no_handler_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError):
        Registry(given)


def test_generators_make_batches() -> None:
    def yields():  # type: ignore[no-untyped-def]
        yield 1

    async def yields_too():  # type: ignore[no-untyped-def]
        yield 1

    for function in (yields, yields_too, functools.partial(yields)):
        (role,) = Registry([function])
        assert role.yields
        assert role.kind is Kind.ASYNC
    (role,) = Registry([len])
    assert not role.yields


def test_async_is_seen_through_partials_and_objects() -> None:
    class Callable:
        async def __call__(self) -> None: ...

    registry = Registry({"a": functools.partial(shout, text="x"), "b": Callable()})

    assert [role.kind for role in registry] == [Kind.ASYNC, Kind.ASYNC]


def test_an_instance_takes_turns_and_a_class_does_not() -> None:
    class Free(Indexer):
        concurrent = True

    one, many, free = Registry([Indexer()]), Registry([Indexer]), Registry([Free()])

    assert [r.get("indexer").in_turn for r in (one, many, free)] == [True, False, False]  # type: ignore[union-attr]
    assert many.get("indexer").call() is not many.get("indexer").call()  # type: ignore[union-attr]
    assert one.get("indexer").call() is one.get("indexer").call()  # type: ignore[union-attr]


def test_where_all_roles_take_turns_there_is_room_for_one_of_each() -> None:
    assert Registry([Indexer()]).room(16) == 1
    assert Registry({"a": Indexer(), "b": Indexer()}).room(16) == 2
    assert Registry({"a": Indexer(), "b": Indexer()}).room(1) == 1
    assert Registry({"a": Indexer(), "b": greet}).room(16) == 16
    assert Registry([Indexer]).room(16) == 16
    assert Registry().room(16) == 16


def test_only_some_roles_may_be_served() -> None:
    registry = Registry([greet, shout])

    assert registry.only(["shout", "shout"]).roles == ["shout"]
    with pytest.raises(ConfigError, match=r"no handler for the role 'gret' \(did you mean 'greet'\?\)"):
        registry.only(["gret"])


def test_a_timeout_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="more than 0"):
        handler(timeout_sec=0)


def test_one_function_is_told_from_a_list_of_them() -> None:
    with pytest.raises(ConfigError, match=r"handlers must be a list of functions, .*: write handlers=\[greet\]"):
        Registry(greet)
