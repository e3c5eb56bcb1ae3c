"""Sealed secrets, the record of their use, and where a worker gets values from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from flowkit.ports.outcome import Outcome


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """One version of a secret, as it is stored. `(tenant, name, version)` is unique and never given twice, not even
    after the secret was deleted. `sealed` is the value, encrypted under a key of its own; `wrapped` is that key,
    encrypted under the master key `key_id`. `allow` is JSON text: who may use it. Where `sealed` is empty, the secret
    was deleted then. `created_at` is seconds since the epoch (UTC)."""

    tenant: str
    name: str
    version: int
    key_id: str
    wrapped: bytes = field(repr=False)
    sealed: bytes = field(repr=False)
    allow: str
    created_at: float
    principal: str

    @property
    def deleted(self) -> bool:
        return not self.sealed


@dataclass(frozen=True, slots=True)
class Rewrap:
    """The key of a version under another master key, where it is still wrapped as in `before`."""

    before: SealedSecret
    key_id: str
    wrapped: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuditRow:
    """Somebody did something with a secret, or was refused it. `id` is unique; `at` is seconds since the epoch (UTC).
    `action` is `set`, `allow`, `delete`, `reveal`, `rotate` or `use`; `outcome` is `ok` or the code of the refusal.
    Never a value.

    The store gives it its place in its tenant's chain: a number, the digest of the row before, and its own (see
    `wire.audit`). A row that was written before there were chains has the number 0."""

    id: str
    at: float
    tenant: str
    principal: str
    action: str
    name: str
    version: int = 0
    outcome: str = "ok"
    flow: str = ""
    task_id: str = ""
    node: str = ""
    attempt: int = 0
    worker: str = ""
    note: str = ""
    seq: int = field(default=0, compare=False)
    previous: str = field(default="", compare=False)
    digest: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which rows `list_audit` gives: all conditions hold; what is empty does not restrict. `loose`: those in no
    chain."""

    tenant: str
    name: str = ""
    actions: tuple[str, ...] = ()
    outcome: str = ""
    loose: bool = False


class SecretStore(Protocol):
    """Where sealed secrets and the record of their use are kept. It sees no value and no key. As durable, and
    answering, as a `Store`."""

    async def start(self) -> None:
        """Create what is missing. The store that it is in has been started. Raises `StoreUnavailable`."""

    async def insert_secret(self, secret: SealedSecret) -> Outcome:
        """Insert unless (tenant, name, version) exists."""

    async def secret_versions(
        self, tenant: str, name: str, *, limit: int, before: int | None = None
    ) -> list[SealedSecret]:
        """The versions of a secret, newest first, those below `before`."""

    async def newest_secrets(self, tenant: str, *, limit: int, after: str = "") -> list[SealedSecret]:
        """The newest version of each secret in order of names, those greater than `after`; deleted ones too."""

    async def secrets_of_other_keys(
        self, key_id: str, *, limit: int, after: tuple[str, str, int] = ("", "", 0)
    ) -> list[SealedSecret]:
        """Versions of all tenants that are not under this master key, nor deleted, in order of (tenant, name,
        version), those after `after`."""

    async def rewrap_secret(self, rewrap: Rewrap) -> Outcome:
        """Replace `key_id` and `wrapped`, and nothing else; NO_MATCH where they are not as before."""

    async def destroy_secrets(self, tenant: str, name: str, *, below: int) -> Outcome:
        """Remove the versions below this one; OK also where there are none."""

    async def insert_audit(self, rows: Sequence[AuditRow]) -> list[Outcome]:
        """Append, each to its tenant's chain, whoever else does so at the same time; DUPLICATE where the id exists.
        Nothing here changes or removes a row."""

    async def read_chain(self, tenant: str, *, after: int, limit: int) -> list[AuditRow]:
        """The rows of a tenant's chain with higher numbers than `after`, in their order. Raises `StoreUnavailable`."""

    async def list_audit(
        self, where: AuditFilter, *, limit: int, after: tuple[float, str] | None = None
    ) -> list[AuditRow]:
        """Newest first by (at, id), strictly after the cursor `after` in that order."""


@dataclass(frozen=True, slots=True)
class SecretUse:
    """Who asks for secrets: one attempt. `token` is that of its lease. `flow` is the name of the flow that its task is
    of, without a version, or empty; it is the ticket that says so, a worker need not know it."""

    tenant: str
    task_id: str
    node: str
    attempt: int
    token: str = field(repr=False)
    worker: str = ""
    flow: str = ""


class SecretSource(Protocol):
    """Where a worker gets the values of one attempt from: the manager in its own process, or the service of it."""

    async def values_for(self, use: SecretUse, ticket: str) -> Mapping[str, str]:
        """The values by the names that the ticket is for. Each use is audited, refused ones too. Bounded in time.

        Raises `TicketRefused`, `SecretRefused`, `SecretNotFound`, `SecretTampered`, `MasterKeyError`; and
        `SecretsUnavailable` or `StoreUnavailable`, where asking again may help."""
