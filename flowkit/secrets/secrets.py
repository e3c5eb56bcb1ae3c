"""The secrets of one tenant, as an application, the command line or an API handles them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from flowkit.core.secret_refs import Allowed, checked_allowed, checked_secret_name, read_allowed, read_secret_ref
from flowkit.errors import FlowKitError, SecretNotFound
from flowkit.paging import LARGEST_PAGE, checked_limit
from flowkit.ports import AuditFilter, AuditRow, SealedSecret
from flowkit.secrets import rotation
from flowkit.secrets.cabinet import Cabinet
from flowkit.secrets.manager import SecretManager
from flowkit.secrets.values import checked_value, warnings_for
from flowkit.secrets.views import AuditPage, AuditVerdict, Rotation, SecretPage, SecretView, view_of
from flowkit.wire.audit import Check, Mark


class Secrets:
    """Everything here is by tenant, and everything that is done is recorded as done by `principal`."""

    def __init__(self, manager: SecretManager, *, tenant: str = "default", principal: str = "local") -> None:
        self.manager = manager
        self.tenant = tenant
        self.principal = principal
        self._ledger = manager.ledger

    # ------------------------------------------------------------------------------------------ writing

    async def set(self, name: str, value: str, *, flows: Iterable[str] | None = None,
                  nodes: Iterable[str] | None = None) -> SecretView:  # fmt: skip
        """Store a value as the newest version of a secret. `flows` and `nodes` may use it, names or patterns with `*`
        and `?`; what is not given stays as it was for the version before, and at first is any.

        The view's `warnings` say what cannot be protected. Raises `SecretNameError`, `SecretValueError`,
        `MasterKeyError`, `StoreUnavailable` (set it again).
        """
        checked_secret_name(name)
        data = checked_value(name, value)
        before = await self._newest(name)
        allowed = _changed(before, flows, nodes)
        stored = await self._put("set", name, data, allowed)
        return view_of(stored, warnings_for(name, value))

    async def allow(self, name: str, *, flows: Iterable[str] | None = None,
                    nodes: Iterable[str] | None = None) -> SecretView:  # fmt: skip
        """Say anew which flows and nodes may use a secret; an empty list: any. Its value is sealed again, together with
        that, as a version of its own. Raises `SecretNotFound`, and as `set`."""
        cabinet = await self._open()
        secret, newest = await cabinet.find(self.tenant, checked_secret_name(name))
        await self._ledger.check_newest(newest)
        value = await cabinet.open(secret)
        return view_of(await self._put("allow", name, value.encode(), _changed(newest, flows, nodes)))

    async def delete(self, name: str, *, below: int = 0) -> bool:
        """Delete a secret with all its versions, or only those below one; False where there is no such secret. Raises
        `SecretNameError`, `StoreUnavailable` (delete it again)."""
        cabinet = await self._open()
        checked_secret_name(name)
        try:
            if below:
                _, newest = await cabinet.find(self.tenant, name)
                below = min(below, newest.version)  # the newest goes with the secret only
                await cabinet.destroy_below(self.tenant, name, below)
                await self._record("delete", name, 0, note=f"the versions below {below}")
                return True
            above = await self._ledger.highest(self.tenant, name)
            version = await cabinet.delete(self.tenant, name, principal=self.principal, above=above)
        except SecretNotFound:
            return False
        await self._record("delete", name, version)
        self._ledger.saw(self.tenant, name, version)
        return True

    async def rotate(self, *, new_key: bool | None = None) -> Rotation:
        """Bring the secrets of *all* tenants under a new master key, or go on with a rotation that was not done yet.
        Nothing stops meanwhile. Raises `MasterKeyError`, `StoreUnavailable`; either way rotating again goes on."""
        cabinet = await self._open()
        done = await rotation.rotate(cabinet, new_key=new_key)
        said = f"{done.rewrapped} versions under {done.key_id}, {len(done.failed)} failed"
        await self._record("rotate", "*", 0, note=said)
        return done

    # ------------------------------------------------------------------------------------------ reading

    async def get(self, secret: str) -> SecretView:
        """What is known of `NAME`, or `NAME@2`; not its value. Raises `SecretNotFound`, `SecretNameError`."""
        cabinet = await self._open()
        ref = read_secret_ref(secret)
        found, _ = await cabinet.find(self.tenant, ref.name, ref.version)
        return view_of(found)

    async def reveal(self, secret: str) -> str:
        """The value itself, once it is recorded that it was asked for. Raises `SecretNotFound`, `SecretNameError`,
        `SecretTampered`, `MasterKeyError`, `StoreUnavailable`."""
        cabinet = await self._open()
        ref = read_secret_ref(secret)
        try:
            found, newest = await cabinet.find(self.tenant, ref.name, ref.version)
            await self._ledger.check_newest(newest)
            value = await cabinet.open(found)
        except FlowKitError as error:
            await self._record("reveal", ref.name, ref.version, outcome=error.code)
            raise
        await self._record("reveal", ref.name, found.version)
        return value

    async def list(self, *, limit: int = 100, cursor: str | None = None) -> SecretPage:
        """A page of secrets in order of their names, the newest version of each. Raises `ValueError` for a `limit` that
        is not 1 to 1,000."""
        cabinet = await self._open()
        limit = checked_limit(limit)
        page: list[SecretView] = []
        after = cursor or ""
        while True:
            found = await cabinet.store.newest_secrets(self.tenant, limit=limit, after=after)
            for secret in found:
                if len(page) == limit:
                    return SecretPage(page, page[-1].name)
                if not secret.deleted:
                    page.append(view_of(secret))
            if len(found) < limit:
                return SecretPage(page)
            after = found[-1].name

    async def versions(self, name: str, *, limit: int = 100) -> Sequence[SecretView]:
        """The versions of a secret, newest first. Raises `SecretNotFound`, `SecretNameError`, and `ValueError` for a
        `limit` that is not 1 to 1,000."""
        cabinet = await self._open()
        await cabinet.find(self.tenant, checked_secret_name(name))
        found = await cabinet.store.secret_versions(self.tenant, name, limit=checked_limit(limit))
        return [view_of(secret) for secret in found if not secret.deleted]

    async def audit(self, name: str = "", *, limit: int = 100, cursor: str | None = None) -> AuditPage:
        """A page of what was done with this secret, or with any, newest first. Raises `ValueError` for a cursor that no
        page gave, and for a `limit` that is not 1 to 1,000."""
        cabinet = await self._open()
        limit = checked_limit(limit)
        where = AuditFilter(self.tenant, name)
        found = await cabinet.store.list_audit(where, limit=limit + 1, after=_read_cursor(cursor))
        page = found[:limit]
        return AuditPage(page, f"{page[-1].at!r}/{page[-1].id}" if len(found) > limit else None)

    async def verify_audit(self, noted: str | None = None) -> AuditVerdict:
        """Go along the whole chain of what was done with the tenant's secrets, and say where it was touched first.
        `noted` is the `last` of an earlier verdict: with it, what was removed from the end is seen too, and a chain
        that was written anew. Raises `ValueError` for what no verdict gave, and `StoreUnavailable`."""
        cabinet = await self._open()
        check = Check(_read_mark(noted))
        first = newest = None
        while not check.problem:
            # From the last one on, with it: a second one of its number would come behind it.
            page = await cabinet.store.read_chain(self.tenant, after=check.last.seq - 1, limit=LARGEST_PAGE)
            page = [row for row in page if newest is None or row.id != newest.id]
            if not page:
                break
            first, newest = first or page[0], page[-1]
            check.take(page)
        check.end()
        problem = check.problem
        loose = await cabinet.store.list_audit(AuditFilter(self.tenant, loose=True), limit=1)
        if not problem and loose and first is not None and loose[0].at > first.at:
            row = loose[0]
            problem = (
                f"a row stands outside of the chain ({row.action} {row.name!r} by {row.principal!r}), later than the "
                "chain's first: inserted by hand, or written by a FlowKit that knows no chains"
            )
        return AuditVerdict(check.rows, f"{check.last.seq}:{check.last.digest}", problem, bool(loose))

    # how

    async def _open(self) -> Cabinet:
        await self.manager.start()
        return self.manager.cabinet

    async def _newest(self, name: str) -> SealedSecret | None:
        cabinet = await self._open()
        found = await cabinet.store.secret_versions(self.tenant, name, limit=1)
        return found[0] if found and not found[0].deleted else None

    async def _put(self, action: str, name: str, data: bytes, allowed: Allowed) -> SealedSecret:
        cabinet = await self._open()
        above = await self._ledger.highest(self.tenant, name)
        stored = await cabinet.put(self.tenant, name, data, allow=allowed.text(), principal=self.principal, above=above)
        await self._record(action, name, stored.version)
        self._ledger.saw(self.tenant, name, stored.version)
        return stored

    async def _record(self, action: str, name: str, version: int, *, outcome: str = "ok", note: str = "") -> None:
        row = AuditRow("", 0.0, self.tenant, self.principal, action, name, version, outcome)
        await self._ledger.write([replace(row, note=note)])


def _changed(before: SealedSecret | None, flows: Iterable[str] | None, nodes: Iterable[str] | None) -> Allowed:
    known = read_allowed(before.allow) if before is not None else Allowed()
    return checked_allowed(known.flows if flows is None else flows, known.nodes if nodes is None else nodes)


def _read_mark(noted: str | None) -> Mark | None:
    if noted is None:
        return None
    seq, _, digest = noted.partition(":")
    if not seq.isdecimal() or len(digest) != 64:
        raise ValueError(f"{noted!r} is no NUMBER:DIGEST that an earlier verdict gave as its last row")
    return Mark(int(seq), digest)


def _read_cursor(cursor: str | None) -> tuple[float, str] | None:
    if cursor is None:
        return None
    at, _, row = cursor.partition("/")
    try:
        return float(at), row
    except ValueError:
        raise ValueError(f"{cursor!r} is not a cursor that a page of the audit gave") from None
