"""Graphs, params and handlers, as a command line names them."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowkit.cli.console import UsageError, UserCodeError
from flowkit.cli.loading import load_graph, load_handlers, load_object, load_params, read_value
from flowkit.cli.settings import Project
from flowkit.errors import ConfigError
from tests.cli.conftest import HELLO

Module = Callable[[str, str], None]


@pytest.fixture
def module(folder: Path) -> Module:
    def write(name: str, text: str) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write


# Graphs.


def test_a_graph_is_a_file_or_stdin_or_a_dict_of_a_module(
    folder: Path, module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    module("flows.py", f"HELLO = {HELLO!r}\n\nclass All:\n    hello = HELLO\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(HELLO)))

    assert load_graph("hello.json") == HELLO
    assert load_graph("-") == HELLO
    assert load_graph("flows:HELLO") == HELLO
    assert load_graph("flows:All.hello") == HELLO


def test_a_file_whose_name_looks_like_a_module_is_a_file(folder: Path) -> None:
    (folder / "a:b").write_text(json.dumps(HELLO))
    assert load_graph("a:b") == HELLO


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"nodes": [}', "is not JSON: Expecting value at line 1, column 12"),
        (b'{"nodes": NaN}', "is not JSON: NaN is not JSON"),
        (b"", "is not JSON: Expecting value at line 1, column 1"),
        (b"[" * 100_000, "is not JSON: "),
        (b'{"a": "\xff"}', "is not UTF-8 text"),
    ],
)
def test_what_is_no_json_is_refused_with_its_place(content: bytes, message: str, folder: Path) -> None:
    (folder / "bad.json").write_bytes(content)
    with pytest.raises(UsageError, match=f"bad.json {message}"):
        load_graph("bad.json")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("none.json", "cannot read none.json: No such file"),
        (".", "cannot read .: Is a directory"),
        ("nowhere:G", "there is no module 'nowhere'"),
        ("flows:GRPAH", r"flows:GRPAH: flows has no 'GRPAH' \(did you mean 'GRAPH'\?\)"),
        ("flows:f", "flows:f is a function: a graph is a dict"),
        ("flows:L", "flows:L is a list: a graph is a dict"),
    ],
)
def test_what_names_no_graph_is_refused(given: str, message: str, module: Module) -> None:
    module("flows.py", "GRAPH = {}\nL = []\ndef f(): ...\n")
    with pytest.raises(UsageError, match=message):
        load_graph(given)


# Params.


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("1e3", 1000.0), ("true", True), ("null", None), ('"3"', "3"), ('{"a": [1]}', {"a": [1]}),
        ("Ada", "Ada"), ("007", "007"), ("NaN", "NaN"), ("Infinity", "Infinity"), ("", ""), ("a=b", "a=b"),
        ("2026-11-21", "2026-11-21"), ("[1", "[1"), (str(10**40), 10**40), ("[" * 100_000, "[" * 100_000),
    ],
)  # fmt: skip
def test_a_value_is_json_where_it_reads_as_json_and_text_elsewhere(text: str, value: Any) -> None:
    assert read_value(text) == value
    assert type(read_value(text)) is type(value)


def test_params_of_a_file_are_replaced_by_those_given_one_by_one(folder: Path) -> None:
    (folder / "params.json").write_text('{"a": 1, "b": 2}')
    assert load_params(["b=3", "c=x=y"], "params.json") == {"a": 1, "b": 3, "c": "x=y"}
    assert load_params([], None) == {}


def test_params_may_come_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"a": 1}'))
    assert load_params([], "-") == {"a": 1}


@pytest.mark.parametrize(
    ("text", "kind"), [("[1]", "a list"), ('"x"', "text"), ("null", "null"), ("3", "a number"), ("true", "a boolean")]
)
def test_params_are_an_object(text: str, kind: str, folder: Path) -> None:
    (folder / "params.json").write_text(text)
    with pytest.raises(UsageError, match=f"params.json holds {kind}, not a JSON object"):
        load_params([], "params.json")


def test_a_param_has_a_name() -> None:
    with pytest.raises(ConfigError, match="--param takes NAME=VALUE, not 'Ada'"):
        load_params(["Ada"], None)


# Handlers.


def test_handlers_are_a_module_or_something_in_it(module: Module) -> None:
    module("steps.py", "def a(): ...\ndef b(): ...\nD = {'x.y': a}\nL = [b]\ndef _hidden(): ...\n")

    assert list(load_handlers(["steps"], Project())) == ["a", "b"]
    assert list(load_handlers(["steps:a"], Project())) == ["a"]
    assert list(load_handlers(["steps:D", "steps:L"], Project())) == ["x.y", "b"]


def test_marked_functions_and_classes_are_named_as_they_say(module: Module) -> None:
    module(
        "steps.py",
        "import flowkit\nfrom flowkit.worker import RoleHandler\n"
        "@flowkit.handler(role='greet.v2')\ndef greet(): ...\ndef helper(): ...\n"
        "class Etl(RoleHandler):\n    role = 'etl'\n",
    )
    assert list(load_handlers(["steps", "steps:Etl"], Project())) == ["greet.v2", "etl"]


def test_a_handlers_file_may_be_named_by_its_path(module: Module) -> None:
    module("deep/down/steps.py", "import beside\ndef a(): ...\n")
    module("deep/down/beside.py", "")

    assert list(load_handlers(["deep/down/steps.py"], Project())) == ["a"]
    assert list(load_handlers(["deep/down/steps.py:a"], Project())) == ["a"]
    with pytest.raises(UsageError, match=r"there is no file deep/steps\.py"):
        load_handlers(["deep/steps.py"], Project())


def test_without_arguments_the_project_names_the_handlers(module: Module, folder: Path, tmp_path_factory: Any,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    module("steps.py", "def a(): ...\n")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)

    assert list(load_handlers([], Project(folder, {"handlers": "steps"}))) == ["a"]
    assert list(load_handlers([], Project(folder, {"handlers": ["steps:a"]}))) == ["a"]
    assert load_handlers([], Project()) == {}


def test_one_role_has_one_handler(module: Module) -> None:
    module("one.py", "def a(): ...\n")
    module("two.py", "def a(): ...\n")

    assert list(load_handlers(["one", "one:a"], Project())) == ["a"], "the same one twice does no harm"
    with pytest.raises(UsageError, match="two handlers for the role 'a'; the second is from two"):
        load_handlers(["one", "two"], Project())


def test_the_nearest_module_is_named(module: Module) -> None:
    module("handlers.py", "def a(): ...\n")
    with pytest.raises(UsageError, match=r"no module 'handler' here or on the path \(did you mean 'handlers'\?\)"):
        load_handlers(["handler"], Project())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_like_that", "module 'broken' cannot be imported: No module named 'nothing_like_that'"),
        ("def f(:", "module 'broken' cannot be imported: SyntaxError"),
        ("1 / 0", "module 'broken' cannot be imported: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "module 'broken' cannot be imported: it ends the program"),
    ],
)
def test_a_module_that_breaks_says_how(text: str, message: str, module: Module) -> None:
    module("broken.py", text)
    with pytest.raises(UserCodeError, match=message):
        load_object("broken")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("X = 3", "a handler is a function or a RoleHandler, not 3"),
        ("X = {3: len}", "a role is a string, not 3"),
        ("X = {'end': len}", "the role 'end' is built in"),
        ("X = lambda: 1", "a lambda has no name"),
    ],
)
def test_what_is_no_handler_is_refused(text: str, message: str, module: Module) -> None:
    module("odd.py", text)
    with pytest.raises(ConfigError, match=message):
        load_handlers(["odd:X"], Project())


def test_a_module_without_functions_is_refused(module: Module) -> None:
    module("empty.py", "X = 3")
    with pytest.raises(ConfigError, match="defines no public function"):
        load_handlers(["empty"], Project())


def test_a_file_that_is_not_there_has_the_nearest(folder: Path) -> None:
    with pytest.raises(
        UsageError, match=r"cannot read helo.json: No such file or directory \(did you mean 'hello.json"
    ):
        load_graph("helo.json")
    with pytest.raises(UsageError, match=r"cannot read nowhere/hello.json: No such file or directory$"):
        load_graph("nowhere/hello.json")


def test_yaml_is_told_from_json_that_is_broken(folder: Path) -> None:
    (folder / "flow.yaml").write_text("nodes:\n  - node_id: a\n")
    with pytest.raises(UsageError, match=r"flow.yaml is not JSON: .*; FlowKit reads JSON: turn YAML into it first"):
        load_graph("flow.yaml")
