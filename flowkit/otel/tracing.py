"""Makes spans of what is observed, and says which spans others are children of.

A span is made when what it is of has ended, with the times that it had, so that nothing is kept for it; only the run of
a handler is begun before, because the handler's own spans are its children. Ids follow from task, node and attempt:
whoever ends what another process began makes the span that others expect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Final, cast

from opentelemetry import context as otel_context
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.util.types import AttributeValue

from flowkit import __version__
from flowkit.core.derived import base_of, item_of, repetition_of
from flowkit.core.model import Task
from flowkit.core.traceparent import TraceContext, read_traceparent, span_id_of, trace_id_of
from flowkit.errors import ConfigError
from flowkit.observations import (
    AttemptEnded,
    NodeEnded,
    Observation,
    ReportSent,
    RunBegan,
    RunEnded,
    TaskEnded,
    WorkSent,
)
from flowkit.otel import names as n
from flowkit.otel.ids import GivenIds
from flowkit.ports import Head
from flowkit.telemetry import Telemetry
from flowkit.wire.messages import Job

MOST_LINKS: Final = 128
LONGEST_CODE: Final = 200
MOST_KNOWN: Final = 10_000
"""So many decisions of the sampler are remembered: it is asked about each span of a trace."""
BAD: Final = frozenset({"failed", "lost"})

Attributes = dict[str, AttributeValue]


def trace(telemetry: Telemetry, provider: TracerProvider | None = None, *, embedded: bool = False,
          service: str = "flowkit") -> Tracing:  # fmt: skip
    """Make spans of what the parts with this telemetry do, which are to be started after this. `provider` is by default
    that of the process; where there is none, one by the OTEL_* variables, called `service` unless these name it.
    `embedded`: messages stay in the process. Raises `ConfigError`."""
    if provider is None:
        from flowkit.otel.provider import open_provider

        provider = open_provider(service, telemetry.count)
    if telemetry.propagation is not None:
        raise ConfigError("this telemetry is traced already")
    return Tracing(provider, telemetry, embedded=embedded)


class Tracing:
    """An observer of telemetry, and its `Propagation`."""

    def __init__(self, provider: TracerProvider, telemetry: Telemetry, *, embedded: bool = False) -> None:
        self.provider = provider
        self._telemetry = telemetry
        self._system = n.EMBEDDED if embedded else n.KAFKA
        tracer = provider.get_tracer(n.SCOPE, __version__)
        self._tracer = tracer if isinstance(tracer, Tracer) else None  # none: OTEL_SDK_DISABLED
        if self._tracer is not None and not isinstance(self._tracer.id_generator, GivenIds):
            self._tracer.id_generator = GivenIds()
        self._runs: dict[str, Span] = {}
        self._known: dict[tuple[str, SpanKind, bool | None], bool] = {}
        telemetry.propagation = self
        self._unobserve = telemetry.observe(self.observe)

    def close(self) -> None:
        """Make no spans any more; the provider is its owner's to flush."""
        self._unobserve()
        self._telemetry.propagation = None

    # ------------------------------------------------------------------------------------------ who is whose child

    def of_work(self, head: Head, node: str, attempt: int, role: str) -> str:
        """The span that sends an attempt's work."""
        return str(self._of_task(head)._replace(span_id=span_id_of(n.SEND_WORK.what, head.task_id, node, attempt)))

    def of_child(self, head: Head, node: str, attempt: int) -> str:
        """The span of an attempt that is a task of its own."""
        return str(self._of_task(head)._replace(span_id=_attempt_id(head.task_id, node, attempt)))

    def of_run(self, job: Job) -> str:
        """The span in which a worker runs an attempt."""
        return str(self._of_run(job))

    def _of_task(self, head: Head, generation: int = 0) -> TraceContext:
        """The span of a task, and whether its trace is recorded, which the sampler decides by what is known of it from
        its beginning: so it is the same in every process."""
        given = read_traceparent(head.traceparent)
        trace_id = trace_id_of(head.task_id) if given is None else given.trace_id
        sampled = self._sampled(given, trace_id, _task_name(head), SpanKind.INTERNAL)
        return TraceContext(trace_id, span_id_of(n.TASK.what, head.task_id, generation), sampled)

    def _of_run(self, job: Job) -> TraceContext:
        given = read_traceparent(job.traceparent)
        trace_id = trace_id_of(job.task_id) if given is None else given.trace_id
        sampled = self._sampled(given, trace_id, n.PROCESS_WORK.what, SpanKind.CONSUMER)
        return TraceContext(trace_id, span_id_of(n.PROCESS_WORK.what, job.task_id, job.node, job.attempt), sampled)

    def _sampled(self, parent: TraceContext | None, trace_id: str, name: str, kind: SpanKind) -> bool:
        if self._tracer is None:
            return False
        key = (trace_id, kind, None if parent is None else parent.sampled)
        known = self._known.get(key)
        if known is not None:
            return known
        try:
            sampler = self._tracer.sampler
            asked = sampler.should_sample(_as_context(parent), int(trace_id, 16), name, kind)
            sampled = asked.decision is Decision.RECORD_AND_SAMPLE
        except Exception as error:  # a sampler of the user's own must not hold up work
            self._telemetry.failed_to_observe(error)
            return False
        if len(self._known) >= MOST_KNOWN:  # it can be asked again: it answers the same
            self._known.clear()
        self._known[key] = sampled
        return sampled

    # ------------------------------------------------------------------------------------------ what is observed

    def observe(self, observation: Observation) -> None:
        if self._tracer is None:
            return
        match observation:
            case WorkSent():
                self._work_sent(self._tracer, observation)
            case AttemptEnded():
                self._attempt_ended(self._tracer, observation)
            case NodeEnded():
                self._node_ended(self._tracer, observation)
            case TaskEnded():
                self._task_ended(self._tracer, observation)
            case RunBegan():
                self._run_began(self._tracer, observation)
            case RunEnded():
                self._run_ended(observation)
            case ReportSent():
                self._report_sent(self._tracer, observation)

    def _task_ended(self, tracer: Tracer, it: TaskEnded) -> None:
        head = it.head
        own = self._of_task(head, it.generation)
        attributes: Attributes = {
            n.TASK_ID: head.task_id,
            n.TENANT: head.tenant,
            n.GRAPH: head.name,
            n.FLOW: head.flow,
            n.GENERATION: it.generation,
            n.PARENT: head.parent,
        }
        given = read_traceparent(head.traceparent)
        span = self._start(tracer, _task_name(head), own, given, SpanKind.INTERNAL, attributes, it.began_at)
        _end(span, it.status, it.code, it.ended_at)

    def _attempt_ended(self, tracer: Tracer, it: AttemptEnded) -> None:
        head = it.head
        task = self._of_task(head, it.task.generation)
        if not task.sampled:
            return
        own = task._replace(span_id=_attempt_id(head.task_id, it.node, it.attempt))
        attributes = _node_attributes(head.task_id, head.tenant, it.node, it.role, it.attempt)
        about: Attributes = {n.WORKER: it.worker, n.CHILD: it.child, n.RUN_SEC: round(it.run_sec, 6)}
        span = self._start(
            tracer, f"attempt {base_of(it.node)}", own, task, SpanKind.INTERNAL, {**attributes, **about}, it.ready_at,
            links=_links(it, task.trace_id),
        )  # fmt: skip
        span.add_event(n.READY, timestamp=_ns(it.ready_at))
        span.add_event(n.LEASED, timestamp=_ns(it.leased_at))
        _end(span, it.outcome, it.code, it.ended_at)
        if it.worker:
            self._decided(tracer, it, own, attributes)

    def _decided(self, tracer: Tracer, it: AttemptEnded, attempt: TraceContext, attributes: Attributes) -> None:
        """What the report meant was decided and stored. Reports come in batches, so it links to the one that was sent,
        which is there where the worker traces too."""
        names = (it.head.task_id, it.node, it.attempt)
        sent = attempt._replace(span_id=span_id_of(n.SEND_REPORT.what, *names))
        own = attempt._replace(span_id=span_id_of(n.PROCESS_REPORT.what, *names))
        links = (Link(_span_context(sent)),) if it.outcome in ("succeeded", "failed") else ()
        span = self._start(
            tracer, f"process {it.topic}", own, attempt, SpanKind.CONSUMER,
            {**attributes, **self._messaging("process", it.topic, it.head.partition)}, it.ended_at, links=links,
        )  # fmt: skip
        span.end(end_time=_ns(it.acked_at))

    def _node_ended(self, tracer: Tracer, it: NodeEnded) -> None:
        head = it.head
        task = self._of_task(head, it.generation)
        own = task._replace(span_id=span_id_of(n.NODE_ALONE.what, head.task_id, it.node, it.generation))
        attributes: Attributes = {
            n.TASK_ID: head.task_id,
            n.TENANT: head.tenant,
            n.NODE: it.node,
            n.ROLE: it.type,
            n.GENERATION: it.generation,
        }
        name = f"node {base_of(it.node)}"
        self._start(tracer, name, own, task, SpanKind.INTERNAL, attributes, it.began_at).end(_ns(it.ended_at))

    def _work_sent(self, tracer: Tracer, it: WorkSent) -> None:
        own = read_traceparent(it.job.traceparent)
        if own is None or not own.sampled:
            return
        job = it.job
        attempt = own._replace(span_id=_attempt_id(job.task_id, job.node, job.attempt))
        attributes = {**_job_attributes(job), **self._messaging("send", it.topic), n.MESSAGE_ID: job.token}
        attributes[n.BATCH] = it.together
        name = f"send {it.topic}"
        self._start(tracer, name, own, attempt, SpanKind.PRODUCER, attributes, it.began_at).end(_ns(it.ended_at))

    def _run_began(self, tracer: Tracer, it: RunBegan) -> None:
        """Begin the span of a run, and make it the current one of the asyncio task that runs it."""
        own = self._of_run(it.job)
        span: Span = NonRecordingSpan(_span_context(own))
        if own.sampled:
            span = self._runs[it.job.token] = self._run(tracer, it, own)
        # Nothing else of the context is kept: it may be that of the attempt whose slot this one got.
        otel_context.attach(otel.set_span_in_context(span, otel_context.Context()))

    def _run(self, tracer: Tracer, it: RunBegan, own: TraceContext) -> Span:
        job, name = it.job, f"process {it.topic}"
        attributes = {**_job_attributes(job), **self._messaging("process", it.topic), n.MESSAGE_ID: job.token}
        attributes[n.WORKER] = it.worker
        given = read_traceparent(job.traceparent)
        span = self._start(tracer, name, own, given, SpanKind.CONSUMER, attributes, it.began_at)
        span.add_event(n.RECEIVED, timestamp=_ns(it.received_at))
        return span

    def _run_ended(self, it: RunEnded) -> None:
        span = self._runs.pop(it.job.token, None)
        if span is not None:
            span.set_attribute(n.RUN_SEC, round(it.run_sec, 6))
            _end(span, it.outcome, it.code, it.ended_at)

    def _report_sent(self, tracer: Tracer, it: ReportSent) -> None:
        job = it.job
        run = self._of_run(job)
        if not run.sampled:
            return
        own = run._replace(span_id=span_id_of(n.SEND_REPORT.what, job.task_id, job.node, job.attempt))
        attributes = {**_job_attributes(job), **self._messaging("send", it.topic, job.partition)}
        attributes[n.MESSAGE_ID] = job.token
        name = f"send {it.topic}"
        self._start(tracer, name, own, run, SpanKind.PRODUCER, attributes, it.began_at).end(_ns(it.ended_at))

    # ------------------------------------------------------------------------------------------ how

    def _start(self, tracer: Tracer, name: str, own: TraceContext, parent: TraceContext | None, kind: SpanKind,
               attributes: Mapping[str, AttributeValue], at: float, *, links: Sequence[Link] = ()) -> Span:  # fmt: skip
        """The span; what has no value is no attribute. The sampler is asked as for any other, unless it said no."""
        if not own.sampled:
            return NonRecordingSpan(_span_context(own))
        cast(GivenIds, tracer.id_generator).set(own.trace_id, own.span_id)
        said = {key: value for key, value in attributes.items() if value != ""}
        context = _as_context(parent) or otel_context.Context()
        return tracer.start_span(name, context, kind, said, links, _ns(at))

    def _messaging(self, operation: str, topic: str, partition: int | None = None) -> Attributes:
        said: Attributes = {
            n.SYSTEM: self._system,
            n.OPERATION: operation,
            n.OPERATION_TYPE: operation,
            n.DESTINATION: topic,
        }
        if partition is not None:
            said[n.PARTITION] = str(partition)
        return said


def _end(span: Span, outcome: str, code: str, at: float) -> None:
    span.set_attribute(n.OUTCOME, outcome)
    if outcome in BAD:
        span.set_attribute(n.ERROR_TYPE, code[:LONGEST_CODE] or outcome)
        span.set_status(Status(StatusCode.ERROR))
    span.end(end_time=_ns(at))


def _links(it: AttemptEnded, trace_id: str) -> list[Link]:
    """To the last attempts of the nodes that it waited for."""
    graph, runs = it.task.graph, it.task.runs
    if it.node not in graph.nodes:
        return []
    sources = dict.fromkeys(chain((edge.source for edge in graph.incoming[it.node]), graph.reads[it.node]))
    before = chain.from_iterable(_members(it.task, name) for name in sources)
    ran = ((name, runs[name].attempt) for name in before if runs[name].attempt)
    return [
        Link(_span_context(TraceContext(trace_id, _attempt_id(it.head.task_id, name, attempt))))
        for name, attempt in islice(ran, MOST_LINKS)
    ]


def _members(task: Task, name: str) -> Iterable[str]:
    """What ran for a node: itself, or its items or repetitions."""
    group = task.runs[name].group
    if group is None:
        return (name,)
    derive = item_of if task.node(name).foreach is not None else repetition_of
    return (derive(name, number) for number in range(min(group.next + 1, MOST_LINKS)))


def _task_name(head: Head) -> str:
    return f"task {head.name}" if head.name else "task"


def _attempt_id(task_id: str, node: str, attempt: int) -> str:
    return span_id_of(n.ATTEMPT_OF_NODE.what, task_id, node, attempt)


def _node_attributes(task_id: str, tenant: str, node: str, role: str, attempt: int) -> Attributes:
    return {n.TASK_ID: task_id, n.TENANT: tenant, n.NODE: node, n.ROLE: role, n.ATTEMPT: attempt}


def _job_attributes(job: Job) -> Attributes:
    return _node_attributes(job.task_id, job.tenant, job.node, job.role, job.attempt)


def _as_context(parent: TraceContext | None) -> otel_context.Context | None:
    if parent is None:
        return None
    return otel.set_span_in_context(NonRecordingSpan(_span_context(parent)), otel_context.Context())


def _span_context(of: TraceContext) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if of.sampled else TraceFlags.DEFAULT)
    return SpanContext(int(of.trace_id, 16), int(of.span_id, 16), is_remote=True, trace_flags=flags)


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
