"""Gives the values of secrets to the attempts that may have them, and to nobody else; records both."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

from flowkit.core.code_policy import NOTHING_SAID, CodePolicies
from flowkit.core.derived import base_of
from flowkit.core.secret_refs import SecretRef, read_allowed, read_secret_ref
from flowkit.errors import (
    FlowKitError,
    SecretRefused,
    SecretsUnavailable,
    SecretTampered,
    SecretValueError,
    did_you_mean,
)
from flowkit.ports import AuditRow, Clock, SecretStore, SecretUse
from flowkit.secrets.cabinet import Cabinet
from flowkit.secrets.ledger import Ledger
from flowkit.secrets.master_keys import MasterKeys
from flowkit.secrets.values import MOST_BYTES
from flowkit.secrets.views import Resolved
from flowkit.wire.tickets import MOST_NAMES

RESOLVE_SEC: Final = 20.0


class SecretManager:
    """The one part that holds master keys and opens secrets. `store` has been started. `policies` say, beside what is
    sealed with each secret, which a tenant's code may have, and which a flow's."""

    def __init__(self, store: SecretStore, keys: MasterKeys, clock: Clock,
                 policies: CodePolicies = NOTHING_SAID) -> None:  # fmt: skip
        self._policies = policies
        self.cabinet = Cabinet(store, keys, clock)
        self.ledger = Ledger(store, clock)
        self._started = False

    async def start(self) -> None:
        """Prepare the store, once; whatever needs it calls this. Raises `StoreUnavailable`."""
        if not self._started:
            await self.cabinet.store.start()
            self._started = True

    async def resolve(self, tenant: str, names: Sequence[str], use: SecretUse, *, listed: Collection[str]) -> Resolved:
        """The values of these secrets (`NAME`, or `NAME@2`) for this attempt, all of them or none.

        An attempt may have what its node lists (`listed`), of its own tenant, where the secret allows its flow and its
        node. Every use is recorded before a value is given, and so is every refusal.

        Raises `SecretRefused`, `SecretNotFound`, `SecretNameError`, `SecretTampered`, `MasterKeyError`; and
        `StoreUnavailable` or `SecretsUnavailable` (after 20 s), where asking again may help.
        """
        try:
            async with asyncio.timeout(RESOLVE_SEC):
                await self.start()
                return await self._resolve(tenant, names, use, listed)
        except TimeoutError as error:
            raise SecretsUnavailable(f"the secrets were not there within {RESOLVE_SEC:g} s; try again") from error

    async def record_refusal(self, use: SecretUse, error: FlowKitError, *, note: str = "") -> None:
        """Record that somebody was refused before it was clear which secrets it was about."""
        await self.start()
        await self.ledger.write([_row(use, "", 0, error.code, note or str(error))])

    async def _resolve(self, tenant: str, names: Sequence[str], use: SecretUse, listed: Collection[str]) -> Resolved:
        wanted = list(dict.fromkeys(names))
        found = await asyncio.gather(*(self._one(tenant, name, use, listed) for name in wanted[: MOST_NAMES + 1]))
        refused = [_row(use, name, 0, one.code, str(one))
                   for name, one in zip(wanted, found, strict=False) if isinstance(one, FlowKitError)]  # fmt: skip
        if refused:
            await self.ledger.write(refused)
        for one in found:
            if isinstance(one, FlowKitError):
                raise one
        opened = {name: one for name, one in zip(wanted, found, strict=False) if not isinstance(one, FlowKitError)}
        if len(wanted) > MOST_NAMES or sum(len(value) for value, _ in opened.values()) > MOST_BYTES:
            error = SecretValueError(
                f"an attempt may have {MOST_NAMES} secrets, of {MOST_BYTES} bytes together: keep files elsewhere"
            )
            await self.record_refusal(use, error)
            raise error
        await self.ledger.write([_row(use, read_secret_ref(name).name, one[1]) for name, one in opened.items()])
        values = {name: value for name, (value, _) in opened.items()}
        return Resolved(values, {name: version for name, (_, version) in opened.items()})

    async def _one(
        self, tenant: str, name: str, use: SecretUse, listed: Collection[str]
    ) -> tuple[str, int] | FlowKitError:
        try:
            _check_listed(tenant, name, use, listed)
            return await self._open(tenant, read_secret_ref(name), use)
        except FlowKitError as error:  # all of them are heard, so that each is recorded
            return error

    async def _open(self, tenant: str, ref: SecretRef, use: SecretUse) -> tuple[str, int]:
        secret, newest = await self.cabinet.find(tenant, ref.name, ref.version)
        await self.ledger.check_newest(newest)
        try:
            # An older version may be used by whom the secret is for today.
            why_not = read_allowed(newest.allow).why_not(use.flow, base_of(use.node))
        except (ValueError, KeyError, TypeError):
            raise SecretTampered(f"it cannot be read who may use secret {ref.name!r}; set it anew") from None
        value = await self.cabinet.open(secret)
        if secret is not newest:
            await self.cabinet.open(newest)  # what was read of it is genuine only if it opens
        if why_not is not None:
            raise SecretRefused(f"secret {ref.name!r}: {why_not}")
        for rule in self._policies.of(use.tenant, use.flow):
            if not rule.allows("secrets", ref.name):
                raise SecretRefused(f"secret {ref.name!r}: {rule.origin} allows {rule.allowed('secrets')}")
        return value, secret.version


def _check_listed(tenant: str, name: str, use: SecretUse, listed: Collection[str]) -> None:
    if tenant != use.tenant:
        raise SecretRefused(f"an attempt of tenant {use.tenant!r} asked for a secret of tenant {tenant!r}")
    if name not in listed:
        raise SecretRefused(
            f"node {use.node!r} does not list secret {name!r}{did_you_mean(name, listed)}: "
            "name it in the node's `secrets`"
        )


def _row(use: SecretUse, name: str, version: int, outcome: str = "ok", note: str = "") -> AuditRow:
    return AuditRow(
        id="", at=0.0, tenant=use.tenant, principal=use.worker or "-", action="use", name=name, version=version,
        outcome=outcome, flow=use.flow, task_id=use.task_id, node=use.node, attempt=use.attempt, worker=use.worker,
        note=note,
    )  # fmt: skip
