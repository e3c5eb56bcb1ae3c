"""Reads an operator's policies for code: from a file, or from the setting itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from flowkit.core.code_keys import POLICY
from flowkit.core.code_policy import NOTHING_SAID, CodePolicies
from flowkit.core.kinds import Door
from flowkit.core.problems import Place, Problems, shown
from flowkit.core.template import TemplateReader
from flowkit.core.values import Copier
from flowkit.errors import ConfigError, GraphError, did_you_mean

PARTS: Final = ("every", "tenants", "flows")
SAYS: Final = (
    'write {"every": {...}, "tenants": {"NAME": {...}}, "flows": {"NAME": {...}}}, of which any may be left out'
)


def read_code_policies(setting: str) -> CodePolicies:
    """What `code_policy` says: a file of JSON, or the JSON itself. Raises `ConfigError`."""
    if not setting.strip():
        return NOTHING_SAID
    where = "code_policy"
    try:
        if not setting.lstrip().startswith("{"):
            where = setting
            setting = Path(where).read_text()
        said = json.loads(setting)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"the policies in {where} cannot be read: {error}") from error
    if not isinstance(said, dict):
        raise ConfigError(f"the policies in {where} are {shown(said)}; {SAYS}")
    for name in said:
        if name not in PARTS:
            raise ConfigError(f"the policies in {where} have no part {shown(name)}{did_you_mean(name, PARTS)}; {SAYS}")
    problems = Problems()
    try:
        read = {part: _read(part, value, problems) for part, value in said.items()}
        problems.raise_any()
    except GraphError as error:
        found = "; ".join(f"{one.place}: {one.message}" for one in error.problems)
        raise ConfigError(f"the policies in {where}: {found}") from None
    return CodePolicies(**read)


def _read(part: str, value: Any, problems: Problems) -> Any:
    door = Door(problems, Copier(problems), TemplateReader({}, problems))
    if part == "every":
        return _policy(value, part, door)
    if not isinstance(value, dict):
        problems.stop("E_TYPE", part, f"expected an object, with a policy by name, found {shown(value)}")
    return {name: _policy(policy, (part, name), door) for name, policy in value.items()}


def _policy(value: Any, place: Place, door: Door) -> Any:
    read = POLICY.read(value, place, door)
    return read if isinstance(read, dict) else {}
