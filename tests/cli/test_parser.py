"""What can be said on the command line, and what is said about what cannot."""

from __future__ import annotations

import subprocess
import sys

import pytest

import flowkit
from flowkit.cli import main
from flowkit.cli.parser import make_parser
from flowkit.cli.parser_service import KINDS
from tests.cli.conftest import Cli

COMMANDS = ("run", "worker", "coordinator", "tasks", "trace", "flows", "graph", "schema", "doctor", "service")
VERBS = ("list", "show", "cancel", "pause", "resume", "restart", "explain", "watch", "logs")
TRACE_VERBS = ("show", "waterfall", "critical-path", "bottlenecks", "slowest", "history", "compare")
FLOW_VERBS = ("put", "list", "show", "versions", "tag", "untag", "diff", "validate")


def test_the_version_is_the_package_s(cli: Cli) -> None:
    assert cli("--version").out == f"flowkit {flowkit.__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        (),
        *((name,) for name in COMMANDS),
        *(("tasks", verb) for verb in VERBS),
        *(("flows", verb) for verb in FLOW_VERBS),
        *(("trace", verb) for verb in TRACE_VERBS),
        *(("service", name) for name in KINDS),
    ],
)
def test_every_command_explains_itself(words: tuple[str, ...], cli: Cli) -> None:
    ran = cli(*words, "--help")

    assert ran.code == 0
    assert ran.out.startswith(f"usage: {' '.join(('flowkit', *words))}")


@pytest.mark.parametrize(
    "words",
    [
        (), ("rnu",), ("tasks",), ("tasks", "remove"), ("tasks", "show"), ("run", "g.json", "--timeout", "soon"),
        ("run", "g.json", "--timeout", "-1"), ("run", "g.json", "--slots", "0"), ("tasks", "list", "--limit", "none"),
        ("tasks", "list", "--limit", "1001"),
        ("tasks", "watch", "T", "--since", "-1"), ("tasks", "restart", "T", "--from", "a", "--failed-only"),
        ("graph", "g.json", "--check", "--mermaid"), ("run", "g.json", "--hand", "app"),
        ("flows", "put", "etl"), ("flows", "tag", "etl@1"),
    ],
)  # fmt: skip
def test_bad_usage_is_exit_code_2(words: tuple[str, ...], cli: Cli) -> None:
    ran = cli(*words)

    assert ran.code == 2
    assert ran.out == ""
    assert "usage: flowkit" in ran.err


def test_a_wrong_number_is_named(cli: Cli) -> None:
    assert "argument --timeout: 'soon' is not a number of seconds above 0" in cli("run", "g", "--timeout", "soon").err
    assert "argument --slots: '0' is not a whole number above 0" in cli("run", "g", "--slots", "0").err
    assert "'x' is not a whole number from 0 on" in cli("tasks", "watch", "T", "--since", "x").err


@pytest.mark.parametrize("place", [0, 1, 2])
def test_common_options_may_stand_before_and_behind_a_verb(place: int) -> None:
    words = ["tasks", "show", "T"]
    words[place + 1 : place + 1] = ["--db", "x.db"]

    args = make_parser().parse_args(words)

    assert (args.db, args.task, args.verb) == ("x.db", "T", "show")


@pytest.mark.parametrize("words", [["--debug", "doctor"], ["doctor", "--debug"], ["tasks", "list", "--debug"]])
def test_debug_may_stand_anywhere(words: list[str]) -> None:
    assert make_parser().parse_args(words).debug is True


def test_a_mistyped_command_costs_no_heavy_import() -> None:
    heavy = {"asyncio", "msgspec", "pydantic", "rich", "aiokafka", "pymongo"}
    script = f"import sys; from flowkit.cli import main; main(['rnu']); print(*({heavy!r} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "flowkit", "--version"], capture_output=True, text=True, check=True)

    assert done.stdout == f"flowkit {flowkit.__version__}\n"


def test_the_command_is_installed() -> None:
    from importlib.metadata import entry_points

    (entry,) = entry_points(group="console_scripts", name="flowkit")
    assert entry.load() is main


@pytest.mark.parametrize(
    ("words", "usage", "meant"),
    [
        (("rnu", "g.json"), "flowkit", "run"),
        (("tasks", "shw", "last"), "flowkit tasks", "show"),
        (("service", "npuu"), "flowkit service", "npu"),
        (("trace", "slowest", "--by", "cpuu"), "flowkit trace slowest", "cpu"),
        (("run", "g.json", "--handler", "app"), "flowkit run", "--handlers"),
        (("tasks", "list", "--lable=a=b"), "flowkit tasks list", "--label"),
        (("service", "npu", "--prot", "1"), "flowkit service npu", "--port"),
    ],
)
def test_a_word_that_is_misspelt_has_the_nearest_and_the_usage_of_its_own_command(
    words: tuple[str, ...], usage: str, meant: str, cli: Cli
) -> None:
    ran = cli(*words)

    assert ran.code == 2
    assert f"usage: {usage} [" in ran.err
    assert f"(did you mean '{meant}'?)" in ran.err


def test_a_word_like_no_other_is_said_as_it_is(cli: Cli) -> None:
    assert cli("run", "g.json", "--frobnicate").err.endswith("error: unrecognized arguments: --frobnicate\n")


@pytest.mark.parametrize("words", [("s3cr3t-value",), ("--value", "s3cr3t-value"), ("--value=s3cr3t-value",)])
def test_a_secret_that_is_given_as_an_argument_is_not_repeated(words: tuple[str, ...], cli: Cli) -> None:
    ran = cli("secrets", "set", "KEY", *words)

    assert ran.code == 2
    assert "a value is never an argument: give it on stdin, or at the prompt" in ran.err
    assert "s3cr3t" not in ran.err + ran.out


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "soon"])
def test_a_pass_is_good_for_a_number_of_seconds(text: str, cli: Cli) -> None:
    ran = cli("service", "npu", "--pass", "12345678-1234-5678-1234-567812345678", f"--valid={text}")

    assert (ran.code, f"argument --valid: '{text}' is not a number of seconds above 0" in ran.err) == (2, True)
