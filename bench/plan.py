"""A workload as the floor moves it: who waits for how many, and how large everything is."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.driver import WrongResult
from bench.weights import Weights
from bench.workloads import Workload

INPUT_BYTES = 24
"""What one parent's output adds to the inputs of a node that joins several."""

Job = tuple[int, int, str]


@dataclass(frozen=True, slots=True)
class Step:
    """What follows from results of one task: the commit's number and body, and the jobs that are ready."""

    seq: int
    body: str
    jobs: list[Job]


class Plan:
    """Counts parents down, per task. `finished` is set once every task's last commit is acknowledged."""

    def __init__(self, work: Workload, weights: Weights) -> None:
        nodes = work.graph["nodes"]
        place = {node["node_id"]: i for i, node in enumerate(nodes)}
        parents = [node.get("depends_on", ()) for node in nodes]
        self._children: list[list[int]] = [[] for _ in nodes]
        for i, names in enumerate(parents):
            for name in names:
                self._children[place[name]].append(i)
        self._pads = [_pad(weights, len(names), "inputs" in node) for node, names in zip(nodes, parents, strict=True)]
        self._roots = [i for i, names in enumerate(parents) if not names]
        self._missing = [[len(names) for names in parents] for _ in range(work.tasks)]
        self._left = [len(nodes)] * work.tasks
        self._seqs = [0] * work.tasks
        self._open = work.tasks
        self._committed = [len(nodes)] * work.tasks
        self._chain = [place[name] for name in work.hops]
        self._starts: list[dict[int, float]] = [{} for _ in range(work.tasks)]
        self._weights = weights
        self.finished = asyncio.Event()

    def step(self, task: int, done: list[tuple[int, float]]) -> Step:
        """Raises `WrongResult` for a result that came twice."""
        missing, starts, first = self._missing[task], self._starts[task], self._seqs[task] == 0
        ready = list(self._roots) if first else []
        for node, at in done:
            if node in starts:
                raise WrongResult(f"the floor's task {task} got the result of node {node} twice")
            starts[node] = at
            for child in self._children[node]:
                missing[child] -= 1
                if missing[child] == 0:
                    ready.append(child)

        self._left[task] -= len(done)
        self._seqs[task] += 1
        weights = self._weights
        size = weights.succeeded * len(done) + weights.leased * len(ready)
        size += weights.created * first + weights.ended * (self._left[task] == 0)
        return Step(self._seqs[task], "x" * size, [(task, node, self._pads[node]) for node in ready])

    def acknowledged(self, done: Mapping[int, Sequence[tuple[int, float]]]) -> None:
        """The commits of these tasks are durable."""
        for task in done:
            self._committed[task] -= len(done[task])
            if self._committed[task] == 0:
                self._open -= 1
        if self._open == 0:
            self.finished.set()

    def hops(self) -> list[float]:
        found: list[float] = []
        for starts in self._starts:
            times = [starts[node] for node in self._chain]
            found += [after - before for before, after in itertools.pairwise(times)]
        return found


def _pad(weights: Weights, parents: int, literal: bool) -> str:
    joined = 0 if literal or parents < 2 else INPUT_BYTES * parents
    return "x" * (weights.job + joined - 20)
