"""Brings the keys of all secrets under the current master key, while secrets are set and used."""

from __future__ import annotations

from typing import Final

from flowkit.errors import MasterKeyUnknown, SecretTampered
from flowkit.ports import Outcome, SealedSecret
from flowkit.secrets.cabinet import Cabinet
from flowkit.secrets.views import Rotation

AT_ONCE: Final = 100
TRIES: Final = 5


async def rotate(cabinet: Cabinet, *, new_key: bool | None = None, at_once: int = AT_ONCE) -> Rotation:
    """Let every version be under one master key: a new one, unless an earlier rotation was not done yet (`new_key` says
    otherwise).

    Each version is changed by one guarded write, from under its old key to under the new; so a rotation that breaks off
    anywhere loses nothing, and the next one goes on where it ended. The values stay as they are. The old keys stay
    where they are, too: see `docs/secrets.md` for when one may go. Raises `MasterKeyError`, `StoreUnavailable`.
    """
    keys = cabinet.keys
    unfinished = bool(await cabinet.store.secrets_of_other_keys(await keys.current(), limit=1))
    added = not unfinished if new_key is None else new_key
    if added:
        await keys.add_key()
    failed: dict[tuple[str, str, int], str] = {}
    rewrapped, unclear = 0, list[SealedSecret]()
    for _ in range(TRIES):
        key_id = await keys.current()
        changed, unclear, after = False, [], ("", "", 0)
        while page := await cabinet.store.secrets_of_other_keys(key_id, limit=at_once, after=after):
            for secret in page:
                after = (secret.tenant, secret.name, secret.version)
                if after in failed:
                    continue
                match await _move(cabinet, secret, failed):
                    case Outcome.OK:
                        rewrapped += 1
                    case Outcome.NO_MATCH:
                        changed = True
                    case Outcome.UNKNOWN:
                        unclear.append(secret)
        # Another may rotate at the same time: then the later key counts for both.
        if not changed and not unclear and await keys.current() == key_id:
            break
    for secret in unclear:
        place = f"{secret.tenant}: secret {secret.name!r}, version {secret.version}"
        failed[secret.tenant, secret.name, secret.version] = f"{place}: its change was not confirmed; rotate again"
    return Rotation(key_id, added, rewrapped, tuple(failed.values()))


async def _move(cabinet: Cabinet, secret: SealedSecret, failed: dict[tuple[str, str, int], str]) -> Outcome | None:
    try:
        return await cabinet.rewrap(secret)
    except (SecretTampered, MasterKeyUnknown) as error:
        failed[secret.tenant, secret.name, secret.version] = f"{secret.tenant}: {error} [{error.code}]"
        return None
