"""A simulated host: its clock, its links to Kafka and MongoDB, and the process that lives and dies on it."""

from __future__ import annotations

from collections.abc import Callable

from flowkit.testing.evidence import Frozen
from flowkit.testing.loop import Process
from flowkit.testing.stage import EPOCH, Stage

KAFKA, MONGO = "kafka", "mongo"


class HostClock:
    """The time as one host has it: its wall clock is off by up to 1.5 s, its monotonic one began at boot."""

    def __init__(self, stage: Stage, skew: float, boot: float) -> None:
        self._time = stage.loop.time
        self.skew = skew
        self.boot = boot

    def wall(self) -> float:
        return EPOCH + self._time() + self.skew

    def mono(self) -> float:
        return self.boot + self._time()


class Machine:
    """`boot` starts the process's work, in its context; it is called again after every crash."""

    def __init__(self, stage: Stage, name: str, kind: str, boot: Callable[[Machine], None]) -> None:
        self.stage = stage
        self.name = name
        self.kind = kind
        self._skew = stage.plan.uniform(-1.5, 1.5)
        self.clock = HostClock(stage, self._skew, 0.0)
        self.process = Process(name)
        self.process.dead = True
        self.incarnation = 0
        self.started_at = 0.0
        self.last_freeze = -99.0
        self.freezes: list[Frozen] = []
        self.buried: list[Callable[[Machine], None]] = []
        self._boot = boot
        self._thaw_at = 0.0
        self._cut = {KAFKA: 0.0, MONGO: 0.0}
        self._one_way = {KAFKA: False, MONGO: False}
        self._published = 0.0

    def __repr__(self) -> str:
        return f"<Machine {self.name}>"

    # ---- life

    @property
    def alive(self) -> bool:
        return not self.process.dead

    @property
    def frozen(self) -> bool:
        return self.process.frozen

    def start(self) -> None:
        if self.alive:
            return
        self.incarnation += 1
        self.started_at = self.stage.now
        # It may come up elsewhere: what its monotonic clock shows says nothing about the one before.
        self.clock = HostClock(self.stage, self._skew, self.stage.dice.uniform(0, 1000))
        self.process = self.stage.loop.new_process(self.name)
        self.stage.note("START", self.name, self.incarnation)
        self.process.context().run(self._boot, self)

    def crash(self, back_after: float | None = None) -> None:
        """SIGKILL; a new process comes up after `back_after` seconds."""
        if not self.alive:
            return
        self.stage.note("CRASH", self.name)
        self.stage.loop.kill(self.process)
        self._thaw_at = 0.0
        for bury in self.buried:
            bury(self)
        if back_after is not None:
            self.stage.later(back_after, self.start)

    def freeze(self, seconds: float) -> None:
        """SIGSTOP now, SIGCONT after `seconds`."""
        if not self.alive:
            return
        self._thaw_at = max(self._thaw_at, self.stage.now + seconds)
        self.last_freeze = self._thaw_at
        self.freezes.append(Frozen(self.name, self.stage.now, self._thaw_at))
        self.stage.note("FREEZE", self.name, f"{seconds:.1f}")
        self.stage.loop.freeze(self.process)
        self.stage.at(self._thaw_at, self._thaw, self.process)

    def _thaw(self, process: Process) -> None:
        if self.stage.now >= self._thaw_at and process.frozen and not process.dead:
            self.stage.note("THAW", self.name)
            self.stage.loop.thaw(process)

    # ---- links

    def cut(self, link: str, until: float, *, one_way: bool) -> None:
        """Cut a link; `one_way`: what is sent arrives, answers do not come back."""
        self._cut[link] = max(self._cut[link], until)
        self._one_way[link] = one_way

    def cut_until(self, link: str) -> float:
        return self._cut[link]

    def is_cut(self, link: str) -> bool:
        return self._cut[link] > self.stage.now

    def hears(self, link: str) -> bool:
        """Whether a request would still arrive over a link that is cut."""
        return self._one_way[link]

    def heal(self) -> None:
        now = self.stage.now
        for link in self._cut:
            self._cut[link] = min(self._cut[link], now)
        if self.frozen:
            self._thaw_at = self.last_freeze = now
            self._thaw(self.process)
        self.start()

    # ---- the order in which one host's messages leave

    def departure(self, when: float) -> float:
        """When a message published now arrives: after those before it, as an idempotent producer has it."""
        self._published = max(self._published, when)
        return self._published
