"""What the doctor says of the secrets in a SQLite file: whether there is a key that opens them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from flowkit.cli.checks import Finding, fail, ok, warn
from flowkit.config import CoordinatorConfig
from flowkit.errors import ConfigError, MasterKeyError
from flowkit.ports import SecretStore

MOST_COUNTED = 1000


async def of_secrets(store: SecretStore, path: Path, cfg: CoordinatorConfig) -> AsyncIterator[Finding]:
    """Nothing where there are none."""
    found = await store.secrets_of_other_keys("", limit=MOST_COUNTED)
    if not found:
        return
    more = "+" if len(found) == MOST_COUNTED else ""
    count = "1 version of a secret" if len(found) == 1 else f"{len(found)}{more} versions of secrets"
    try:
        # Not at the top: encryption is an extra.
        from flowkit.secrets.key_file import FileKeys
        from flowkit.secrets.opening import open_master_keys

        keys = open_master_keys(cfg.secrets_keys, beside=path)
        if isinstance(keys, FileKeys):
            keys = FileKeys(keys.path)  # which makes none: the doctor changes nothing
        about = await keys.describe()
    except (MasterKeyError, ConfigError) as error:
        yield fail("secrets", f"{count}, and: {error}")
        return
    ids = set(about["ids"].split(", "))
    lost = sorted({secret.key_id for secret in found} - ids)
    if lost:
        hint = "put those keys back, or set these secrets anew"
        yield fail("secrets", f"{count}, some under {', '.join(lost)}, which {about['where']} does not have", hint)
    elif any(secret.key_id != about["current"] for secret in found):
        yield warn("secrets", f"{count}, some under older master keys", f"flowkit secrets rotate --db {path}")
    else:
        yield ok("secrets", f"{count}, under the master key {about['current']} of {about['where']}")
