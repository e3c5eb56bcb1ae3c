"""What answers the ports. Import a module of it only where it is used: the drivers are heavy and optional."""

from __future__ import annotations

from flowkit.errors import ConfigError, how_to_install


def missing(package: str, extra: str) -> ConfigError:
    """The error of an adapter whose driver is not installed."""
    return ConfigError(f"{package} is not installed: {how_to_install(extra)}")
