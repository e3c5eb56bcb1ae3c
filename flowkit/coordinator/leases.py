"""The leases of the tasks here, and when each was last heard of. Judged by this process's monotonic clock alone (rule
6)."""

from __future__ import annotations

from dataclasses import dataclass

from flowkit.coordinator.cell import Cell
from flowkit.coordinator.dispatcher import Dispatcher
from flowkit.core.node_run import NodeRun
from flowkit.ports import Clock
from flowkit.wire.seals import may_speak_for

Progress = tuple[float | None, float | None, str]


@dataclass(slots=True)
class Watch:
    """One lease. `heard` is when a heartbeat that names it was last received; `named` whether one ever was. `missed`:
    its worker said after `accept_by`, in its own clock, that it does not have it, so it never will. `ready_at` and
    `leased_at` (epoch seconds) are what the commits say."""

    token: str
    cell: Cell
    node: str
    attempt: int
    worker: str
    incarnation: str
    heard: float
    accept_by: float
    ready_at: float
    leased_at: float
    named: bool = False
    missed: bool = False


class Leases:
    def __init__(self, clock: Clock, dispatcher: Dispatcher, ttl_sec: float) -> None:
        self._clock = clock
        self._dispatcher = dispatcher
        self._ttl_sec = ttl_sec
        self.watches: dict[str, Watch] = {}
        self._by_worker: dict[str, dict[str, Watch]] = {}
        self.progress: dict[str, Progress] = {}  # by token: what the attempts that say so said last

    def sync(self, cell: Cell, node: str, run: NodeRun, *, found: bool = False) -> bool:
        """Make the watch of a node agree with the acknowledged state; True if a place with a worker became free.
        `found`: the lease was read from the store, so its place was not reserved by a placement."""
        token = cell.watches.get(node)
        lease = run.lease
        if lease is not None and token == lease.token:
            return False
        freed = token is not None and self._release(cell, node, token)
        if lease is not None:
            watch = Watch(
                lease.token, cell, node, run.attempt, lease.worker, lease.incarnation, self._clock.mono(),
                lease.accept_by, lease.leased_at if run.ready_at is None else run.ready_at, lease.leased_at,
            )  # fmt: skip
            self.watches[lease.token] = watch
            of_worker = self._by_worker.get(lease.worker)
            if of_worker is None:
                of_worker = self._by_worker[lease.worker] = {}
            of_worker[lease.token] = watch
            cell.watches[node] = lease.token
            if found:
                self._dispatcher.take(lease.worker, lease.incarnation)
        return freed

    def drop(self, cell: Cell) -> None:
        """Forget every lease of a cell that leaves memory or is loaded again."""
        for node, token in list(cell.watches.items()):
            self._release(cell, node, token)

    def heard(self, token: str) -> bool:
        """A heartbeat or a renewal names this token; False if it is not watched here."""
        watch = self.watches.get(token)
        if watch is None:
            return False
        watch.heard, watch.named, watch.missed = self._clock.mono(), True, False
        return True

    def of_stranger(self, token: str, signer: str) -> bool:
        """Whether a lease that is watched here is of a worker for whom this pool does not speak."""
        if not signer:
            return False
        watch = self.watches.get(token)
        return watch is not None and not may_speak_for(signer, watch.worker)

    def said(self, token: str, progress: Progress) -> None:
        """A heartbeat tells how far an attempt is."""
        if token in self.watches:
            self.progress[token] = progress

    def all_named(self, worker: str, incarnation: str, mono: float) -> None:
        """A worker has named all that it had at `mono` in its clock. A dispatch that it had not taken by its accept
        deadline is lost: no TTL needs to pass, however often its task changes owners."""
        for watch in self._by_worker.get(worker, {}).values():
            if not watch.named and watch.accept_by < mono and watch.incarnation == incarnation:
                watch.missed = True

    def missed(self) -> dict[int, list[Watch]]:
        """The leases whose dispatch was lost, or whose result has not been read yet, by partition."""
        found: dict[int, list[Watch]] = {}
        for watch in self.watches.values():
            if watch.missed:
                found.setdefault(watch.cell.partition, []).append(watch)
        return found

    def overdue(self) -> dict[str, list[Watch]]:
        """The leases not heard of for longer than the TTL, by worker."""
        limit = self._clock.mono() - self._ttl_sec
        found: dict[str, list[Watch]] = {}
        for worker, watches in self._by_worker.items():
            late = [watch for watch in watches.values() if watch.heard < limit]
            if late:
                found[worker] = late
        return found

    def _release(self, cell: Cell, node: str, token: str) -> bool:
        del cell.watches[node]
        watch = self.watches.get(token)
        if watch is None or watch.cell is not cell:
            return False
        del self.watches[token]
        if self.progress:
            self.progress.pop(token, None)
        of_worker = self._by_worker[watch.worker]
        del of_worker[token]
        if not of_worker:
            del self._by_worker[watch.worker]
        self._dispatcher.give_back(watch.worker, watch.incarnation)
        return True
