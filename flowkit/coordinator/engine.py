"""Decides about the tasks of the partitions owned here: reports in, commits out, and what follows once they are
acknowledged.

One commit of a task is in flight at a time (rule 1). Anything but a clear yes drops the cached state, which is loaded
again while the reports wait (rule 2).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from flowkit.coordinator.accounts import Accounts
from flowkit.coordinator.carrier import Carrier
from flowkit.coordinator.cell import Cell, Flight, Item, settle
from flowkit.coordinator.commits import CommitLog
from flowkit.coordinator.dispatcher import Dispatcher
from flowkit.coordinator.eviction import Eviction
from flowkit.coordinator.gate import Gate
from flowkit.coordinator.heads import Heads, front_of
from flowkit.coordinator.history import Past, new_task
from flowkit.coordinator.inbox import Inbox
from flowkit.coordinator.leases import Leases
from flowkit.coordinator.memory import TaskMemory
from flowkit.coordinator.poison import Poison
from flowkit.coordinator.portions import Portions
from flowkit.coordinator.rounds import PIECE, Opened, Rounds
from flowkit.coordinator.story import Listener, Story
from flowkit.coordinator.strays import Strays
from flowkit.coordinator.timers import Timers
from flowkit.core import facts as f
from flowkit.core.bounds import UNBOUNDED, Bounds
from flowkit.core.decide import Deciding
from flowkit.core.desk import Decision
from flowkit.core.effects import Continue, Dispatch, Keep, Question, Revoke, Spawn, Steer, Tell
from flowkit.core.graph import Graph
from flowkit.core.model import Task
from flowkit.core.opening import Detector
from flowkit.core.reports import Accepted, Placed, Report, TimeReached
from flowkit.core.sensitive import looks_secret
from flowkit.ports import Clock, Head, Outcome, Store
from flowkit.telemetry import Reloaded, Telemetry
from flowkit.wire.facts import decode_facts

MOST_AHEADS = 5
MOST_AT_ONCE = 1000
"""The weight of the reports that one decision takes up: those of a few hundred nodes with a hundred successors each
would keep all other tasks waiting for a tenth of a second."""
TO_WORKERS = (Dispatch, Revoke, Tell)


class Engine:
    def __init__(self, *, store: Store, clock: Clock, telemetry: Telemetry, dispatcher: Dispatcher, leases: Leases,
                 timers: Timers, carrier: Carrier, coordinator_id: str, max_commit_bytes: int,
                 evict_after_sec: float, cache_bytes: int, snapshot_bytes: int,
                 bounds: Bounds = UNBOUNDED) -> None:  # fmt: skip
        self.cells: dict[str, Cell] = {}
        self.owned: set[int] = set()
        self.coordinator_id = coordinator_id
        self.clock = clock
        self.telemetry = telemetry
        self.dispatcher = dispatcher
        self.leases = leases
        self.timers = timers
        self.carrier = carrier
        self.rounds = Rounds(self)
        self.commits = CommitLog(store, self.outcome, self.pump_dirty)
        self.eviction = Eviction(self, evict_after_sec)
        self.strays = Strays(self)
        self.poison = Poison(self)
        self.inbox = Inbox(self)
        self.accounts = Accounts(self)
        self.portions = Portions(coordinator_id, max_commit_bytes)
        self.heads = Heads(store, clock, self.eviction.maybe, self.strays.head_missing)
        carrier.on_published = self.event_acknowledged
        self.on_loaded: Callable[[Cell], None] = lambda cell: None
        self.on_outgrown: Callable[[Cell], None] = lambda cell: None
        self.gate = Gate(clock, dispatcher)
        self.on_stray: Callable[[str], None] = lambda task_id: None
        self.on_rest: Callable[[Cell], None] | None = None
        self.on_attempts: Listener | None = None
        self.detector: Detector = looks_secret
        self.on_question: Callable[[Cell, Question], None] = lambda cell, question: None
        self.on_output: Callable[[Keep], None] = lambda effect: None
        self.on_child_effect: Callable[[Cell, Spawn | Continue | Steer], None] = lambda cell, effect: None
        self.on_child_end: Callable[[Cell], None] = lambda cell: None
        self.on_parent_loaded: Callable[[Cell], None] = lambda cell: None
        self.on_recorded: Callable[[Cell, Sequence[f.Fact], float], None] | None = None
        self.memory = TaskMemory(cache_bytes)
        self.to_load: dict[str, Cell] = {}
        self._snapshot_bytes = snapshot_bytes
        self._bounds = bounds
        self._dirty: dict[str, Cell] = {}

    # ------------------------------------------------------------------------------------------ cells

    def get(self, task_id: str, partition: int, sight: tuple[Head, float] | None = None) -> Cell:
        """The task's cell; a new one is loaded in the background. `sight` is its head, by whoever has just read it, and
        when (monotonic seconds) the store was asked for it."""
        cell = self.cells.get(task_id)
        if cell is None:
            cell = self.cells[task_id] = Cell(task_id, partition)
            cell.sight = sight
            self.to_load[task_id] = cell
            self.carrier.load_soon()
        return cell

    def adopt(self, head: Head, graph: Graph) -> None:
        """Take up a task that was accepted in this very process: nothing needs to be loaded."""
        if head.partition not in self.owned or head.task_id in self.cells:
            return
        cell = self.cells[head.task_id] = Cell(head.task_id, head.partition)
        cell.head, cell.task, cell.loading = head, new_task(head, graph, self._bounds), False
        if self.on_attempts is not None:
            cell.story = Story(self.on_attempts)
        self.memory.add(cell, len(head.params))
        self.feed(cell, Item(Accepted(head.targets)))

    def feed(self, cell: Cell, item: Item) -> None:
        if cell.quarantine:
            self.telemetry.count("reports_of_quarantined_tasks")
            settle([item])
            return
        cell.queue.append(item)
        self._dirty[cell.task_id] = cell

    def deliver(self, cell: Cell, item: Item) -> None:
        """Feed a letter of a limit."""
        cell.letters = True
        self.feed(cell, item)

    def touch(self, cell: Cell) -> None:
        """Look at the cell again in the next round, though nothing was reported."""
        self._dirty[cell.task_id] = cell

    def pump_dirty(self) -> None:
        """Decide about every cell that has something to decide, waiting cells for whom there is room included: now, or
        where some have much, about those and who waits in a moment."""
        if not self.rounds.put_off(self._dirty):
            self.round()

    def round(self) -> None:
        """Decide about all cells now."""
        self.dispatcher.begin_round()
        try:
            while True:
                for cell in self.dispatcher.serve():
                    self._dirty.pop(cell.task_id, None)
                    self.pump(cell)
                if not self._dirty:
                    return
                dirty, self._dirty = self._dirty, {}
                for cell in dirty.values():
                    self.pump(cell)
        finally:
            self.dispatcher.end_round()

    # ------------------------------------------------------------------------------------------ deciding

    def pump(self, cell: Cell) -> None:
        """Decide about what waits at a cell, unless a commit of it is in flight."""
        opened = self.rounds.take(cell)
        if not self.may_decide(cell):
            return
        task = cell.task
        assert task is not None
        if cell.letters:
            settle(self.gate.hear(cell, task))
        if opened is None and self._waits_for_room(cell, task):
            return
        most = MOST_AT_ONCE if opened is None else PIECE
        opened = opened or self.open(cell, task)
        if not self.hear(cell, opened, most):
            return
        deciding, decision, items = opened.deciding, opened.deciding.desk.decision, opened.flight.items
        placed: list[Placed] = []
        try:
            if decision.ahead and cell.aheads < MOST_AHEADS and self._behind(cell, items, decision):
                return
            placed = self._offer(cell, task)
            if placed:
                deciding.hear(placed)
                self._unused(decision.unused)
        except Exception as error:  # whatever a report provokes must not reach the other tasks (rule 16)
            self._unused(placed)
            self.poison.provoked(cell, items, error)
            return

        if decision.stale:
            self.telemetry.count("stale_reports", decision.stale)
        for question in decision.questions:
            self.on_question(cell, question)
        if decision.recorded:
            self._fly(cell, opened, placed)
        else:
            for effect in decision.effects:
                if isinstance(effect, Tell):  # what it tells of is acknowledged
                    self.carrier.carry_out(cell, effect)
            settle(items)
            self._rest(cell, task)

    def may_decide(self, cell: Cell) -> bool:
        return cell.live and cell.flight is None and cell.partition in self.owned

    def dirty(self) -> list[Cell]:
        """The cells to be decided about in the next round."""
        return list(self._dirty.values())

    def open(self, cell: Cell, task: Task) -> Opened:
        """Begin to decide. Its flight is not on its way yet; but until it is, the state is ahead of what is stored."""
        deciding = Deciding(task, self.clock.wall(), self.detector)
        decision = deciding.desk.decision
        return Opened(deciding, Flight(cell, deque(), decision.recorded, decision.effects, [], []))

    def hear(self, cell: Cell, opened: Opened, most: int) -> bool:
        """Hear reports up to a weight of so many. False where one cannot be heard: all are heard anew."""
        task = opened.deciding.task
        items = self.inbox.take(cell, task, most)
        opened.flight.items += items
        try:
            opened.deciding.hear([item.report for item in items])  # type: ignore[misc]
        except Exception as error:  # whatever a report provokes must not reach the other tasks (rule 16)
            cell.flight = None
            self.poison.provoked(cell, opened.flight.items, error)
            return False
        return True

    def _offer(self, cell: Cell, task: Task) -> list[Placed]:
        if not task.limited:
            return self.dispatcher.offer(cell)
        self.gate.open(cell, task)
        return self.gate.stamp(cell, task, self.dispatcher.offer(cell))

    def _waits_for_room(self, cell: Cell, task: Task) -> bool:
        """Whether a task that has not begun can wait a moment, so that its first commit also holds its first leases.
        The sweeper ends the patience; a task with timeouts has none, for they run from its creation."""
        if task.created or not cell.patient:
            return False
        if task.timeout_sec is not None or task.deadline is not None or task.graph.hurried:
            return False
        lanes = [self.dispatcher.lane_in(cell, lane) for lane in task.graph.root_lanes]
        if not lanes or self.dispatcher.has_room(lanes):
            return task.limited and self.gate.first(cell, task)
        self.dispatcher.wait_to_begin(cell, lanes)
        return True

    def _behind(self, cell: Cell, items: list[Item], decision: Decision) -> bool:
        """Reports name attempts that this state does not know: what else was decided goes first, then the state is
        loaded again."""
        ahead = set(map(id, decision.ahead))
        cell.queue.extendleft(reversed([item for item in items if id(item.report) in ahead]))
        items[:] = [item for item in items if id(item.report) not in ahead]
        if decision.recorded:
            return False
        settle(items)
        cell.aheads += 1
        self.reload(cell, "ahead", 0.3)
        return True

    def _fly(self, cell: Cell, opened: Opened, placed: list[Placed]) -> None:
        flight, deciding = opened.flight, opened.deciding
        flight.commits, flight.reserved = self.portions.of(cell, flight.facts, deciding.now), placed
        flight.whole = len(flight.commits) == 1
        flight.more = deciding.desk.decision.more
        cell.flight = flight
        self.commits.append(flight)

    def _rest(self, cell: Cell, task: Task) -> None:
        """Nothing was decided: note when to look again."""
        self.timers.set(cell, task.next_wake())
        cell.cautious = cell.cautious and bool(cell.queue)
        if task.limited:
            self.gate.look(cell, task)
        if cell.queue:
            self._dirty[cell.task_id] = cell
        elif not cell.head_due:
            self.heads.touch(cell)

    # ------------------------------------------------------------------------------------------ outcomes

    def outcome(self, flight: Flight, outcome: Outcome) -> None:
        """What became of the first commit of a flight."""
        cell = flight.cell
        if cell.dead or cell.flight is not flight:
            return
        if outcome is Outcome.OK:
            self._acknowledged(flight)
        else:
            self.reload(cell, "lost_race" if outcome is Outcome.DUPLICATE else "unknown_outcome",
                        0.0 if outcome is Outcome.DUPLICATE else 0.2)  # fmt: skip

    def _acknowledged(self, flight: Flight) -> None:
        cell, task = flight.cell, flight.cell.task
        assert task is not None
        commit = flight.commits.popleft()
        cell.acked, cell.prev = commit.seq, commit.id
        self.memory.add(cell, len(commit.body))
        cell.unfolded += len(commit.body)
        if cell.story is not None:
            cell.remember(commit, flight.facts if flight.whole else decode_facts(commit.body))
        if cell.unfolded > self._snapshot_bytes and cell.unfolded > cell.snapshot_size:
            self.on_outgrown(cell)
        if flight.commits:
            self.carrier.committed(cell, commit, str(cell.front.status))
            self.commits.append(flight)
            return

        cell.flight = None
        self.rounds.landed(flight)
        cell.aheads = 0
        cell.stirred_at = self.clock.mono()
        cell.front = front_of(task, self.clock.wall())
        if self.on_recorded is not None:
            self.on_recorded(cell, flight.facts, commit.at)
        self.accounts.agree(cell, task, flight.facts)
        if task.limited:
            self.gate.note(cell, task, flight.facts)
            self.gate.look(cell, task)
        settle(flight.items)
        self.carrier.committed(cell, commit, task.status)
        for effect in flight.effects:
            if isinstance(effect, TO_WORKERS):
                self.carrier.carry_out(cell, effect)
            elif isinstance(effect, Keep):
                self.on_output(effect)
            else:
                self.on_child_effect(cell, effect)
        self.heads.touch(cell)
        self.timers.set(cell, task.next_wake())
        cell.cautious = cell.cautious and bool(cell.queue)
        self.dispatcher.landed(cell)
        if cell.queue or flight.more or not cell.waiting.keys() >= task.ready.keys():
            self._dirty[cell.task_id] = cell

    # ------------------------------------------------------------------------------------------ loading

    def reload(self, cell: Cell, why: str, after_sec: float) -> Cell:
        """Throw the cached state away and load it again; reports in flight and in the queue wait in a new cell."""
        self.telemetry.emit(Reloaded(cell.task_id, why))
        new = Cell(cell.task_id, cell.partition)
        if cell.flight is not None:
            new.queue.extend(cell.flight.items)
        new.queue.extend(item for item in cell.queue)
        new.letters = cell.letters
        new.aheads, new.cautious, new.closing = cell.aheads, cell.cautious, cell.closing
        self.drop(cell)
        self.cells[cell.task_id] = new
        self.carrier.later(after_sec, lambda: self.load_again(new))
        return new

    def load_again(self, cell: Cell) -> None:
        """Have it loaded by the next who loads."""
        if not cell.dead:
            self.to_load[cell.task_id] = cell
            self.carrier.load_soon()

    def loaded(self, cell: Cell, past: Past | None) -> None:
        """The store answered for a cell that is loading; None: there is no such task."""
        if cell.dead:
            return
        if past is None:
            self.strays.missing(cell)
            return
        if past.deleted:
            self.strays.late(cell)
            return
        if past.head.partition not in self.owned:
            self.strays.not_ours(cell, past.head.partition)
            return
        cell.partition = past.head.partition  # whatever the message said that asked for it
        cell.head, cell.task, cell.loading, cell.sight = past.head, past.task, False, None
        if past.task is None:
            self.poison.quarantine(cell, past.error)
            return
        task = past.task
        cell.acked, cell.prev = past.seq, past.commit_id
        if not past.seq and self.on_attempts is not None:
            cell.story = Story(self.on_attempts)
        cell.snapshot, cell.snapshot_size, cell.unfolded = past.head.snapshot, past.snapshot_size, past.unfolded
        self.memory.add(cell, len(past.head.params) + past.snapshot_size + past.unfolded)
        cell.stored = (past.head.seq, past.head.published_seq)
        cell.published = min(past.head.published_seq, cell.acked)
        cell.front = front_of(task, self.clock.wall())
        for commit in past.commits:
            if commit.seq > cell.published:
                self.carrier.committed(cell, commit, task.status)
        for node in task.leased:
            self.leases.sync(cell, node, task.runs[node], found=True)
        self.heads.touch(cell)
        first: Report = TimeReached() if task.created else Accepted(past.head.targets)
        cell.queue.appendleft(Item(first))
        self._dirty[cell.task_id] = cell
        self.on_loaded(cell)
        if task.children:
            self.on_parent_loaded(cell)
        elif task.ended and past.head.parent and cell.published < cell.acked:
            cell.untold = cell.acked
            self.on_child_end(cell)

    # ------------------------------------------------------------------------------------------ leaving

    def forget_task(self, task_id: str) -> None:
        """The task was deleted."""
        if (cell := self.cells.get(task_id)) is not None:
            self.forget(cell)

    def forget(self, cell: Cell) -> None:
        """Drop a cell whose task is no more; nobody waits for what came for it."""
        settle(cell.queue)
        self.drop(cell)

    def drop(self, cell: Cell) -> None:
        """Forget a cell: it is never used again."""
        cell.dead = True
        if cell.flight is not None:  # what becomes of its commit, somebody else will find out
            self._unused(cell.flight.reserved)
        self.dispatcher.forget(cell)
        self.leases.drop(cell)
        self.memory.drop(cell)
        self.timers.set(cell, None)
        self.to_load.pop(cell.task_id, None)
        if self.cells.get(cell.task_id) is cell:
            del self.cells[cell.task_id]

    def event_acknowledged(self, cell: Cell, seq: int) -> None:
        """The bus has an event: the head may say so, and perhaps the cell may leave."""
        cell.event_acknowledged(seq)
        if not cell.dead:
            self.heads.touch(cell)

    def told(self, cell: Cell, seq: int) -> None:
        """The parent of a task has heard of the end that commit `seq` told of, or it is an end no more."""
        cell.told(seq)
        if not cell.dead:
            self.heads.touch(cell)

    def _unused(self, placed: Iterable[Placed]) -> None:
        for one in placed:
            self.dispatcher.give_back(one.worker, one.incarnation)
