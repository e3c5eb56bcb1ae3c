"""`flowkit service`: one of the five services of FlowKit's predecessors, by their names, settings and HTTP verbs."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol

from flowkit import cli, loop
from flowkit.cli import settings as cli_settings
from flowkit.cli.console import UsageError, clean, put, say
from flowkit.cli.lifecycle import Signals, serve
from flowkit.cli.logs import set_up
from flowkit.errors import ConfigError, how_to_install
from flowkit.services import passes
from flowkit.services.keys import OPERATOR, Keys
from flowkit.services.settings import KINDS, Settings, pass_on, read_settings
from flowkit.telemetry import Telemetry

HOMES: Final = {
    "control-unit": ("control_unit", "ControlUnitService"),
    "trace-monitor": ("trace_monitor", "TraceMonitorService"),
    "node-runner": ("node_runner", "NodeRunnerService"),
    "secret-manager": ("secret_manager", "SecretManagerService"),
    "npu": ("npu", "NpuService"),
}


class Service(Protocol):
    """What the modules of `flowkit.services` have in common."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    def hello(self) -> list[str]: ...


def main(args: Namespace) -> int:
    settings = _read(args)
    if getattr(args, "runner_id", None):
        return _give_pass(settings, args)
    for name in ("fastapi", "uvicorn"):
        if find_spec(name) is None:
            raise ConfigError(f"a service needs {name}, which is not installed: {how_to_install('web')}")
    set_up(args.log_level, debug=hasattr(args, "debug"))
    for note in settings.notes:
        say(clean(note))
    keys, made = Keys.open(settings.token_file, settings.kind.others)
    if made:
        whom = ", ".join([OPERATOR, *settings.kind.others])
        say(f"made tokens for {whom}, in {clean(settings.token_file)} (mode 0600): each request needs one")
    home, name = HOMES[settings.kind.name]
    kind: Callable[[Settings, Keys, Telemetry], Service] = getattr(import_module(f"flowkit.services.{home}"), name)
    loop.run(_live(lambda: Part(kind, settings, keys), settings))
    return cli.FINISHED


def _read(args: Namespace) -> Settings:
    file = Path(args.env_file) if args.env_file else None
    pass_on(file)
    asked = {name.upper(): value for name, value in cli_settings.pairs(args.settings, "--set").items()}
    given = {"HOST": args.host, "PORT": args.port, "TOKEN_FILE": args.token_file}
    asked |= {name: value for name, value in given.items() if value is not None}
    return read_settings(KINDS[args.service], file, os.environ, asked)


def _give_pass(settings: Settings, args: Namespace) -> int:
    if not settings.token_file.exists():
        raise UsageError(
            f"there is no token file {settings.token_file}: start the unit here first, or give --token-file"
        )
    keys, _ = Keys.open(settings.token_file, ())
    put(passes.issue(keys.token_of(OPERATOR), args.runner_id, args.secret, node=args.node, for_sec=args.valid))
    return cli.FINISHED


class Part:
    """A service; what `serve` starts and stops."""

    def __init__(self, kind: Callable[[Settings, Keys, Telemetry], Service], settings: Settings, keys: Keys) -> None:
        self._service = kind(settings, keys, Telemetry())

    async def start(self) -> None:
        await self._service.start()

    async def started(self) -> None:
        for line in self._service.hello():
            say(line)

    async def stop(self) -> None:
        await self._service.stop()


async def _live(make: Callable[[], Any], settings: Settings) -> None:
    drain = settings.number("DRAIN_SEC", 0, 86_400)
    with Signals() as signals:
        await serve(make, signals, stopping=f"draining for at most {drain:g} s; again to stop at once")
