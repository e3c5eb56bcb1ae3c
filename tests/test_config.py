"""Settings that nobody gives come from the environment, however they are made."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from flowkit import CoordinatorConfig, WorkerConfig, config, setting_bounds
from flowkit.core import limits
from flowkit.errors import ConfigError


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "KAFKA_BOOTSTRAP_SERVERS",
        "FLOWKIT_KAFKA_BOOTSTRAP",
        "FLOWKIT_SLOTS",
        "FLOWKIT_ROLES",
        "FLOWKIT_LIMITS",
    ):
        monkeypatch.delenv(name, raising=False)


def test_settings_that_are_made_by_hand_look_into_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CoordinatorConfig().kafka_bootstrap == "localhost:9092"
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "one:9092")
    monkeypatch.setenv("FLOWKIT_SLOTS", "3")
    monkeypatch.setenv("FLOWKIT_ROLES", "a, b")
    monkeypatch.setenv("FLOWKIT_LABELS", "zone=eu")
    monkeypatch.setenv("FLOWKIT_LEASE_TTL_SEC", "30")

    cfg = WorkerConfig()

    assert (cfg.kafka_bootstrap, cfg.slots, cfg.roles, cfg.labels) == ("one:9092", 3, ["a", "b"], {"zone": "eu"})
    assert CoordinatorConfig().lease_ttl_sec == 30.0
    assert cfg == WorkerConfig.load()
    assert WorkerConfig(slots=5, roles=[]) == WorkerConfig.load(overrides={"slots": 5, "roles": []})


def test_flowkits_own_variable_counts_before_kafkas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "one:9092")
    monkeypatch.setenv("FLOWKIT_KAFKA_BOOTSTRAP", "two:9092")

    assert CoordinatorConfig().kafka_bootstrap == CoordinatorConfig.load().kafka_bootstrap == "two:9092"


def test_each_source_counts_before_the_one_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "worker.json"
    path.write_text(json.dumps({"slots": 2, "drain_sec": 2, "heartbeat_sec": 2}))
    monkeypatch.setenv("FLOWKIT_DRAIN_SEC", "3")
    below = {"slots": 1, "drain_sec": 1, "heartbeat_sec": 1, "lease_ttl_sec": 1}

    cfg = WorkerConfig.load(path, below=below, overrides={"heartbeat_sec": 4})

    assert (cfg.lease_ttl_sec, cfg.slots, cfg.drain_sec, cfg.heartbeat_sec) == (1.0, 2, 3.0, 4.0)


def test_a_variable_of_the_wrong_type_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_SLOTS", "many")

    with pytest.raises(ConfigError, match=r"WorkerConfig.slots must be int, not 'many'"):
        WorkerConfig()
    assert WorkerConfig(slots=1).slots == 1


def test_lists_of_their_own() -> None:
    one, other = WorkerConfig(), WorkerConfig()
    one.roles.append("a")

    assert other.roles == []


MONTH = 30 * 86_400.0


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, {"finished": MONTH, "cancelled": MONTH, "failed": MONTH}),
        ({"retention_sec": 60}, {"finished": 60.0, "cancelled": 60.0, "failed": 60.0}),
        ({"retention_failed_sec": "90"}, {"finished": MONTH, "cancelled": MONTH, "failed": 90.0}),
        ({"retention_sec": None}, dict.fromkeys(("finished", "cancelled", "failed"))),
        ({"retention_sec": "none", "retention_failed_sec": 0}, {"finished": None, "cancelled": None, "failed": 0.0}),
        ({"retention_failed_sec": "inf"}, {"finished": MONTH, "cancelled": MONTH, "failed": None}),
    ],
)
def test_tasks_are_kept_for_a_month_or_as_long_as_it_is_said(given: dict[str, object], kept: object) -> None:
    assert CoordinatorConfig.load(overrides=given).kept_sec == kept


def test_how_long_tasks_are_kept_comes_from_the_environment_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_RETENTION_SEC", "none")
    monkeypatch.setenv("FLOWKIT_RETENTION_FAILED_SEC", "3600")

    assert CoordinatorConfig().kept_sec == {"finished": None, "cancelled": None, "failed": 3600.0}
    assert CoordinatorConfig.load().retention_sec is None


@pytest.mark.parametrize("value", [-1, float("nan"), True, "soon"])
@pytest.mark.parametrize("name", ["retention_sec", "retention_failed_sec"])
def test_a_time_that_is_none_is_refused(name: str, value: object) -> None:
    for make in (lambda: CoordinatorConfig(**{name: value}), lambda: CoordinatorConfig.load(overrides={name: value})):  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=rf"CoordinatorConfig\.{name}"):
            make()


def test_settings_that_must_be_numbers_are_not_none() -> None:
    with pytest.raises(ConfigError, match=r"CoordinatorConfig.sweep_sec must be float, not 'none'"):
        CoordinatorConfig.load(overrides={"sweep_sec": "none"})


def test_weights_of_tenants_are_numbers_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_TENANT_WEIGHTS", "gold=3,slow=0.5")
    assert CoordinatorConfig().tenant_weights == {"gold": 3.0, "slow": 0.5}
    given = CoordinatorConfig.load(overrides={"tenant_weights": {"gold": 2}})
    assert given.tenant_weights == {"gold": 2.0}

    monkeypatch.setenv("FLOWKIT_TENANT_WEIGHTS", "gold=much")
    with pytest.raises(ConfigError, match=r"tenant_weights must be dict\[str, float\], not 'gold=much'"):
        CoordinatorConfig()


def test_limits_of_roles_come_from_the_environment_and_from_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_LIMITS", "load=3,*=100")
    assert CoordinatorConfig().limits == {"load": 3, "*": 100}
    assert CoordinatorConfig.load(overrides={"limits": {"load": 5}}).limits == {"load": 5}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"load": 0}, "'load' is to be 1 to 2,000, not 0"),
        ({"*": 2001}, "is to be 1 to 2,000, not 2001"),
        ({"load": 2.5}, r"limits must be dict\[str, int\]"),
        ("load=many", r"limits must be dict\[str, int\]"),
    ],
)
def test_limits_that_cannot_be_kept_are_refused(given: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        CoordinatorConfig.load(overrides={"limits": given})


def test_a_limit_of_a_role_holds_as_many_as_a_limit_does() -> None:
    assert config.MOST_AT_ONCE == limits.MOST_AT_ONCE


@pytest.mark.parametrize(
    ("kind", "name", "value", "says"),
    [
        (WorkerConfig, "slots", 0, "a whole number, 1 or more, not 0"),
        (CoordinatorConfig, "commit_flights", 0, "a whole number, 1 or more, not 0"),
        (CoordinatorConfig, "facts_partitions", -8, "a whole number, 1 or more, not -8"),
        (WorkerConfig, "heartbeat_sec", 0, "a number of seconds, more than 0, not 0"),
        (CoordinatorConfig, "lease_ttl_sec", math.nan, "a number of seconds, more than 0, not nan"),
        (WorkerConfig, "drain_sec", -1, "a number of seconds, 0 or more, not -1"),
        (CoordinatorConfig, "prefetch", True, "a whole number, 0 or more, not True"),
    ],
)
def test_numbers_with_which_nothing_would_run_are_refused_wherever_they_come_from(
    kind: type[WorkerConfig | CoordinatorConfig], name: str, value: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = re.escape(f"{kind.__name__}.{name} is {says}")
    with pytest.raises(ConfigError, match=told):
        kind(**{name: value})
    cfg = kind()
    with pytest.raises(ConfigError, match=told):
        setattr(cfg, name, value)
    if not isinstance(value, bool):
        monkeypatch.setenv(f"FLOWKIT_{name.upper()}", str(value))
        with pytest.raises(ConfigError, match=f"{kind.__name__}.{name} is {says.partition(', not')[0]}"):
            kind.load()


def test_every_number_has_a_least_value() -> None:
    ports = {"metrics_port"}  # looked at where it is opened
    bounded = setting_bounds.ABOVE_ZERO | setting_bounds.FROM_ONE | setting_bounds.FROM_ZERO
    numbers = {
        item.name
        for kind in (CoordinatorConfig, WorkerConfig)
        for item in dataclasses.fields(kind)
        if str(item.type).removesuffix(" | None") in ("int", "float")
    }

    assert numbers - ports == bounded
