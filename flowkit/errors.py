"""Every exception that FlowKit raises on purpose: each has a code, and says what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


class FlowKitError(Exception):
    """The root of FlowKit's exceptions; `code` is stable and machine-readable."""

    code = "flowkit_error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class ConfigError(FlowKitError):
    """A setting is unknown, of the wrong type, or contradicts another."""

    code = "E_CONFIG"


class UnknownSetting(ConfigError, TypeError):
    """No setting has this name; the message has the nearest that is one."""

    code = "E_SETTING_UNKNOWN"


class BusUnavailable(FlowKitError):
    """Kafka could not be reached; the message holds the address and a hint."""

    code = "E_BUS_UNAVAILABLE"


class StoreUnavailable(FlowKitError):
    """The store (MongoDB or the SQLite file) could not be reached or did not answer clearly."""

    code = "E_STORE_UNAVAILABLE"


class ServiceUnavailable(FlowKitError):
    """One of the five services could not be reached, or did not answer in time; asking again may help."""

    code = "E_SERVICE_UNAVAILABLE"


class TaskNotFound(FlowKitError):
    """No task of this id is visible to the caller."""

    code = "E_TASK_UNKNOWN"


class FlowNotFound(FlowKitError):
    """No flow of this name is visible to the caller, or it has no such version or tag."""

    code = "E_FLOW_UNKNOWN"


class FlowNameError(FlowKitError, ValueError):
    """A flow or a tag cannot be called so; the message says how it may be."""

    code = "E_FLOW_NAME"


class SecretNotFound(FlowKitError):
    """The tenant has no secret of this name, or it has no such version."""

    code = "E_SECRET_UNKNOWN"


class SecretNameError(FlowKitError, ValueError):
    """A secret cannot be called so; the message says how it may be."""

    code = "E_SECRET_NAME"


class SecretValueError(FlowKitError, ValueError):
    """A secret cannot have this value: it is empty, too large, or not text. The message never has the value."""

    code = "E_SECRET_VALUE"


class SecretRefused(FlowKitError):
    """An attempt asked for a secret that its node does not list, or that its flow or node may not use."""

    code = "E_SECRET_REFUSED"


class SecretTampered(FlowKitError):
    """A stored secret is not what was stored: its bytes, its tenant, its name or its version were changed, or a newer
    version has vanished. Nothing of it is given out."""

    code = "E_SECRET_TAMPERED"


class MasterKeyError(FlowKitError):
    """There is no master key, it cannot be read, or others could read it; the message says what to do."""

    code = "E_MASTER_KEY"


class MasterKeyUnknown(MasterKeyError):
    """A secret is under a master key that this process does not have; the message says which."""

    code = "E_MASTER_KEY_UNKNOWN"


class TicketRefused(FlowKitError):
    """A ticket for secrets is forged, for another attempt, in other hands already, or its time is over."""

    code = "E_TICKET"


class SecretsUnavailable(FlowKitError):
    """The secret manager, or where its master keys are, could not be reached or did not answer in time; the message has
    the address. Asking again may help."""

    code = "E_SECRETS_UNAVAILABLE"


class RequestRefused(FlowKitError):
    """A cancel, pause, resume or restart does not fit the task's status; the message says which would."""

    code = "E_REQUEST_REFUSED"


class IdempotencyConflict(FlowKitError):
    """An idempotency key was used before with another graph, other params or other options."""

    code = "E_IDEMPOTENCY_CONFLICT"


class WaitTimeout(FlowKitError, TimeoutError):
    """The task did not end in the time given; the message says what its nodes wait for."""

    code = "E_WAIT_TIMEOUT"


class UnknownFact(FlowKitError):
    """A stored or received fact has a type that this version does not know: a newer version wrote it."""

    code = "E_FACT_UNKNOWN"


class Corrupt(FlowKitError):
    """Stored or received bytes cannot be read as what they should be."""

    code = "E_CORRUPT"


class InputError(FlowKitError):
    """A node's inputs cannot be built from what its sources gave; fails the node with code `bad_input`."""

    code = "bad_input"


class FunctionError(FlowKitError):
    """A coordinator function cannot do what it was asked; fails its node with the `code` and the message."""

    code = "adapter_error"


class ExprError(FlowKitError):
    """An expression has no value for what it was given; fails the node that its edge leads to, or whose input it is.

    Attributes: `part`, the text of the part that failed, shortened where it is long; `position`, its 0-based offset
    in the whole.
    """

    code = "expr_error"

    def __init__(self, message: str, *, part: str = "", position: int = 0) -> None:
        super().__init__(message)
        self.part = part
        self.position = position

    def at(self, place: str) -> ExprError:
        """The same, which also says where the expression stands."""
        return ExprError(f"{place}: {self}", part=self.part, position=self.position)


class ExprSyntaxError(FlowKitError, ValueError):
    """An expression cannot be read, or uses what it may not use where it stands.

    Attributes: `position`, the 0-based offset at which reading failed; `reason`, one line without the excerpt that
    the message ends with.
    """

    code = "E_EXPR_PARSE"

    def __init__(self, message: str, *, position: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.position = position
        self.reason = reason or message


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a graph: `code`, `place` (such as `nodes[2].io`), and what to do."""

    code: str
    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.code} at {self.place}: {self.message}"


class GraphError(FlowKitError, ValueError):
    """A graph was refused at the door; `problems` holds every reason, not only the first."""

    code = "E_GRAPH"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = "the graph has a problem" if count == 1 else f"the graph has {count} problems"
        super().__init__("\n  ".join([head + ":", *map(str, self.problems)]))


class TaskFailed(FlowKitError):
    """A task that somebody waits for ended without finishing.

    Attributes: `task_id`, `status` (`failed` or `cancelled`), `node_id` (the node that failed first, or
    None), `error` (`code`, `message`, `traceback`), `result` (the whole `TaskResult`).
    """

    code = "E_TASK_FAILED"

    def __init__(self, message: str, *, task_id: str, status: str, node_id: str | None = None,
                 error: dict[str, object] | None = None, result: object = None) -> None:  # fmt: skip
        super().__init__(message)
        self.task_id = task_id
        self.status = status
        self.node_id = node_id
        self.error = error
        self.result = result


class Permanent(Exception):
    """Raised by a handler: this failure is not retried. `Permanent("bad_input", "no column 'id'")` or
    `Permanent("no column 'id'")` (then the code is `permanent`)."""

    def __init__(self, code: str, message: str | None = None) -> None:
        self.code = code if message is not None else "permanent"
        super().__init__(message if message is not None else code)


class Retry(Exception):
    """Raised by a handler: try again, after `after_sec` seconds if given, whatever the policy's backoff says."""

    def __init__(self, message: str = "the handler asked to be tried again", *,
                 after_sec: float | None = None, code: str = "retry") -> None:  # fmt: skip
        self.code = code
        self.after_sec = after_sec
        super().__init__(message)


class Cancelled(Exception):
    """Raised inside a handler by `ctx.raise_if_cancelled()` once its attempt was cancelled or revoked."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None where nothing is alike."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def how_to_install(extra: str) -> str:
    """The command that installs an extra, from PyPI and from a clone."""
    return f"pip install 'flowkit-engine[{extra}]' (in a clone's folder: pip install '.[{extra}]')"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or nothing: to be appended to a message."""
    found = nearest(name, known)
    return f" (did you mean {found!r}?)" if found else ""
