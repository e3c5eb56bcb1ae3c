"""What the hops of chains are made of, by the notes of the processes that they pass, and what made the slowest slow."""

from __future__ import annotations

import re
import statistics
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.hop_notes import CHAIN, PLACES, key_of
from bench.notes import Note, Thread
from bench.stretches import Stretch

SLOWEST = 0.02
LONGEST_SEC = 1.0
"""No stretch is longer; where one looked is not looked for further back."""
STAGES = range(1, len(PLACES))
_KEY = re.compile(rf"(.*)/{CHAIN}(\d+)")


@dataclass(frozen=True, slots=True)
class Hop:
    """The notes at each of `PLACES`, from one node's handler to the next one's."""

    notes: Sequence[Note]

    @property
    def ms(self) -> float:
        return 1000 * (self.notes[-1].at - self.notes[0].at)

    def stage_ms(self, stage: int) -> float:
        return 1000 * (self.notes[stage].at - self.notes[stage - 1].at)

    def spent_ms(self, stage: int, threads: Mapping[int, Thread]) -> tuple[float, float]:
        """How much CPU the thread had in which the stage ends, and how long it waited for a core."""
        last = self.notes[stage]
        cpu, queued = threads[last.pid].spent(self.notes[stage - 1].at, last.at)
        return 1000 * cpu, 1000 * queued


def hops_in(notes: Mapping[str, Mapping[str, Note]], began: float, ended: float) -> tuple[list[Hop], int]:
    """The hops between two moments, and how many were not seen at every place."""
    found: list[Hop] = []
    lost = 0
    for key, mine in notes.items():
        matched = _KEY.fullmatch(key)
        if matched is None or "began" not in mine or not began <= mine["began"].at <= ended:
            continue
        digits = matched[2]
        following = notes.get(key_of(matched[1], f"{CHAIN}{int(digits) + 1:0{len(digits)}}"))
        if following is None or "began" not in following:
            continue  # the last of its chain
        places = [(following if whose else mine).get(place) for place, whose, _, _ in PLACES]
        whole = [note for note in places if note is not None]
        if len(whole) == len(places):
            found.append(Hop(whole))
        else:
            lost += 1
    return found, lost


def table(hops: Sequence[Hop], threads: Mapping[int, Thread], stretches: Sequence[Stretch]) -> list[str]:
    """Stage by stage; then of the slowest hops; then what held up the loops meanwhile.

    The CPU of the thread in which a stage ends is what it did for others, mostly. It says more than the clock where
    others are at work on the machine.
    """
    spent = [[hop.spent_ms(stage, threads) for stage in STAGES] for hop in hops]
    lines = _table_of_all(hops, spent)
    order = sorted(range(len(hops)), key=lambda place: hops[place].ms)
    slow = order[-max(1, round(SLOWEST * len(hops))) :]
    lines += ["", f"the slowest {len(slow)} of {len(hops)}, from {hops[slow[0]].ms:.1f} to {hops[slow[-1]].ms:.1f} ms"]
    lines += _table_of_slow(hops, slow, spent)
    if stretches:
        lines += ["", f"{'whose stretches held them up, ms per slow hop':58}{'all':>8}{'CPU':>8}"]
        for what, (all_ms, cpu_ms) in Busy(stretches).whose([hops[place] for place in slow])[:20]:
            lines.append(f"{what:58}{all_ms:8.2f}{cpu_ms:8.2f}")
        lines += ["", f"{'by CPU, ms':58}{'longest':>8}{'> 5 ms':>8}{'> 2 ms':>8}{'in all':>8}"]
        lines += _table_of_longest(hops, stretches)
    return lines


Spent = Sequence[Sequence[tuple[float, float]]]


def _table_of_all(hops: Sequence[Hop], spent: Spent) -> list[str]:
    lines = [f"{'ms':58}{'mean':>8}{'p50':>8}{'p90':>8}{'p99':>8}{'CPU: mean':>12}{'p50':>8}{'p90':>8}{'p99':>8}"]
    rows = [
        (_name(stage), [hop.stage_ms(stage) for hop in hops], [one[stage - 1][0] for one in spent]) for stage in STAGES
    ]
    whole = [sum(cpu for cpu, _ in one) for one in spent]
    for name, values, cpus in [*rows, ("all of it", [hop.ms for hop in hops], whole)]:
        lines.append(f"{name:58}{_spread(values)}    {_spread(cpus)}")
    return lines


def _spread(values: Sequence[float]) -> str:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return f"{statistics.fmean(values):8.2f}{cuts[49]:8.2f}{cuts[89]:8.2f}{cuts[98]:8.2f}"


def _table_of_slow(hops: Sequence[Hop], slow: Sequence[int], spent: Spent) -> list[str]:
    usual = {stage: statistics.median(hop.stage_ms(stage) for hop in hops) for stage in STAGES}
    worst = Counter(max(STAGES, key=lambda stage: hops[place].stage_ms(stage) - usual[stage]) for place in slow)
    lines = [f"{'mean ms':58}{'slow':>8}{'all':>8}{'worst of':>10}{'CPU':>8}{'queued':>8}"]
    for stage in STAGES:
        means = [
            statistics.fmean(hops[place].stage_ms(stage) for place in slow),
            statistics.fmean(hop.stage_ms(stage) for hop in hops),
            *(statistics.fmean(spent[place][stage - 1][kind] for place in slow) for kind in (0, 1)),
        ]
        lines.append(f"{_name(stage):58}{means[0]:8.2f}{means[1]:8.2f}{worst[stage]:10}{means[2]:8.2f}{means[3]:8.2f}")
    return lines


def _table_of_longest(hops: Sequence[Hop], stretches: Sequence[Stretch]) -> list[str]:
    """The callbacks that held a loop up for long at once, while there were hops."""
    process = {hop.notes[stage].pid: PLACES[stage][2] for hop in hops[:1] for stage in STAGES}
    began, ended = min(hop.notes[0].at for hop in hops), max(hop.notes[-1].at for hop in hops)
    found: dict[str, list[float]] = {}
    for one in stretches:
        if began <= one.began <= ended:
            found.setdefault(f"{process.get(one.pid, ''):12}{one.what}", []).append(1000 * one.cpu)
    rows = sorted(found.items(), key=lambda pair: -max(pair[1]))[:20]
    return [
        f"{what:58}{max(ms):8.1f}{sum(one > 5 for one in ms):8}{sum(one > 2 for one in ms):8}{sum(ms):8.0f}"
        for what, ms in rows
    ]


def _name(stage: int) -> str:
    place, _, process, what = PLACES[stage]
    return f"{process:12}{place:12}{what}"


class Busy:
    """When which process's loop was held up."""

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        self._by_pid: dict[int, list[Stretch]] = {}
        for one in stretches:
            self._by_pid.setdefault(one.pid, []).append(one)
        self._begins = {pid: [one.began for one in there] for pid, there in self._by_pid.items()}

    def whose(self, hops: Sequence[Hop]) -> list[tuple[str, tuple[float, float]]]:
        """How long each kind of callback held up a hop, on average, and how much of it was CPU; the longest first."""
        found: dict[str, tuple[float, float]] = {}
        for hop in hops:
            for stage in STAGES:
                for one, ms in self._of(hop, stage):
                    name = f"{PLACES[stage][2]:12}{one.what}"
                    share = one.cpu / max(one.ended - one.began, 1e-9)
                    held, cpu = found.get(name, (0.0, 0.0))
                    found[name] = held + ms / len(hops), cpu + ms * share / len(hops)
        return sorted(found.items(), key=lambda pair: -pair[1][0])

    def _of(self, hop: Hop, stage: int) -> list[tuple[Stretch, float]]:
        first, last = hop.notes[stage - 1], hop.notes[stage]
        there = self._by_pid.get(last.pid, [])
        found: list[tuple[Stretch, float]] = []
        for one in there[bisect_left(self._begins.get(last.pid, []), first.at - LONGEST_SEC) :]:
            if one.began >= last.at:
                break
            if one.ended > first.at:
                found.append((one, 1000 * (min(one.ended, last.at) - max(one.began, first.at))))
        return found
