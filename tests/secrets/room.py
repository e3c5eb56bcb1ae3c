"""A secret manager over a store in memory, with keys of its own: what the tests of secrets begin with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from flowkit.adapters.memory_secrets import MemorySecretData, MemorySecrets
from flowkit.clock import ManualClock
from flowkit.ports import AuditFilter, AuditRow, Outcome, SecretUse
from flowkit.secrets.manager import SecretManager
from flowkit.secrets.master_keys import MasterKeys, Ring, StaticKeys
from flowkit.secrets.secrets import Secrets

KEY_1, KEY_2 = bytes(range(32)), bytes(range(100, 132))
NOW = 1_700_000_000.0


def ring(*ids: str) -> StaticKeys:
    """Keys by their ids, the first one current; the same id is the same key."""
    known = {"k1": KEY_1, "k2": KEY_2}
    return StaticKeys(Ring({id: known[id] for id in ids}, "the ring"))


class Room:
    """`secrets` are those of tenant `acme`, set by `ann`."""

    def __init__(self, data: MemorySecretData | None = None, keys: MasterKeys | None = None) -> None:
        self.data = data if data is not None else MemorySecretData()
        self.clock = ManualClock(NOW)
        self.store = MemorySecrets(self.data)
        self.manager = SecretManager(self.store, keys if keys is not None else ring("k1"), self.clock)
        self.secrets = self.of("acme")

    def of(self, tenant: str, principal: str = "ann") -> Secrets:
        return Secrets(self.manager, tenant=tenant, principal=principal)

    async def resolve(
        self, *names: str, use: SecretUse | None = None, listed: Sequence[str] | None = None
    ) -> Mapping[str, str]:
        use = use if use is not None else attempt()
        done = await self.manager.resolve(use.tenant, names, use, listed=names if listed is None else listed)
        return done.values

    async def rows(self, tenant: str = "acme", name: str = "") -> list[AuditRow]:
        """What was recorded, the oldest first."""
        return (await self.store.list_audit(AuditFilter(tenant, name), limit=1000))[::-1]


def attempt(tenant: str = "acme", node: str = "load", **fields: object) -> SecretUse:
    said = {"task_id": "task-1", "attempt": 1, "token": "tok-1", "worker": "w1", "flow": "etl"} | fields
    return SecretUse(tenant=tenant, node=node, **said)  # type: ignore[arg-type]


class Weather(MemorySecrets):
    """A store whose next writes have an unknown outcome: they are done (`lost_answers`), or not (`lost_writes`)."""

    def __init__(self, data: MemorySecretData | None = None) -> None:
        super().__init__(data)
        self.lost_answers = 0
        self.lost_writes = 0

    async def insert_secret(self, secret: object) -> Outcome:
        if self.lost_writes:
            self.lost_writes -= 1
            return Outcome.UNKNOWN
        outcome = await super().insert_secret(secret)  # type: ignore[arg-type]
        if self.lost_answers:
            self.lost_answers -= 1
            return Outcome.UNKNOWN
        return outcome


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def pretender(talk: Talk) -> AsyncIterator[str]:
    """The address of a server that says whatever `talk` says; its connections end with it."""
    talks: list[asyncio.Task[None]] = []

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.append(task)
        await talk(reader, writer)

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    if talks:
        await asyncio.wait(talks, timeout=20)
