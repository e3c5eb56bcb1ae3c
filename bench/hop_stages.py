"""What the hops of chains are made of, by the notes of the processes that they pass, and what made the slowest slow."""

from __future__ import annotations

import re
import statistics
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.hop_notes import CHAIN, PLACES, key_of
from bench.notes import Note
from bench.stretches import Stretch

SLOWEST = 0.02
LONGEST_SEC = 1.0
"""No stretch is longer; where one looked is not looked for further back."""
REMEMBERED = {"came", "taken", "job came", "job taken"}
"""Noted afterwards, so that the thread's readings are not those of the time."""
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

    def thread_ms(self, stage: int) -> tuple[float, float] | None:
        """How much CPU the thread had in that stage, and how long it waited for a core, if one thread passed both."""
        first, last = self.notes[stage - 1], self.notes[stage]
        if first.pid != last.pid or {PLACES[stage][0], PLACES[stage - 1][0]} & REMEMBERED:
            return None
        return 1000 * (last.cpu - first.cpu), 1000 * (last.queued - first.queued)


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


def table(hops: Sequence[Hop], stretches: Sequence[Stretch]) -> list[str]:
    """Stage by stage; then of the slowest hops."""
    lines = _table_of_all(hops)
    slow = sorted(hops, key=lambda hop: hop.ms)[-max(1, round(SLOWEST * len(hops))) :]
    lines += ["", f"the slowest {len(slow)} of {len(hops)}, from {slow[0].ms:.1f} ms to {slow[-1].ms:.1f} ms"]
    lines += _table_of_slow(hops, slow, stretches)
    return lines


def _table_of_all(hops: Sequence[Hop]) -> list[str]:
    lines = [f"{'ms':58}{'mean':>8}{'p50':>8}{'p90':>8}{'p99':>8}"]
    rows = [(_name(stage), [hop.stage_ms(stage) for hop in hops]) for stage in STAGES]
    for name, values in [*rows, ("all of it", [hop.ms for hop in hops])]:
        cuts = statistics.quantiles(values, n=100, method="inclusive")
        lines.append(f"{name:58}{statistics.fmean(values):8.2f}{cuts[49]:8.2f}{cuts[89]:8.2f}{cuts[98]:8.2f}")
    return lines


def _table_of_slow(hops: Sequence[Hop], slow: Sequence[Hop], stretches: Sequence[Stretch]) -> list[str]:
    usual = {stage: statistics.median(hop.stage_ms(stage) for hop in hops) for stage in STAGES}
    worst = Counter(max(STAGES, key=lambda stage: hop.stage_ms(stage) - usual[stage]) for hop in slow)
    busy = Busy(stretches)
    lines = [f"{'mean ms':58}{'slow':>8}{'all':>8}{'worst of':>10}{'CPU':>8}{'queued':>8}{'its loop':>10}"]
    for stage in STAGES:
        threads = [found for hop in slow if (found := hop.thread_ms(stage)) is not None]
        own = [f"{statistics.fmean(values):8.2f}" for values in zip(*threads, strict=True)] or [f"{'':8}"] * 2
        loop = f"{statistics.fmean(busy.ms(hop, stage) for hop in slow):10.2f}" if stretches else ""
        lines.append(
            f"{_name(stage):58}{statistics.fmean(hop.stage_ms(stage) for hop in slow):8.2f}"
            f"{statistics.fmean(hop.stage_ms(stage) for hop in hops):8.2f}{worst[stage]:10}{''.join(own)}{loop}"
        )
    if stretches:
        lines += ["", f"{'whose stretches they were, ms per slow hop':58}{'all':>8}{'CPU':>8}"]
        for what, (all_ms, cpu_ms) in busy.whose(slow)[:20]:
            lines.append(f"{what:58}{all_ms:8.2f}{cpu_ms:8.2f}")
    return lines


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

    def ms(self, hop: Hop, stage: int) -> float:
        """For how long of a stage the loop was held up of the process in which it ends."""
        return sum(ms for _, ms in self._of(hop, stage))

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
