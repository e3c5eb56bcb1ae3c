"""Every documented import of older code works, and loads nothing before it is used."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

NAMES = {
    "flowkit": ["Coordinator", "CoordinatorConfig", "WorkerConfig", "__version__"],
    "flowkit.worker": [
        "Batch", "BatchResult", "EchoHandler", "FinalizeResult", "RoleHandler", "Worker", "WorkerConfig",
    ],
    "flowkit.worker.runner": ["Worker", "WorkerConfig"],
    "flowkit.worker.context": ["RunContext"],
    "flowkit.worker.handlers.base": ["Handler", "RoleHandler", "RunContext", "Batch", "BatchResult", "FinalizeResult"],
    "flowkit.coordinator": ["Coordinator"],
    "flowkit.coordinator.runner": ["Coordinator"],
    "flowkit.coordinator.adapters": [
        "CoordinatorAdapters", "AdapterError", "SensitiveDetectorProto", "default_adapters",
    ],
    "flowkit.core.log": [
        "get_logger", "bind_context", "log_context", "swallow", "warn_once", "set_level", "enable_stdout_logging",
        "disable_stdout_logging", "configure_from_env",
    ],
    "flowkit.clock": ["Clock", "SystemClock", "ManualClock"],
    "flowkit.utils": ["stable_hash", "dumps", "loads", "jitter_ms"],
}  # fmt: skip


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in NAMES.items() for name in names])
def test_the_name_is_there(module: str, name: str) -> None:
    assert getattr(import_module(module), name) is not None


def test_the_same_thing_has_one_identity_under_all_its_names() -> None:
    import flowkit
    import flowkit.coordinator.runner
    import flowkit.worker.handlers.base as base
    import flowkit.worker.runner

    assert flowkit.Coordinator is flowkit.coordinator.Coordinator is flowkit.coordinator.runner.Coordinator
    assert flowkit.Worker is flowkit.worker.Worker is flowkit.worker.runner.Worker
    assert flowkit.WorkerConfig is flowkit.worker.WorkerConfig is flowkit.worker.runner.WorkerConfig
    assert base.Handler is base.RoleHandler is flowkit.worker.RoleHandler
    assert base.RunContext is import_module("flowkit.worker.context").RunContext is flowkit.Context


@pytest.mark.parametrize("module", NAMES)
def test_importing_it_loads_no_driver(module: str) -> None:
    script = f"import sys, {module}; print({{'aiokafka', 'pymongo', 'motor', 'rich'}} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"
