"""Settings by the names of older FlowKit: what still means something is kept, what does not is said."""

from __future__ import annotations

import copy
import dataclasses
import json
import warnings
from pathlib import Path

import pytest

from flowkit import CoordinatorConfig, WorkerConfig
from flowkit.errors import ConfigError, UnknownSetting

OLDER_COORDINATOR = {
    "kafka_bootstrap": "kafka:9092", "worker_types": ["indexer", "enricher"], "topic_cmd_fmt": "cmd.{type}.v1",
    "topic_status_fmt": "status.{type}.v1", "topic_worker_announce": "workers.announce.v1",
    "topic_query": "query.tasks.v1", "topic_reply": "reply.tasks.v1", "topic_signals": "signals.v1",
    "heartbeat_soft_sec": 300, "heartbeat_hard_sec": 3600, "lease_ttl_sec": 45, "discovery_window_sec": 8,
    "cancel_grace_sec": 0.25, "scheduler_tick_sec": 1.0, "finalizer_tick_sec": 5.0, "hb_monitor_tick_sec": 10,
    "outbox_dispatch_tick_sec": 0.25, "outbox_max_retry": 12, "outbox_backoff_min_ms": 250,
    "outbox_backoff_max_ms": 60000,
}  # fmt: skip
OLDER_WORKER = {
    "roles": ["echo"], "worker_id": None, "worker_version": "2.0.0", "lease_ttl_sec": 60, "hb_interval_sec": 20,
    "announce_interval_sec": 60, "dedup_cache_size": 10000, "dedup_ttl_ms": 3600000, "pull_poll_ms_default": 300,
    "pull_empty_backoff_ms_max": 4000, "db_cancel_poll_ms": 500, "strict_input_adapters": False,
}  # fmt: skip


def test_an_older_file_is_read_with_one_warning_about_all_that_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.json"
    path.write_text(json.dumps(OLDER_COORDINATOR))

    with pytest.warns(UserWarning, match="CoordinatorConfig: ") as caught:
        cfg = CoordinatorConfig.load(path, overrides={"cancel_grace_sec": 0.5})

    assert (cfg.kafka_bootstrap, cfg.worker_types) == ("kafka:9092", ["indexer", "enricher"])
    assert (cfg.lease_ttl_sec, cfg.cancel_grace_sec) == (45.0, 0.5)
    [warning] = caught
    kept = {"kafka_bootstrap", "worker_types", "lease_ttl_sec", "cancel_grace_sec"}
    assert all(f"{name} is not needed any more: " in str(warning.message) for name in OLDER_COORDINATOR.keys() - kept)
    assert warning.filename == __file__


def test_an_older_workers_file_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "worker.json"
    path.write_text(json.dumps(OLDER_WORKER))

    with pytest.warns(UserWarning, match="announce_interval_sec is not needed any more: workers introduce themselves"):
        cfg = WorkerConfig.load(str(path), {"lease_ttl_sec": 1.5})

    assert (cfg.roles, cfg.worker_version, cfg.lease_ttl_sec) == (["echo"], "2.0.0", 1.5)


def test_settings_may_be_given_by_their_older_names_to_the_class_too() -> None:
    with pytest.warns(UserWarning, match="scheduler_tick_sec") as caught:
        cfg = CoordinatorConfig(lease_ttl_sec=4, scheduler_tick_sec=0.05)  # type: ignore[call-arg]

    assert cfg.lease_ttl_sec == 4
    assert [warning.filename for warning in caught] == [__file__]
    assert cfg == CoordinatorConfig(lease_ttl_sec=4)


def test_a_shorter_heartbeat_is_honoured_by_its_older_name() -> None:
    cfg = WorkerConfig(hb_interval_sec=0.05)  # type: ignore[call-arg]
    assert cfg.heartbeat_sec == cfg.hb_interval_sec == 0.05  # type: ignore[attr-defined]
    cfg.hb_interval_sec = 0.5  # type: ignore[attr-defined]
    assert cfg == WorkerConfig(heartbeat_sec=0.5)


def test_a_longer_heartbeat_is_not_because_coordinators_would_not_wait_so_long() -> None:
    with pytest.warns(UserWarning, match=r"hb_interval_sec is called heartbeat_sec, and stays at 2 s.*to have 20, set"):
        assert WorkerConfig(hb_interval_sec=20).heartbeat_sec == 2.0  # type: ignore[call-arg]
    with pytest.warns(UserWarning, match=r"heartbeat_sec, which is given too"):
        assert WorkerConfig(hb_interval_sec=1, heartbeat_sec=5).heartbeat_sec == 5  # type: ignore[call-arg]


def test_seconds_can_be_read_as_milliseconds() -> None:
    cfg = WorkerConfig(lease_ttl_sec=1.5, heartbeat_sec=0.25)

    assert (cfg.lease_ttl_ms, cfg.hb_interval_ms) == (1500, 250)  # type: ignore[attr-defined]
    assert CoordinatorConfig(cancel_grace_sec=0.1).cancel_grace_ms == 100  # type: ignore[attr-defined]


def test_what_never_was_a_setting_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "worker.json"
    path.write_text('{"slotz": 3}')
    cfg = WorkerConfig()

    for refuse in (
        lambda: WorkerConfig(slotz=3),  # type: ignore[call-arg]
        lambda: WorkerConfig.load(path),
        lambda: WorkerConfig.load(overrides={"slotz": 3}),
        lambda: setattr(cfg, "slotz", 3),
    ):
        with pytest.raises(UnknownSetting, match=r"WorkerConfig has no setting 'slotz' \(did you mean 'slots'\?\)"):
            refuse()
    with pytest.raises(AttributeError, match="did you mean 'slots'"):
        _ = cfg.slotz  # type: ignore[attr-defined]
    assert issubclass(UnknownSetting, ConfigError)
    assert issubclass(UnknownSetting, TypeError), "as older code expects it"


def test_what_is_gone_says_so_when_it_is_read_or_set() -> None:
    cfg = CoordinatorConfig()

    for name in ("heartbeat_soft_sec", "heartbeat_soft_ms"):
        with pytest.raises(AttributeError, match=f"{name} is not needed any more: a lease that is not renewed"):
            getattr(cfg, name)
    with pytest.warns(UserWarning, match="finalizer_tick_sec is not needed any more"):
        cfg.finalizer_tick_sec = 0.1  # type: ignore[attr-defined]


def test_a_role_has_no_topic_of_its_own() -> None:
    cfg = CoordinatorConfig(topic_prefix="my.")

    with pytest.raises(ConfigError, match=r"commands of 'indexer' alone: create tasks; my\.work\.v1 is the engine's"):
        cfg.topic_cmd("indexer")
    with pytest.raises(ConfigError, match=r"read my\.events\.v1"):
        cfg.topic_status("indexer")


def test_worker_types_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_TYPES", "indexer, enricher")
    assert CoordinatorConfig().worker_types == CoordinatorConfig.load().worker_types == ["indexer", "enricher"]
    monkeypatch.setenv("FLOWKIT_WORKER_TYPES", "mine")
    assert CoordinatorConfig().worker_types == ["mine"]
    assert CoordinatorConfig(worker_types=[]).worker_types == []


def test_settings_are_copied_compared_and_changed_as_ever() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cfg = WorkerConfig(slots=3)
        assert copy.deepcopy(cfg) == copy.copy(cfg) == cfg
        assert dataclasses.replace(cfg, slots=4).slots == 4
        cfg.slots = 5
        assert cfg.slots == 5
