"""What scripts that are run by hand say to the unit, and the secrets that they look up there."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

from flowkit.core.redaction import Redactor
from flowkit.errors import did_you_mean
from flowkit.npu_control import DONE, ERROR
from flowkit.services.door import Refusal
from flowkit.services.passes import Pass
from flowkit.services.secret_values import SecretValues
from flowkit.services.unit import RUNNING, NodeRun

MOST: Final = 1000
MOST_BYTES: Final = 64 * 1024 * 1024
LONGEST_LINE: Final = 16 * 1024


@dataclass(eq=False, slots=True)
class Attempt:
    """One script. `values` are the secrets that it has looked up, `given` is the size of its result."""

    run: NodeRun
    values: dict[str, str] = field(default_factory=dict, repr=False)
    redactor: Redactor = field(default_factory=lambda: Redactor([]))
    given: int = 0


class Hand:
    """The attempts by hand that were heard of: the last thousand, of 64 MiB together; those that have ended go first.
    What they say is covered before it is kept."""

    def __init__(self, secrets: SecretValues) -> None:
        self._secrets = secrets
        self._attempts: OrderedDict[str, Attempt] = OrderedDict()
        self._bytes = 0

    def find(self, runner_id: str) -> NodeRun | None:
        found = self._attempts.get(runner_id)
        return None if found is None else found.run

    def say(self, holder: Pass, message: str) -> None:
        """Note a line."""
        attempt = self._attempt(holder)
        attempt.run.lines.note(attempt.redactor.text(message[:LONGEST_LINE]))
        self._weigh(attempt)

    async def look_up(self, holder: Pass, name: str) -> str:
        """The value of a secret that the pass is for. Raises `Refusal`, `SecretMissing`, `ServiceUnavailable`."""
        attempt = self._attempt(holder)
        if name not in holder.secrets:
            hint = did_you_mean(name, holder.secrets)
            say = f"this attempt may not look up {name[:200]!r}{hint}; its pass is made with --secret NAME"
            raise Refusal(403, "E_SECRET_REFUSED", say)
        if attempt.run.ended.is_set():
            raise Refusal(409, "E_ENDED", "this attempt has given its result: the next one needs a pass of its own")
        if name not in attempt.values:
            found = await self._secrets.values([name], node=attempt.run.node_name, runner_id=holder.runner_id)
            values = {**attempt.values, **found}
            attempt.redactor = await asyncio.to_thread(Redactor, list(values.values()))
            attempt.values.update(found)
        return attempt.values[name]

    def end(self, holder: Pass, nodes: list[str], outputs: dict[str, Any], message: str, status: str) -> None:
        """Take the result. Raises `Refusal` for a second one."""
        attempt = self._attempt(holder)
        run = attempt.run
        if run.ended.is_set():
            raise Refusal(409, "E_ENDED", "this attempt has given its result already; a node gives one")
        if status not in (DONE, ERROR):
            raise Refusal(422, "E_REQUEST", f"status is DONE or ERROR, not {status[:40]!r}")
        run.nodes, run.outputs = attempt.redactor.value(nodes), attempt.redactor.value(outputs)
        run.message, run.status = attempt.redactor.text(message[:LONGEST_LINE]), status
        attempt.values.clear()
        attempt.given = len(repr(run.outputs)) + sum(map(len, run.nodes)) + len(run.message)
        run.ended.set()
        self._weigh(attempt)

    def _attempt(self, holder: Pass) -> Attempt:
        found = self._attempts.get(holder.runner_id)
        if found is None:
            found = self._attempts[holder.runner_id] = Attempt(NodeRun(holder.node, holder.runner_id, RUNNING))
            self._weigh(found)
        self._attempts.move_to_end(holder.runner_id)
        return found

    def _weigh(self, attempt: Attempt) -> None:
        """Note what an attempt takes by now, and forget others where it is too much."""
        before, attempt.run.size = attempt.run.size, attempt.run.lines.size + attempt.given
        self._bytes += attempt.run.size - before
        while len(self._attempts) > 1 and (len(self._attempts) > MOST or self._bytes > MOST_BYTES):
            others = [name for name, one in self._attempts.items() if one is not attempt]
            ended = (name for name in others if self._attempts[name].run.ended.is_set())
            self._bytes -= self._attempts.pop(next(ended, others[0])).run.size
