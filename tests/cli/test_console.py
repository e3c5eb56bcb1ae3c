"""What is written to a terminal, a file or a pipe, and how errors are said."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from flowkit.cli import console
from flowkit.cli.console import UsageError, UserCodeError, clean, fancy, one_line, put_json, report, table
from flowkit.coordinator.views import Reason
from flowkit.errors import (
    BusUnavailable,
    ConfigError,
    GraphError,
    IdempotencyConflict,
    Problem,
    RequestRefused,
    StoreUnavailable,
    TaskNotFound,
    WaitTimeout,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_would_steer_the_terminal_is_spelled_out() -> None:
    assert clean("a\x1b[31mred\x07\x9b\r") == r"a\x1b[31mred\x07\x9b\x0d"
    assert clean("right\u202eleft") == r"right\x202eleft"
    assert clean("line\n\ttab é 漢") == "line\n\ttab é 漢"
    assert clean("\ud800") == r"\ud800"


def test_one_line_is_one_line_of_bounded_width() -> None:
    assert one_line("a\n  b\t c") == "a b c"
    assert one_line("x" * 500) == "x" * 197 + "..."


def test_results_are_json_in_any_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding, text in (("utf-8", '"é"\n'), ("ascii", '"\\u00e9"\n')):
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
        put_json("é")
        assert raw.getvalue().decode(encoding) == text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("\ud800", '"\\ud800"'),
        (10**40, str(10**40)),
        (b"\x00\xff", {"base64": "AP8="}),
        (Reason("n", "ready", "it is"), {"node_id": "n", "code": "ready", "message": "it is"}),
        ({"a": [b""]}, {"a": [{"base64": ""}]}),
    ],
)
def test_any_output_can_be_said(value: Any, said: Any, capsys: pytest.CaptureFixture[str]) -> None:
    put_json(value)
    out = capsys.readouterr().out
    assert json.loads(out) == (json.loads(said) if isinstance(said, str) else said)


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert fancy(Terminal())
    assert not fancy(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not fancy(Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not fancy(Terminal())


def test_a_table_is_aligned_columns(capsys: pytest.CaptureFixture[str]) -> None:
    table(("ID", "NAME", "X"), [("1", "a\nb", ""), ("22", "z" * 70, "y")])

    assert capsys.readouterr().out.splitlines() == [
        "ID  NAME" + " " * 58 + "X",
        "1   a b",
        "22  " + "z" * 57 + "...  y",
    ]


def test_a_table_in_a_terminal_has_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Terminal())

    table(("ID", "STATUS"), [("1", "finished"), ("2", "[red]x")])

    shown = sys.stdout.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[32mfinished" in shown
    assert "[red]x" in shown, "a name is no markup"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("no"), 2, "flowkit: no [E_USAGE]"),
        (ConfigError("no"), 2, "flowkit: no [E_CONFIG]"),
        (IdempotencyConflict("no"), 2, "flowkit: no [E_IDEMPOTENCY_CONFLICT]"),
        (TaskNotFound("no"), 1, "flowkit: no [E_TASK_UNKNOWN]"),
        (RequestRefused("no"), 1, "flowkit: no [E_REQUEST_REFUSED]"),
        (WaitTimeout("no"), 3, "flowkit: no [E_WAIT_TIMEOUT]"),
        (StoreUnavailable("no"), 1, "flowkit: no [E_STORE_UNAVAILABLE]; `flowkit doctor` tells more"),
        (BusUnavailable("no"), 1, "flowkit: no [E_BUS_UNAVAILABLE]; `flowkit doctor` tells more"),
        (UserCodeError("no"), 2, "flowkit: no"),
        (KeyError("x"), 1, "flowkit: internal error: KeyError: 'x'; --debug shows the traceback"),
    ],
)
def test_every_error_has_a_line_and_an_exit_code(
    error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(error) == code
    assert capsys.readouterr() == ("", said + "\n")


def test_every_problem_of_a_graph_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    problems = [Problem("E_ONE", "nodes[0]", "this"), Problem("E_TWO", "edges[1]", "that\x1b")]

    assert report(GraphError(problems)) == 2
    assert capsys.readouterr().err.splitlines() == [
        "flowkit: the graph has 2 problems:",
        "  E_ONE at nodes[0]: this",
        r"  E_TWO at edges[1]: that\x1b",
    ]


def test_the_place_in_the_user_s_code_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        try:
            raise ValueError("theirs")
        except ValueError as cause:
            raise UserCodeError("module 'm' cannot be imported") from cause
    except UserCodeError as error:
        report(error)

    assert f"({__file__}, line " in capsys.readouterr().err


def test_flowkit_s_own_frames_are_not_the_user_s_code() -> None:
    assert console.OWN.endswith("flowkit")
