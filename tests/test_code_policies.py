"""An operator's policies are read from a file or from the setting itself, and what is wrong with them is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowkit.code_policies import read_code_policies
from flowkit.errors import ConfigError

GOOD = '{"every": {"level": "L2"}, "tenants": {"acme": {"memory_mb": 512, "network": "none"}}, "flows": {}}'


def test_they_come_from_a_file_or_from_the_setting(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text(GOOD)
    for setting in (GOOD, f"  {GOOD}", str(file)):
        rules = read_code_policies(setting).of("acme", "etl")
        assert [dict(rule.said) for rule in rules] == [{"level": "L2"}, {"memory_mb": 512, "network": "none"}]
    assert not read_code_policies("")


@pytest.mark.parametrize(("setting", "words"), [
    ("/nowhere/policy.json", "the policies in /nowhere/policy.json cannot be read"),
    ("{", "the policies in code_policy cannot be read"),
    ('{"tenant": {}}', "have no part 'tenant' (did you mean 'tenants'?)"),
    ('{"every": {"level": "L9"}}', "every.level"),
    ('{"tenants": {"acme": {"memory": 5}}}', "tenants.acme.memory: a policy has no key 'memory'"),
    ('{"flows": []}', "flows: expected an object, with a policy by name, found a list"),
    ('{"every": 5}', "every: expected"),
    ('{"every": {"network": "some"}}', "every.network"),
])  # fmt: skip
def test_what_is_wrong_with_them_is_said(setting: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_code_policies(setting)
    assert words in str(caught.value)
