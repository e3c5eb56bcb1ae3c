"""pytest finds the plugin where FlowKit is installed, and whoever does not use it does not notice."""

from __future__ import annotations

import subprocess
import sys
import warnings
from importlib.metadata import entry_points

import pytest

from flowkit.testing import ManualClock
from flowkit.testing.plugin import MakeWorld


def test_pytest_finds_it() -> None:
    [plugin] = [point for point in entry_points(group="pytest11") if point.name == "flowkit"]

    assert plugin.value == "flowkit.testing.plugin"


def test_it_imports_nothing_that_pytest_does_not() -> None:
    script = "import sys, pytest; was = set(sys.modules); import flowkit.testing.plugin; print(*set(sys.modules) - was)"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert set(done.stdout.split()) <= {
        "flowkit",
        "flowkit.lazy",  # of the standard library alone
        "flowkit.testing",
        "flowkit.testing.plugin",
        "typing_extensions",
    }


def test_an_application_that_imported_flowkit_may_start_pytest(pytestconfig: pytest.Config) -> None:
    """As pytest does at its start with each package that brings a plugin."""
    hook = pytestconfig.pluginmanager.rewrite_hook  # type: ignore[attr-defined]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hook.mark_rewrite("flowkit")


def test_the_clock_stands_still_until_it_is_moved(manual_clock: ManualClock) -> None:
    before = manual_clock.wall()

    manual_clock.advance(5)

    assert manual_clock.wall() == before + 5 == manual_clock.mono()


def test_a_world_is_traced_and_calm_unless_something_else_is_asked_for(flowkit_world: MakeWorld) -> None:
    assert flowkit_world().stage.mode == "calm"
    assert flowkit_world(mode="chaos").stage.mode == "chaos"
    assert flowkit_world(3).stage.trace == []
    assert flowkit_world(3, trace=False).stage.trace is None
