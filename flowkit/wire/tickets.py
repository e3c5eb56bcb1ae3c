"""Tickets: what a worker shows to get the secrets of one attempt, given to it along with the attempt.

A ticket names the attempt, by its lease's token too, and the secrets; it is good for a short while, and carries an HMAC
under a key that coordinators and the secret manager share, and workers do not have.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flowkit.errors import TicketRefused
from flowkit.ports import Clock, SecretUse

FORM: Final = "fk1"
OF_THE_ATTEMPT: Final = ("tenant", "task_id", "node", "attempt", "token", "worker")
LONGEST_TICKET: Final = 32 * 1024
MOST_NAMES: Final = 64
GOOD_SEC: Final = 120.0
LEEWAY_SEC: Final = 60.0
"""How far the clocks of a coordinator and of the secret manager may be apart."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a ticket says. Times are seconds since the epoch (UTC), by the clock of the coordinator that issued it."""

    use: SecretUse
    names: tuple[str, ...]
    issued_at: float
    good_until: float


class TicketOffice:
    """Issues the tickets of one coordinator. `keys` are the shared keys by their ids, the one to be used first;
    `good_sec` is how long a ticket is good."""

    def __init__(self, keys: Mapping[str, bytes], clock: Clock, *, good_sec: float = GOOD_SEC) -> None:
        self._key_id, self._key = next(iter(keys.items()))
        self._clock = clock
        self._good_sec = good_sec

    def issue(self, use: SecretUse, names: Sequence[str]) -> str:
        """A ticket for these secrets of this attempt. Costs some 20 µs; raises `ValueError` for more than `MOST_NAMES`
        names, or for more text than a ticket holds."""
        if len(names) > MOST_NAMES:
            raise ValueError(f"{len(names)} secrets for one attempt, at most {MOST_NAMES}")
        now = self._clock.wall()
        whose = [use.tenant, use.task_id, use.node, use.attempt, use.token, use.worker, use.flow]
        body = _digits(json.dumps([now, now + self._good_sec, whose, list(names)], separators=(",", ":")).encode())
        ticket = f"{FORM}.{self._key_id}.{body}.{_digits(_mac(self._key, self._key_id, body))}"
        if len(ticket) > LONGEST_TICKET:
            raise ValueError(f"a ticket of {len(ticket)} bytes, at most {LONGEST_TICKET}: shorter names")
        return ticket


def read_ticket(text: str, keys: Mapping[str, bytes], now: float, *, leeway_sec: float = LEEWAY_SEC) -> Ticket:
    """What a ticket says, if it is genuine and good now. Raises `TicketRefused`."""
    if len(text) > LONGEST_TICKET:
        raise TicketRefused(f"a ticket of {len(text)} bytes: no coordinator issues such")
    form, key_id, body, mac = parts if len(parts := text.split(".")) == 4 else [""] * 4
    key = keys.get(key_id)
    if form != FORM or key is None:
        raise TicketRefused(
            f"no ticket of this secret manager's: it knows the keys {', '.join(sorted(keys))}; give the coordinators "
            "and the secret manager the same ticket keys"
        )
    if not hmac.compare_digest(_digits(_mac(key, key_id, body)).encode(), mac.encode("utf-8", "replace")):
        raise TicketRefused("the ticket is forged, or was changed on its way")
    ticket = _read(body)
    if now > ticket.good_until + leeway_sec:
        late = now - ticket.good_until
        raise TicketRefused(
            f"the ticket's time is over since {late:.0f} s: ask within {ticket.good_until - ticket.issued_at:.0f} s, "
            "and see that the clocks of the coordinators and of the secret manager agree"
        )
    if now < ticket.issued_at - leeway_sec:
        raise TicketRefused(
            f"the ticket was issued {ticket.issued_at - now:.0f} s in the future: the clocks of the coordinators and "
            "of the secret manager differ"
        )
    return ticket


def check_use(ticket: Ticket, use: SecretUse) -> None:
    """Raise `TicketRefused` unless the ticket is for this very attempt, in the hands of this worker. What the ticket
    alone says, the flow, is not compared."""
    parts = [name for name in OF_THE_ATTEMPT if getattr(use, name) != getattr(ticket.use, name)]
    if parts:
        raise TicketRefused(f"the ticket is for another attempt: {', '.join(parts)} differ")


def _mac(key: bytes, key_id: str, body: str) -> bytes:
    return hmac.digest(key, f"{FORM}.{key_id}.{body}".encode(), hashlib.sha256)


def _digits(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _read(body: str) -> Ticket:
    # Whoever wrote it has the key; all the same a mistake of theirs must not look like one of ours.
    try:
        said: Any = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        issued_at, good_until, whose, names = said
        tenant, task_id, node, attempt, token, worker, flow = whose
        use = SecretUse(str(tenant), str(task_id), str(node), int(attempt), str(token), str(worker), str(flow))
        return Ticket(use, tuple(map(str, names)), float(issued_at), float(good_until))
    except (ValueError, TypeError, binascii.Error) as error:
        raise TicketRefused(f"the ticket cannot be read: {error}") from error
