"""The secrets of programs, asked of the secret manager with the ticket that came along with the attempt."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from flowkit.core.redaction import Redactor
from flowkit.errors import FlowKitError, SecretsUnavailable, StoreUnavailable, TicketRefused
from flowkit.ports import SecretSource, SecretUse
from flowkit.wire.messages import Job
from flowkit.worker.outcome import AttemptFailure

TRANSIENT = (SecretsUnavailable, StoreUnavailable, TicketRefused)
"""What may be otherwise at the next attempt, which comes with a ticket of its own."""


class FromManager:
    """`find_source` finds the manager when it is first needed: most workers never need it. `worker_id` is who asks."""

    def __init__(self, find_source: Callable[[], SecretSource], worker_id: Callable[[], str]) -> None:
        self._find_source = find_source
        self._worker_id = worker_id
        self._source: SecretSource | None = None

    async def resolve(self, job: Job, names: Sequence[str]) -> Mapping[str, str]:
        """Raises `AttemptFailure`; its message has no value."""
        if not job.ticket:
            say = f"the node needs the secrets {', '.join(names)}, and its coordinator gives no tickets for them: "
            raise AttemptFailure("no_secret_manager", say + "let secrets_tickets name the ticket keys", permanent=True)
        use = SecretUse(job.tenant, job.task_id, job.node, job.attempt, job.token, self._worker_id())
        try:
            if self._source is None:
                self._source = self._find_source()
            return await self._source.values_for(use, job.ticket)
        except FlowKitError as error:
            raise AttemptFailure(error.code, str(error), permanent=not isinstance(error, TRANSIENT)) from error

    def redactor(self, values: Collection[str]) -> Redactor:
        return Redactor(values)
