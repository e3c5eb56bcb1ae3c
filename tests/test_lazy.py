"""Names of packages are loaded when they are first used, and one that is not there has the nearest."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

import flowkit
import flowkit.metrics
import flowkit.testing
import flowkit.worker
from flowkit.lazy import lazily


@pytest.fixture
def package() -> Iterator[Any]:
    made: Any = types.ModuleType("made_for_this_test")
    sys.modules[made.__name__] = made
    made.__getattr__ = lazily(made.__name__, {"sqrt": "math"})
    yield made
    del sys.modules[made.__name__]


def test_a_name_is_loaded_once_and_then_there(package: Any) -> None:
    assert "sqrt" not in vars(package)
    assert package.sqrt(9) == 3
    assert "sqrt" in vars(package)


def test_a_name_that_is_not_there_has_the_nearest(package: Any) -> None:
    with pytest.raises(AttributeError, match=r"^module 'made_for_this_test' has no attribute 'sqr' \(did you mean 'sq"):
        _ = package.sqr
    assert not hasattr(package, "__path__")


@pytest.mark.parametrize(
    ("package", "name", "meant"),
    [
        (flowkit, "Workr", "Worker"),
        (flowkit.worker, "RolHandler", "RoleHandler"),
        (flowkit.testing, "Wrld", "World"),
        (flowkit.metrics, "Metric", "Metrics"),
    ],
)
def test_the_packages_say_so_too(package: Any, name: str, meant: str) -> None:
    with pytest.raises(AttributeError, match=rf"did you mean '{meant}'"):
        getattr(package, name)
