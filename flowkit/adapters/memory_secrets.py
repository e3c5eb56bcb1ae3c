"""Keeps sealed secrets and the record of their use in this process's memory."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from flowkit.adapters.limits import storable
from flowkit.ports import AuditFilter, AuditRow, Outcome, Rewrap, SealedSecret
from flowkit.wire.audit import Mark, chained, mark_of


@dataclass(slots=True)
class MemorySecretData:
    """What outlives a process: several `MemorySecrets` over one of these are processes with one database."""

    secrets: dict[tuple[str, str, int], SealedSecret] = field(default_factory=dict)
    audit: dict[str, AuditRow] = field(default_factory=dict)
    ends: dict[str, Mark] = field(default_factory=dict)


class MemorySecrets:
    """A `SecretStore` over `MemorySecretData`. Every call yields to the loop once and then acts at one moment."""

    def __init__(self, data: MemorySecretData | None = None) -> None:
        self.data = data if data is not None else MemorySecretData()

    async def start(self) -> None:
        await asyncio.sleep(0)

    async def insert_secret(self, secret: SealedSecret) -> Outcome:
        await asyncio.sleep(0)
        key = (secret.tenant, secret.name, secret.version)
        if not storable(secret):
            return Outcome.UNKNOWN
        if key in self.data.secrets:
            return Outcome.DUPLICATE
        self.data.secrets[key] = secret
        return Outcome.OK

    async def secret_versions(
        self, tenant: str, name: str, *, limit: int, before: int | None = None
    ) -> list[SealedSecret]:
        await asyncio.sleep(0)
        found = [
            secret
            for secret in self.data.secrets.values()
            if (secret.tenant, secret.name) == (tenant, name) and (before is None or secret.version < before)
        ]
        return heapq.nlargest(limit, found, key=lambda secret: secret.version)

    async def newest_secrets(self, tenant: str, *, limit: int, after: str = "") -> list[SealedSecret]:
        await asyncio.sleep(0)
        newest: dict[str, SealedSecret] = {}
        for secret in self.data.secrets.values():
            known = newest.get(secret.name)
            if secret.tenant == tenant and secret.name > after and (known is None or known.version < secret.version):
                newest[secret.name] = secret
        return [newest[name] for name in heapq.nsmallest(limit, newest)]

    async def secrets_of_other_keys(
        self, key_id: str, *, limit: int, after: tuple[str, str, int] = ("", "", 0)
    ) -> list[SealedSecret]:
        await asyncio.sleep(0)
        found = [
            key
            for key, secret in self.data.secrets.items()
            if key > after and secret.key_id != key_id and not secret.deleted
        ]
        return [self.data.secrets[key] for key in heapq.nsmallest(limit, found)]

    async def rewrap_secret(self, rewrap: Rewrap) -> Outcome:
        await asyncio.sleep(0)
        was = rewrap.before
        key = (was.tenant, was.name, was.version)
        secret = self.data.secrets.get(key)
        if secret is None or (secret.key_id, secret.wrapped) != (was.key_id, was.wrapped):
            return Outcome.NO_MATCH
        self.data.secrets[key] = replace(secret, key_id=rewrap.key_id, wrapped=rewrap.wrapped)
        return Outcome.OK

    async def destroy_secrets(self, tenant: str, name: str, *, below: int) -> Outcome:
        await asyncio.sleep(0)
        for key in [key for key in self.data.secrets if key[:2] == (tenant, name) and key[2] < below]:
            del self.data.secrets[key]
        return Outcome.OK

    async def insert_audit(self, rows: Sequence[AuditRow]) -> list[Outcome]:
        await asyncio.sleep(0)
        return [self._append(row) for row in rows]

    async def list_audit(
        self, where: AuditFilter, *, limit: int, after: tuple[float, str] | None = None
    ) -> list[AuditRow]:
        await asyncio.sleep(0)
        found = [
            row
            for row in self.data.audit.values()
            if row.tenant == where.tenant
            and (not where.name or row.name == where.name)
            and (not where.actions or row.action in where.actions)
            and (not where.outcome or row.outcome == where.outcome)
            and not (where.loose and row.seq)
            and (after is None or (row.at, row.id) < after)
        ]
        return heapq.nlargest(limit, found, key=lambda row: (row.at, row.id))

    async def read_chain(self, tenant: str, *, after: int, limit: int) -> list[AuditRow]:
        await asyncio.sleep(0)
        found = [row for row in self.data.audit.values() if row.tenant == tenant and row.seq > max(0, after)]
        return heapq.nsmallest(limit, found, key=lambda row: row.seq)

    def _append(self, row: AuditRow) -> Outcome:
        if not storable(row):
            return Outcome.UNKNOWN
        if row.id in self.data.audit:
            return Outcome.DUPLICATE
        self.data.audit[row.id] = one = chained(row, self.data.ends.get(row.tenant, Mark()))
        self.data.ends[row.tenant] = mark_of(one)
        return Outcome.OK
