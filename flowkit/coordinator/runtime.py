"""A running coordinator: its parts, wired, and the loops that drive them. Knows ports, not adapters."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection

from flowkit.code_policies import read_code_policies
from flowkit.config import CoordinatorConfig
from flowkit.coordinator.answers import Answers
from flowkit.coordinator.asking import Asking
from flowkit.coordinator.carrier import Carrier
from flowkit.coordinator.cell import Item
from flowkit.coordinator.children import Children
from flowkit.coordinator.deletion import Deletion
from flowkit.coordinator.dispatcher import Dispatcher
from flowkit.coordinator.ears import Ears
from flowkit.coordinator.engine import Engine
from flowkit.coordinator.expiry import Expiry
from flowkit.coordinator.fleet import Fleet
from flowkit.coordinator.flows import Flows
from flowkit.coordinator.graphs import Graphs
from flowkit.coordinator.history import History
from flowkit.coordinator.hub import Hub
from flowkit.coordinator.intake import Intake
from flowkit.coordinator.leases import Leases
from flowkit.coordinator.limits import Limits
from flowkit.coordinator.loader import Loader
from flowkit.coordinator.narrator import Narrator
from flowkit.coordinator.post import Post
from flowkit.coordinator.publisher import Parcel, Publisher
from flowkit.coordinator.requests import RequestReader
from flowkit.coordinator.retention import Retention
from flowkit.coordinator.snapshots import Snapshots
from flowkit.coordinator.stream_progress import StreamProgress
from flowkit.coordinator.sweeper import Sweeper
from flowkit.coordinator.takeover import Takeover
from flowkit.coordinator.tasks import Tasks
from flowkit.coordinator.timers import Timers
from flowkit.core.bounds import Bounds, bounds_of
from flowkit.core.code_policy import CodePolicies
from flowkit.core.opening import Detector
from flowkit.core.reports import TimeReached
from flowkit.core.sensitive import looks_secret
from flowkit.core.signature import Signature, agreed
from flowkit.ports import Bus, Clock, Record, Store
from flowkit.service import Supervisor
from flowkit.telemetry import Telemetry
from flowkit.wire.messages import SayHello, encode_message
from flowkit.wire.topics import Topics

OFFSETS_SEC = 1.0
EXPIRY_SEC = 0.5
SNAPSHOTS_SEC = 0.5
GATE_SEC = 1.0
RETENTION_SEC = 0.2
CHILDREN_SEC = 5.0


class CoordinatorRuntime:
    """`store` and `bus` are started by whoever made them. `api` is what users call. `at_hand` tells what the handlers
    of this process take, by role; of others their workers' hellos do. `functions` are the names of the coordinator
    functions that nodes may call, None for any; `detector` says which values of variables are secrets."""

    def __init__(
        self,
        *,
        store: Store,
        bus: Bus,
        clock: Clock,
        cfg: CoordinatorConfig,
        telemetry: Telemetry | None = None,
        new_token_prefix: str | None = None,
        at_hand: Callable[[str], list[Signature | None]] = lambda role: [],
        functions: Collection[str] | None = None,
        detector: Detector = looks_secret,
    ) -> None:
        self.cfg = cfg
        self.clock = clock
        self.store = store
        self.bus = bus
        self.telemetry = telemetry if telemetry is not None else Telemetry()
        unique = new_token_prefix or uuid.uuid4().hex[:8]
        self.coordinator_id = f"{cfg.coordinator_id or 'c'}-{unique}"
        self.topics = Topics(cfg.topic_prefix, cfg.facts_partitions)
        self.supervisor = Supervisor(self.coordinator_id, self.telemetry)
        self._at_hand = at_hand
        self._functions = functions
        self._detector = detector
        self._tokens = 0
        self._build()

    def _build(self) -> None:
        bounds = bounds_of(self.cfg.limits)
        policies = read_code_policies(self.cfg.code_policy)
        self._build_decisions(bounds, policies)
        self._build_histories(bounds, policies)
        self._build_families(policies)
        self._build_limits()
        self._build_ears()
        self._build_api(policies)

    def _build_decisions(self, bounds: Bounds, policies: CodePolicies) -> None:
        """What decides, whom it gives work to, and how what it decided leaves."""
        cfg, store, bus, clock = self.cfg, self.store, self.bus, self.clock
        self.hub = Hub()
        self.fleet = Fleet(clock, self.telemetry, ttl_sec=cfg.lease_ttl_sec, heartbeat_sec=cfg.heartbeat_sec)
        self.dispatcher = Dispatcher(
            self.fleet, clock, accept_sec=cfg.accept_sec, prefetch=cfg.prefetch, new_token=self._new_token,
            ageing_sec=cfg.priority_ageing_sec, patience_sec=cfg.sticky_patience_sec,
            tenant_weights=cfg.tenant_weights, policies=policies,
        )  # fmt: skip
        self.leases = Leases(clock, self.dispatcher, cfg.lease_ttl_sec)
        self.timers = Timers(clock)
        self.publisher = Publisher(bus, self.topics, clock, self.supervisor, self.telemetry, self.coordinator_id)
        if self.telemetry.observers:
            self.narrator = Narrator(clock, self.telemetry, self.leases, self.topics)
            self.publisher.packed = self.narrator.packed
        self.carrier = Carrier(
            store=store, bus=bus, clock=clock, publisher=self.publisher, topics=self.topics, hub=self.hub,
            supervisor=self.supervisor, policies=policies,
        )  # fmt: skip
        self.engine = Engine(
            store=store, clock=clock, telemetry=self.telemetry, dispatcher=self.dispatcher, leases=self.leases,
            timers=self.timers, carrier=self.carrier, coordinator_id=self.coordinator_id,
            max_commit_bytes=cfg.max_commit_bytes, evict_after_sec=cfg.evict_after_sec,
            cache_bytes=cfg.cache_bytes, snapshot_bytes=cfg.snapshot_bytes, bounds=bounds,
        )  # fmt: skip
        self.carrier.propagation = self.telemetry.propagation
        if self.telemetry.observers:
            self.engine.on_recorded = self.narrator.tell
        self.engine.detector = self._detector

    def _build_histories(self, bounds: Bounds, policies: CodePolicies) -> None:
        """What is read of the store, and what becomes of it there."""
        cfg, store, clock = self.cfg, self.store, self.clock
        self.graphs = Graphs(store, clock)
        self.flows = Flows(store=store, graphs=self.graphs, clock=clock, policies=policies)
        self.history = History(store, self.graphs, self.telemetry, bounds)
        self.snapshots = Snapshots(store, clock, self.history, self.engine, self.telemetry, self.coordinator_id)
        deletion = Deletion(store, clock, self.coordinator_id, tell=self.carrier.deleted)
        self.retention = Retention(store, clock, self.engine, deletion, self.telemetry, keep_sec=cfg.kept_sec)
        self.loader = Loader(self.history, self.engine)
        self.requests = RequestReader(store, self.engine, self.graphs)
        self.answers = Answers(store, clock, self.engine, self.supervisor, self.telemetry)
        self.sweeper = Sweeper(store, clock, self.engine, self.requests, evict_after_sec=cfg.evict_after_sec)

    def _build_families(self, policies: CodePolicies) -> None:
        """Tasks that are nodes of others."""
        store, bus, clock = self.store, self.bus, self.clock
        asking = Asking(store=store, bus=bus, topics=self.topics, supervisor=self.supervisor, engine=self.engine,
                        requests=self.requests)  # fmt: skip
        self.children = Children(
            store=store, bus=bus, clock=clock, topics=self.topics, graphs=self.graphs, history=self.history,
            engine=self.engine, asking=asking, supervisor=self.supervisor, flows=self.flows,
            policies=policies,
        )  # fmt: skip

    def _build_limits(self) -> None:
        """The permits of the keys that this coordinator owns, and the letters about those of others."""
        cfg, store, clock = self.cfg, self.store, self.clock
        self.limits = Limits(
            store=store, clock=clock, telemetry=self.telemetry, owned=lambda: self.engine.owned,
            partitions=self.topics.partitions, coordinator_id=self.coordinator_id,
            ageing_sec=cfg.priority_ageing_sec,
        )  # fmt: skip
        post = Post(self.engine, self.publisher, self.topics.partitions, self.limits.hear)
        self.limits.send, self.limits.decide = post.to_task, self.engine.pump_dirty
        self.engine.gate.to_limit, self.engine.gate.feed = post.to_limit, self.engine.feed

    def _build_ears(self) -> None:
        """What hears tasks' news and workers, and judges who is silent."""
        cfg, store, bus, clock = self.cfg, self.store, self.bus, self.clock
        takeover = Takeover(store, self.engine, self.requests, self.supervisor)
        self.intake = Intake(
            bus=bus, topics=self.topics, group=cfg.consumer_group, engine=self.engine, fleet=self.fleet,
            publisher=self.publisher, requests=self.requests, takeover=takeover, telemetry=self.telemetry,
            limits=self.limits,
        )  # fmt: skip
        self.expiry = Expiry(
            coordinator_id=self.coordinator_id, store=store, topics=self.topics, engine=self.engine,
            leases=self.leases, fleet=self.fleet, intake=self.intake, publisher=self.publisher,
            supervisor=self.supervisor, telemetry=self.telemetry,
        )  # fmt: skip
        self.ears = Ears(
            bus=bus, topics=self.topics, engine=self.engine, fleet=self.fleet, leases=self.leases,
            expiry=self.expiry, carrier=self.carrier, publisher=self.publisher,
            streams=StreamProgress(clock, self.carrier),
        )  # fmt: skip

    def _build_api(self, policies: CodePolicies) -> None:
        cfg, store, bus, clock = self.cfg, self.store, self.bus, self.clock
        self.api = Tasks(
            store=store, bus=bus, clock=clock, topics=self.topics, graphs=self.graphs, flows=self.flows,
            history=self.history, hub=self.hub, supervisor=self.supervisor, telemetry=self.telemetry,
            engine=self.engine, requests=self.requests,
            signature_of=self._signature_of,
            cancel_grace_sec=cfg.cancel_grace_sec,
            roles=cfg.worker_types,
            policies=policies,
            functions=self._functions,
        )  # fmt: skip

    async def start(self) -> None:
        """Open the topics, join the group, and begin to work. Raises `BusUnavailable` or `StoreUnavailable`."""
        await self.bus.ensure_topics(self.topics.specs())
        await self.ears.start()
        await self.intake.start()
        loops = {
            "intake": self.intake.step,
            "rounds": self.engine.rounds.step,
            "ears": self.ears.step,
            "publisher": self.publisher.step,
            "loader": self.loader.step,
            "requests": self.requests.step,
            "children": self.children.step,
            "timers": self._fire_timers,
            "limits": self.limits.step,
        }
        for name, step in loops.items():
            self.supervisor.loop(name, step)
        for flight in range(self.cfg.commit_flights):
            self.supervisor.loop(f"commits-{flight}", self.engine.commits.step)
        self.supervisor.loop("heads", self.engine.heads.step, every=self.cfg.head_sec)
        self.supervisor.loop("sweeper", self._sweep, every=self.cfg.sweep_sec)
        self.supervisor.loop("expiry", self.expiry.step, every=EXPIRY_SEC)
        self.supervisor.loop("gate", self._mind_the_gate, every=GATE_SEC)
        self.supervisor.loop("snapshots", self.snapshots.step, every=SNAPSHOTS_SEC)
        self.supervisor.loop("retention", self.retention.step, every=RETENTION_SEC)
        self.supervisor.loop("look-after-children", self.children.look, every=CHILDREN_SEC)
        self.supervisor.loop("offsets", self.intake.commit_offsets, every=OFFSETS_SEC)
        hello = encode_message(SayHello(self.coordinator_id))
        self.publisher.send(Parcel(Record(self.topics.control, 0, hello), wanted=lambda: True))

    async def stop(self) -> None:
        """Stop deciding, flush what is in flight for a moment, leave the group."""
        await self.intake.stop()
        await self.supervisor.stop()
        await self.ears.stop()
        await self.api.stop()

    def _signature_of(self, role: str) -> Signature | None:
        return agreed(self._at_hand(role) or self.fleet.signatures_of(role))

    async def _mind_the_gate(self) -> None:
        await self.engine.gate.step()
        self.engine.pump_dirty()

    async def _sweep(self) -> None:
        await self.sweeper.step()

    async def _fire_timers(self) -> None:
        for cell in await self.timers.due():
            self.engine.feed(cell, Item(TimeReached()))
        self.engine.pump_dirty()

    def _new_token(self) -> str:
        self._tokens += 1
        return f"{self.coordinator_id}.{self._tokens}"
