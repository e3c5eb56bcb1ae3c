"""The secrets of one attempt: asked for once it holds its lease, and covered in whatever it says from then on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from flowkit.core.code_policy import NOTHING_SAID, CodePolicies, breaches, fails_on_leak, rules_of
from flowkit.core.reports import Failed
from flowkit.errors import Corrupt
from flowkit.wire.codec import loads
from flowkit.wire.messages import Job
from flowkit.worker.outcome import AttemptFailure
from flowkit.worker.outputs import to_json

if TYPE_CHECKING:
    from flowkit.sandbox.lines import Redactor

LEAK: Final = "secret_in_output"
LEAKED: Final = (
    "its output holds a secret, and `on_leak` says that it then fails; let the handler give only what is none"
)

Place = Sequence[str | int]


class Secrets(Protocol):
    """Where the secrets of attempts come from."""

    async def resolve(self, job: Job, names: Sequence[str]) -> Mapping[str, str]:
        """Their values. Raises `AttemptFailure` for one that the attempt may not have."""
        ...

    def redactor(self, values: Collection[str]) -> Redactor:
        """What takes these values out of whatever leaves the attempt."""
        ...


async def resolved(secrets: Secrets, job: Job, names: Sequence[str]) -> Mapping[str, str]:
    """The values of all of these. Raises `AttemptFailure`."""
    values = await secrets.resolve(job, names)
    if missing := [name for name in names if name not in values]:
        say = f"there is no secret {', '.join(map(repr, missing))}; flowkit secrets set stores one"
        raise AttemptFailure("secret_unavailable", say, permanent=True)
    return values


class Cover:
    """Takes the secrets of one attempt out of what its handler says. `fails`: an output with one in it fails the
    attempt. Any thread may ask; what is large is no work for a loop."""

    def __init__(self, redactor: Redactor, *, fails: bool = False) -> None:
        self._redactor = redactor
        self._fails = fails

    def text(self, text: str) -> str:
        return self._redactor.text(text)

    def output(self, value: Any) -> Any:
        """A value that a handler gives, as plain JSON (or bytes). Raises `AttemptFailure` for what JSON cannot say."""
        if isinstance(value, bytes | bytearray | memoryview):
            plain: Any = bytes(value)
        else:
            plain = loads(to_json(value))
        covered = self._redactor.value(plain)
        if self._fails and covered is not plain:
            raise AttemptFailure(LEAK, LEAKED, permanent=True)
        return covered

    def number(self, number: float | None) -> float | None:
        """None for one whose digits are a secret."""
        return number if self._redactor.value(number) == number else None

    def report(self, failed: Failed) -> Failed:
        """A failure whose texts are covered already: they were before they were cut."""
        return replace(failed, retry_after=self.number(failed.retry_after))


class HandlerSecrets:
    """Puts secrets into the inputs of handlers. `policies` are this worker's own."""

    def __init__(self, secrets: Secrets, policies: CodePolicies = NOTHING_SAID) -> None:
        self._secrets = secrets
        self._policies = policies

    async def fill(self, job: Job, inputs: Any, said: Mapping[str, Any],
                   in_thread: Callable[[Callable[[], Any]], Any]) -> tuple[Any, Cover]:  # fmt: skip
        """The inputs with their values, and what covers these. Raises `AttemptFailure`."""
        names = list(said["secrets"])
        try:
            rules = (*rules_of(said.get("policy", ())), *self._policies.of(job.tenant, said.get("flow", "")))
        except (TypeError, ValueError) as error:
            raise Corrupt(f"node {job.node!r} came with policies that cannot be read: {error}") from error
        if breach := next(breaches({"secrets": names}, rules), None):
            raise AttemptFailure("E_POLICY", f"the node {breach[1]}", permanent=True)
        values = await resolved(self._secrets, job, names)
        for place, name in said.get("holes", []):
            inputs = put(inputs, place, values[name])
        redactor = await in_thread(lambda: self._secrets.redactor(list(values.values())))
        return inputs, Cover(redactor, fails=fails_on_leak(said.get("on_leak", ""), rules))


def put(inputs: Any, place: Place, value: Any) -> Any:
    """The inputs with `value` at a place; what is not on the way there is shared."""
    if not place:
        return value
    step = place[0]
    copied: Any = dict(inputs) if isinstance(inputs, dict) else list(inputs)
    copied[step] = put(inputs[step], place[1:], value)
    return copied
