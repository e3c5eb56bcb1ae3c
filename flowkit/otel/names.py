"""What spans and their attributes are called: all of it is here, because the conventions for messaging are still being
developed.

`opentelemetry.io/docs/specs/semconv/messaging`, as of 1.38, where it has a name; `flowkit.*` where it has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SCOPE: Final = "flowkit"
"""The instrumentation scope of all of them."""

# Of all spans.
TASK_ID: Final = "flowkit.task.id"
TENANT: Final = "flowkit.tenant"
NODE: Final = "flowkit.node"
ROLE: Final = "flowkit.role"
ATTEMPT: Final = "flowkit.attempt"
OUTCOME: Final = "flowkit.outcome"
ERROR_TYPE: Final = "error.type"

# Of tasks.
GRAPH: Final = "flowkit.graph"
FLOW: Final = "flowkit.flow"
GENERATION: Final = "flowkit.generation"
PARENT: Final = "flowkit.parent.task.id"

# Of attempts.
WORKER: Final = "flowkit.worker"
CHILD: Final = "flowkit.child.task.id"
RUN_SEC: Final = "flowkit.run.duration"

# Of messages.
SYSTEM: Final = "messaging.system"
OPERATION: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION: Final = "messaging.destination.name"
PARTITION: Final = "messaging.destination.partition.id"
MESSAGE_ID: Final = "messaging.message.id"
BATCH: Final = "messaging.batch.message_count"

KAFKA: Final = "kafka"
EMBEDDED: Final = "flowkit"
"""The system of messages that stay in their process."""

# What happens within a span.
READY: Final = "flowkit.ready"
LEASED: Final = "flowkit.leased"
RECEIVED: Final = "flowkit.received"


@dataclass(frozen=True, slots=True)
class SpanKind:
    """One kind of span: who makes it, what it is called, whose child it is, from when to when, and its attributes."""

    what: str
    name: str
    kind: str
    by: str
    parent: str
    about: str
    attributes: tuple[str, ...]


_ALL: Final = (TASK_ID, TENANT)
_OF_NODES: Final = (*_ALL, NODE, ROLE, ATTEMPT)
_OF_MESSAGES: Final = (*_OF_NODES, SYSTEM, OPERATION, OPERATION_TYPE, DESTINATION, PARTITION, MESSAGE_ID)

TASK: Final = SpanKind(
    "task", "task {graph}", "internal", "coordinator",
    "the span that the task was created in, if it was in one; of a child, the attempt that it is",
    "from its acceptance to its end; a restart is another one",
    (*_ALL, GRAPH, FLOW, GENERATION, PARENT, OUTCOME, ERROR_TYPE),
)  # fmt: skip
ATTEMPT_OF_NODE: Final = SpanKind(
    "attempt", "attempt {node}", "internal", "coordinator", "task",
    "from when the node was ready to the decision about its end, with the events `flowkit.ready` and `flowkit.leased`; "
    "links to the attempts that it waited for",
    (*_OF_NODES, WORKER, CHILD, RUN_SEC, OUTCOME, ERROR_TYPE),
)  # fmt: skip
NODE_ALONE: Final = SpanKind(
    "node", "node {node}", "internal", "coordinator", "task",
    "a node that no worker runs: a sleep, a signal, a coordinator's function",
    (*_ALL, NODE, ROLE, GENERATION),
)  # fmt: skip
SEND_WORK: Final = SpanKind(
    "send", "send {topic}", "producer", "coordinator", "attempt",
    "the attempt's work, from its hand-over to the bus to the acknowledgement",
    (*_OF_MESSAGES, BATCH),
)  # fmt: skip
PROCESS_WORK: Final = SpanKind(
    "process", "process {topic}", "consumer", "worker", "send of the work",
    "the worker runs the attempt: inputs, handler, output, with the event `flowkit.received`; the handler's own spans "
    "are its children",
    (*_OF_MESSAGES, WORKER, RUN_SEC, OUTCOME, ERROR_TYPE),
)  # fmt: skip
SEND_REPORT: Final = SpanKind(
    "report", "send {topic}", "producer", "worker", "process of the work",
    "the worker's report, until the bus has acknowledged it", _OF_MESSAGES,
)  # fmt: skip
PROCESS_REPORT: Final = SpanKind(
    "decide", "process {topic}", "consumer", "coordinator", "attempt",
    "the coordinator has decided what the report means, and stores it; links to the send of the report",
    _OF_MESSAGES,
)  # fmt: skip

SPANS: Final = (TASK, ATTEMPT_OF_NODE, NODE_ALONE, SEND_WORK, PROCESS_WORK, SEND_REPORT, PROCESS_REPORT)

ABOUT: Final = {
    TASK_ID: "the task's id",
    TENANT: "its tenant",
    NODE: "the node's id; `load[3]` is an item of `load`",
    ROLE: "the role that serves it, or the node's type",
    ATTEMPT: "the number of the attempt",
    OUTCOME: "of a task `finished`, `failed`, `cancelled`; of an attempt `succeeded`, `failed`, `lost`, `cancelled`, "
    "`released`",
    ERROR_TYPE: "the code of the error, or why the attempt was lost; never its message, which may hold anything",
    GRAPH: "the name of the task's graph",
    FLOW: "the flow that it is pinned to, as `name@3`",
    GENERATION: "how often it was restarted",
    PARENT: "the task whose child it is",
    WORKER: "the worker's id",
    CHILD: "the task that the attempt is",
    RUN_SEC: "how many seconds the handler ran, as its worker measured it",
    SYSTEM: "`kafka`; `flowkit` in one process",
    OPERATION: "`send` or `process`",
    OPERATION_TYPE: "the same",
    DESTINATION: "the topic",
    PARTITION: "of `facts`: the task's partition",
    MESSAGE_ID: "the attempt's lease",
    BATCH: "how many messages for the worker went together",
}
