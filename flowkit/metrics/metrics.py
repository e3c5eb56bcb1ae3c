"""All metrics of the parts that share a telemetry, as a collector of a registry of Prometheus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from flowkit import measures as m
from flowkit import telemetry as t
from flowkit.metrics.server import MetricsServer
from flowkit.metrics.tallies import Few, Spread, Tally
from flowkit.observations import AttemptEnded, Observation, Reading, RunBegan, RunEnded, TaskEnded, Took, WorkSent

MOST_ROLES: Final = 200
MOST_LOOPS: Final = 50
READ_TRIES: Final = 5

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily
Message = Mapping[str, Any]


class Metrics(Collector):
    """Counts what the parts with this telemetry do, which are to be started after this was made. One for each
    telemetry.

    `registry` is what to expose; by default one of its own, with the process's figures. `tenants` is how many tenants
    may be told apart in the counts of tasks and attempts; 0: they have no such label. The others are `other`, and so
    are roles beyond 200: `flowkit_labels_capped_total` counts how often. `app` is an ASGI application; `serve` answers
    by itself.
    """

    def __init__(self, telemetry: t.Telemetry, registry: CollectorRegistry | None = None, *,
                 tenants: int = 0) -> None:  # fmt: skip
        self._telemetry = telemetry
        self._by_tenant = tenants > 0
        with_tenants = {m.TASKS.name, m.ATTEMPTS.name} if self._by_tenant else set()
        self._tallies = {
            one.name: Tally(one, (*one.labels, "tenant") if one.name in with_tenants else one.labels)
            for one in m.MEASURES
            if one.kind == "counter" and one is not m.EVENTS
        }
        self._spreads = {one.name: Spread(one) for one in m.MEASURES if one.kind == "histogram"}
        self._roles = Few(MOST_ROLES, partial(self._add, m.CAPPED, "role"))
        self._loops = Few(MOST_LOOPS, partial(self._add, m.CAPPED, "loop"))
        self._tenants = Few(tenants, partial(self._add, m.CAPPED, "tenant"))
        self._ends = [telemetry.observe(self._observe), telemetry.subscribe(self._heard)]
        if registry is None:
            registry = CollectorRegistry()
            ProcessCollector(registry=registry)
        self.registry = registry
        registry.register(self)

    def close(self) -> None:
        """Count no more, and leave the registry."""
        for end in self._ends:
            end()
        self._ends.clear()
        self.registry.unregister(self)

    # ------------------------------------------------------------------------------------------ giving out

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """All of the registry as text, and its content type, as a client that accepts this wants it."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type

    async def serve(self, port: int, host: str = "127.0.0.1") -> MetricsServer:
        """Answer `GET /metrics`, in this loop, until the server is stopped. Port 0 is any; the server says which.
        Raises `ConfigError` where it cannot listen there."""
        server = MetricsServer(self.render, host, port)
        await server.start()
        return server

    async def app(self, scope: Message, receive: Callable[[], Awaitable[Message]],
                  send: Callable[[Message], Awaitable[None]]) -> None:  # fmt: skip
        """An ASGI application: mount it where the metrics are to be."""
        if scope["type"] != "http":
            raise ValueError(f"metrics answer HTTP, not {scope['type']!r}")
        accept = next((value for name, value in scope.get("headers", ()) if name == b"accept"), b"")
        body, content_type = self.render(accept.decode("latin-1"))
        headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def describe(self) -> list[Family]:
        """The families, without values: a registry looks for names that come twice."""
        return [*map(_family_of_tally, self._tallies.values()), *map(_family_of_spread, self._spreads.values())]

    def collect(self) -> Iterator[Family]:
        for tally in self._tallies.values():
            yield _family_of_tally(tally)
        for spread in self._spreads.values():
            yield _family_of_spread(spread)
        yield self._events()
        yield from self._gauges()

    def _events(self) -> CounterMetricFamily:
        family = CounterMetricFamily(m.EVENTS.name, m.EVENTS.about, labels=m.EVENTS.labels)
        for name, count in sorted(self._telemetry.counts.copy().items()):
            if name.islower():  # the others are types of happenings, which have metrics of their own
                family.add_metric((name,), count)
        return family

    def _gauges(self) -> Iterator[GaugeMetricFamily]:
        families = {
            one.name: GaugeMetricFamily(one.name, one.about, labels=one.labels)
            for one in m.MEASURES
            if one.kind == "gauge"
        }
        found: dict[tuple[str, tuple[str, ...]], float] = {}
        for reading in self._readings():
            key = (reading.name, tuple(reading.labels))
            found[key] = found.get(key, 0.0) + reading.value
        for (name, labels), value in found.items():
            families[name].add_metric(labels, value)
        told = {name for name, _ in found}
        yield from (family for name, family in families.items() if name in told)

    def _readings(self) -> list[Reading]:
        """A registry may be asked in another thread than the loop's: then what is read may change meanwhile."""
        for left in reversed(range(READ_TRIES)):
            try:
                return list(self._telemetry.readings())
            except RuntimeError:
                if not left:
                    raise
        return []

    # ------------------------------------------------------------------------------------------ counting

    def _add(self, measure: m.Measure, *labels: str, by: float = 1.0) -> None:
        self._tallies[measure.name].add(*labels, by=by)

    def _see(self, measure: m.Measure, seconds: float, *labels: str) -> None:
        self._spreads[measure.name].see(seconds, *labels)

    def _with_tenant(self, tenant: str, *labels: str) -> tuple[str, ...]:
        return (*labels, self._tenants.of(tenant)) if self._by_tenant else labels

    def _observe(self, it: Observation) -> None:
        match it:
            case AttemptEnded():
                role = self._roles.of(it.role)
                self._add(m.ATTEMPTS, *self._with_tenant(it.head.tenant, role, it.outcome))
                if it.run_sec:
                    self._see(m.RUN_SECONDS, it.run_sec, role, it.outcome)
            case WorkSent():
                role = self._roles.of(it.job.role)
                self._see(m.WAIT_SECONDS, it.leased_at - it.ready_at, role)
                self._see(m.DISPATCH_SECONDS, it.ended_at - it.ready_at, role)
            case TaskEnded():
                self._add(m.TASKS, *self._with_tenant(it.head.tenant, it.status))
                self._see(m.TASK_SECONDS, it.ended_at - it.began_at, it.status)
            case RunBegan():
                self._see(m.QUEUE_SECONDS, it.began_at - it.received_at, self._roles.of(it.job.role))
            case RunEnded():
                role = self._roles.of(it.job.role)
                self._add(m.RUNS, role, it.outcome)
                self._see(m.WORKER_RUN_SECONDS, it.run_sec, role, it.outcome)
            case Took(port="store"):
                self._see(m.STORE_SECONDS, it.seconds, it.verb, str(it.failed).lower())
            case Took():
                self._see(m.BUS_SECONDS, it.seconds, it.verb, str(it.failed).lower())

    def _heard(self, it: t.Happening) -> None:
        match it:
            case t.LeaseExpired():
                self._add(m.EXPIRED)
            case t.Rebalanced(gained=gained, lost=lost):
                self._add(m.TAKEOVERS, by=len(gained))
                self._add(m.HANDOVERS, by=len(lost))
            case t.DeadLettered(topic=topic):
                self._add(m.DEAD, topic)
            case t.Reloaded(why=why):
                self._add(m.RELOADS, why)
            case t.Quarantined():
                self._add(m.QUARANTINED)
            case t.LoopFailed(loop=loop):
                self._add(m.LOOPS, self._loops.of(loop.partition("/")[2] or loop))
            case t.AttemptKilled(why=why):
                self._add(m.KILLED, why)


def _family_of_tally(tally: Tally) -> CounterMetricFamily:
    family = CounterMetricFamily(tally.measure.name, tally.measure.about, labels=tally.labels)
    if not tally.labels and not tally.values:
        family.add_metric((), 0.0)  # what never happened is 0, not unknown
    for labels, value in list(tally.values.items()):
        family.add_metric(labels, value)
    return family


def _family_of_spread(spread: Spread) -> HistogramMetricFamily:
    family = HistogramMetricFamily(spread.measure.name, spread.measure.about, labels=spread.labels)
    edges = [*map(str, spread.measure.buckets), "+Inf"]
    for labels, (counts, total) in list(spread.values.items()):
        so_far, buckets = 0, []
        for edge, count in zip(edges, list(counts), strict=True):
            so_far += count
            buckets.append((edge, so_far))
        family.add_metric(labels, buckets, total[0])
    return family
