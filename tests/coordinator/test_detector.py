"""A detector of secrets in each of its forms."""

from __future__ import annotations

from typing import Any

import pytest

from flowkit.coordinator.detector import SensitiveDetectorProto, resolve_detector
from flowkit.core.sensitive import looks_secret
from flowkit.errors import ConfigError


class ByName:
    def is_sensitive(self, key_path: str, value: Any) -> bool:
        return key_path.endswith("password")


def predicate(key_path: str, value: Any) -> bool:
    return key_path.endswith("password")


def factory() -> SensitiveDetectorProto:
    return ByName()


def factory_of_predicate() -> Any:
    return predicate


class Holder:
    detector = ByName()


HERE = __name__


@pytest.mark.parametrize(
    "given",
    [ByName(), ByName, predicate, factory, factory_of_predicate, lambda *args: predicate(*args),
     f"{HERE}:ByName", f"{HERE}.predicate", f"{HERE}:Holder.detector", f"{HERE}.factory"],
)  # fmt: skip
def test_every_form_comes_to_the_same(given: Any) -> None:
    detect = resolve_detector(given)

    assert detect("db.password", "x")
    assert not detect("db.user", "x")


def test_without_one_it_is_flowkits_own() -> None:
    assert resolve_detector(None) is looks_secret


@pytest.mark.parametrize(
    ("given", "says"),
    [(3, "is not an object with is_sensitive"), (lambda a: True, "is not an object with"), (lambda: 3, "is not an"),
     ("nowhere.at.all", "cannot import 'nowhere.at.all'"), ("json:nothing", "cannot import"), ("json", "cannot import"),
     ("json:dumps", "is not an object with")],
)  # fmt: skip
def test_what_can_detect_nothing_is_refused(given: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        resolve_detector(given)
