"""Puts versions of secrets into the store, sealed, and opens them again. Knows nothing of who may do so."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

from flowkit.errors import SecretNotFound, SecretTampered, StoreUnavailable, did_you_mean
from flowkit.ports import Clock, Outcome, Rewrap, SealedSecret, SecretStore
from flowkit.secrets.envelope import Place, decrypt, encrypt, new_key, value_bound_to
from flowkit.secrets.master_keys import MasterKeys

TRIES: Final = 40
LONGEST_PAUSE_SEC: Final = 0.5
NAMES_LOOKED_AT: Final = 1000

Maker = Callable[[int], Awaitable[SealedSecret]]


class Cabinet:
    """Versions count from 1 and are never given twice: what takes a secret away is a version, too."""

    def __init__(self, store: SecretStore, keys: MasterKeys, clock: Clock) -> None:
        self.store = store
        self.keys = keys
        self._clock = clock

    async def put(self, tenant: str, name: str, data: bytes, *, allow: str, principal: str,
                  above: int = 0) -> SealedSecret:  # fmt: skip
        """Store a value as the newest version, which is above `above`, too. Raises `StoreUnavailable`, where it may
        have been stored all the same, `MasterKeyError`."""

        async def seal(version: int) -> SealedSecret:
            place, key, key_id = Place(tenant, name, version), new_key(), await self.keys.current()
            wrapped = await self.keys.wrap(key, place, key_id)
            sealed = encrypt(key, data, value_bound_to(place, allow))
            return SealedSecret(tenant, name, version, key_id, wrapped, sealed, allow, self._clock.wall(), principal)

        stored = await self._insert(tenant, name, above, seal)
        # If another master key became the current one meanwhile, whoever rotates may have looked already.
        if await self.keys.current() != stored.key_id:
            await self.rewrap(stored)
        return stored

    async def delete(self, tenant: str, name: str, *, principal: str, above: int = 0) -> int:
        """Take a secret away, with all its versions; gives the version that says so. Raises `SecretNotFound`,
        `StoreUnavailable`."""
        newest = await self.newest(tenant, name)
        if newest.deleted:
            await self._destroy(tenant, name, newest.version)  # what an earlier try may have left
            raise SecretNotFound(f"secret {name!r} was deleted already")

        async def grave(version: int) -> SealedSecret:
            return SealedSecret(tenant, name, version, "", b"", b"", "{}", self._clock.wall(), principal)

        gone = await self._insert(tenant, name, above, grave)
        await self._destroy(tenant, name, gone.version)
        return gone.version

    async def destroy_below(self, tenant: str, name: str, version: int) -> None:
        """Remove the versions below this one for good. Raises `StoreUnavailable`."""
        await self._destroy(tenant, name, version)

    async def newest(self, tenant: str, name: str) -> SealedSecret:
        """The newest version, which may say that the secret was deleted. Raises `SecretNotFound`."""
        found = await self.store.secret_versions(tenant, name, limit=1)
        if not found:
            raise await self._not_found(tenant, name)
        return found[0]

    async def find(self, tenant: str, name: str, version: int = 0) -> tuple[SealedSecret, SealedSecret]:
        """The version asked for (0: the newest), and the newest. Raises `SecretNotFound`."""
        newest = await self.newest(tenant, name)
        if newest.deleted:
            raise await self._not_found(tenant, name)
        if version in (0, newest.version):
            return newest, newest
        found = await self.store.secret_versions(tenant, name, limit=1, before=version + 1)
        if not found or found[0].version != version or found[0].deleted:
            raise SecretNotFound(f"secret {name!r} has no version {version}: its newest is {newest.version}")
        return found[0], newest

    async def open(self, secret: SealedSecret) -> str:
        """The value. Raises `SecretTampered`, `MasterKeyUnknown`, `MasterKeyError`."""
        place = Place(secret.tenant, secret.name, secret.version)
        key = await self.keys.unwrap(secret.wrapped, place, secret.key_id)
        try:
            return decrypt(key, secret.sealed, value_bound_to(place, secret.allow), place).decode()
        except ValueError:  # a key of a wrong length, or what is no text: sealed by somebody else
            raise SecretTampered(f"{place} was not sealed by a secret manager; set it anew") from None

    async def rewrap(self, secret: SealedSecret) -> Outcome:
        """Let the key of a version be under the current master key. NO_MATCH: it was changed or removed meanwhile.
        Raises as `open`."""
        place = Place(secret.tenant, secret.name, secret.version)
        key = await self.keys.unwrap(secret.wrapped, place, secret.key_id)
        key_id = await self.keys.current()
        wrapped = await self.keys.wrap(key, place, key_id)
        if await self.keys.unwrap(wrapped, place, key_id) != key:
            raise SecretTampered(f"{place}: what was wrapped under {key_id} does not open again; nothing was changed")
        return await self.store.rewrap_secret(Rewrap(secret, key_id, wrapped))

    # how

    async def _insert(self, tenant: str, name: str, above: int, make: Maker) -> SealedSecret:
        tried: SealedSecret | None = None
        for attempt in range(TRIES):
            found = await self.store.secret_versions(tenant, name, limit=1)
            newest = found[0] if found else None
            if newest is not None and tried is not None and newest.version >= tried.version:
                # What became of the last try was unknown, and others may have put theirs on top of it.
                mine = await self.store.secret_versions(tenant, name, limit=1, before=tried.version + 1)
                if mine and (mine[0].version, mine[0].sealed, mine[0].created_at) == _face(tried):
                    return mine[0]
            if newest is not None and newest.deleted:
                # Nobody may find again, below a new version, what was deleted.
                await self._destroy(tenant, name, newest.version)
            tried = await make(max(above, newest.version if newest is not None else 0) + 1)
            if await self.store.insert_secret(tried) is Outcome.OK:
                return tried
            await asyncio.sleep(_pause(attempt))
        raise StoreUnavailable(f"secret {name!r} could not be confirmed to be stored; try again")

    async def _destroy(self, tenant: str, name: str, below: int) -> None:
        for attempt in range(TRIES):
            if await self.store.destroy_secrets(tenant, name, below=below) is Outcome.OK:
                return
            await asyncio.sleep(_pause(attempt))
        raise StoreUnavailable(f"the versions of secret {name!r} below {below} could not be removed; delete it again")

    async def _not_found(self, tenant: str, name: str) -> SecretNotFound:
        others = await self.store.newest_secrets(tenant, limit=NAMES_LOOKED_AT)
        known = [other.name for other in others if not other.deleted]
        return SecretNotFound(f"there is no secret {name!r}{did_you_mean(name, known)}: flowkit secrets set {name}")


def _face(secret: SealedSecret) -> tuple[int, bytes, float]:
    # Not the wrapped key: a rotation may have changed that already.
    return secret.version, secret.sealed, secret.created_at


def _pause(attempt: int) -> float:
    """Seconds before the next try; a part of them at random, so that those who try together come apart."""
    return min(LONGEST_PAUSE_SEC, 0.005 * float(2**attempt)) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
