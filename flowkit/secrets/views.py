"""What may be said of secrets: everything but their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flowkit.core.secret_refs import read_allowed
from flowkit.ports import AuditRow, SealedSecret


@dataclass(frozen=True, slots=True)
class SecretView:
    """One version of a secret. `flows` and `nodes` may use it (patterns; empty: any); `key_id` is the master key that
    its own key is under. `warnings` are for whoever has just set it."""

    name: str
    version: int
    created_at: float
    principal: str
    key_id: str
    flows: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SecretPage:
    """Secrets in order of their names. `cursor` continues, None: that was the last page."""

    secrets: list[SecretView]
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class AuditPage:
    """What was done with secrets, newest first. `cursor` continues, None: that was the last page."""

    rows: list[AuditRow]
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """What a look along a tenant's chain gave. `problem` tells the first row that was changed, removed or inserted, and
    is empty where there is none; `rows` were looked at. `last` is the last row's number and digest, to be noted
    elsewhere. `older`: there are rows from before there were chains, of which nothing can be said."""

    rows: int
    last: str
    problem: str
    older: bool = False


@dataclass(frozen=True, slots=True)
class Resolved:
    """The values of one attempt, and which version each is of."""

    values: Mapping[str, str] = field(repr=False)
    versions: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did. `key_id` is the current master key now, `added` whether it is new. `rewrapped` versions are
    under it now; `failed` say why theirs could not be."""

    key_id: str
    added: bool
    rewrapped: int
    failed: tuple[str, ...] = ()


def view_of(secret: SealedSecret, warnings: tuple[str, ...] = ()) -> SecretView:
    allowed = read_allowed(secret.allow)
    return SecretView(
        secret.name, secret.version, secret.created_at, secret.principal, secret.key_id, allowed.flows, allowed.nodes,
        warnings,
    )  # fmt: skip
