"""Says what was measured: tables for people, JSON for machines, and which targets were met."""

from __future__ import annotations

import dataclasses
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from bench.measure import Run
from bench.summary import Spread, Summary, summarise
from bench.targets import judge

DISTURBED_CORES = 0.15


def print_tables(runs: Sequence[Run], backend: str, *, quick: bool, profiled: bool) -> None:
    found = summarise(runs)
    console = Console(width=max(165, Console().width))
    if quick:
        console.print("[bold]--quick: small sizes, figures for a look only[/]")
    if profiled:
        console.print("[bold]--profile: the first run of each workload was slowed down by the profiler[/]")
    plain = [one for one in found if not one.workload.startswith(("W5", "W6"))]
    if plain:
        console.print(_speed(plain))
    graphs = [one for one in found if one.workload.startswith("W5")]
    if graphs:
        console.print(_graphs(graphs))
    console.print(_costs(found))
    for one in found:
        if "peak_bytes_per_item" in one.more:
            taken, left = one.more["peak_bytes_per_item"], one.more.get("left_bytes_per_item")
            said = _or_dash(left, "{:.0f}".format)
            console.print(f"{one.workload}: {taken:.0f} bytes of memory per item; {said} are left by each further run")
        if one.workload == "W6":
            console.print(_naps(one))
        if one.trouble:
            console.print(f"[yellow]{one.workload}: {one.trouble} happened while it was measured[/]")
    console.print(_targets(found, backend))
    console.print(f"{machine()}; load when this began: {_load()}", highlight=False)
    worst = max(one.others_cores for one in found)
    if worst > DISTURBED_CORES:
        console.print(
            f"[bold]Indicative only: other processes took up to {worst:.1f} of the machine's "
            f"{os.cpu_count()} cores while this was measured.[/]"
        )


def write_json(path: Path, runs: Sequence[Run], backend: str, *, quick: bool, profiled: bool) -> None:
    found = summarise(runs)
    content = {
        "backend": backend,
        "quick": quick,
        "profiled": profiled,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "load": _load(),
        "summaries": [dataclasses.asdict(one) for one in found],
        "targets": [dataclasses.asdict(one) for one in judge(found, backend)],
        "runs": [dataclasses.asdict(run) for run in runs],
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=1))


def machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} x {model}, Python {platform.python_version()}, {platform.platform()}"


def _load() -> str:
    return ", ".join(f"{value:.2f}" for value in START_LOAD)


START_LOAD = os.getloadavg()


def _speed(found: Sequence[Summary]) -> Table:
    table = Table(title="Speed (median, lowest to highest)", title_justify="left")
    for name in ("", "what", "rate", "", "create ms", "floor", "share", "ms/hop", "p50", "p99", "floor's", "ratio"):
        table.add_column(name, justify="left" if name in ("", "what") else "right")
    for one in found:
        table.add_row(
            one.workload, one.what, f"{_count(one.rate.median)} {one.unit}/s",
            f"{_count(one.rate.low)} - {_count(one.rate.high)}", f"{one.create_ms:.0f}",
            _or_dash(one.floor_rate, lambda floor: _count(floor.median)), _or_dash(one.share, "{:.2f}".format),
            _or_dash(one.hop_ms, _spread_ms), _or_dash(one.hop_p50_ms, "{:.2f}".format),
            _or_dash(one.hop_p99_ms, "{:.2f}".format), _or_dash(one.floor_hop_ms, _spread_ms),
            _or_dash(one.hop_ratio, "{:.2f}".format),
        )  # fmt: skip
    return table


def _graphs(found: Sequence[Summary]) -> Table:
    table = Table(title="W5: large graphs", title_justify="left")
    for name in (
        "",
        "rate",
        "ms/node",
        "CPU ms/node",
        "create ms",
        "hops beside: p50",
        "p99",
        "chains",
        "slowest ms",
        "largest document",
    ):
        table.add_column(name, justify="right" if name else "left")
    for one in found:
        table.add_row(
            one.workload, f"{_count(one.rate.median)} nodes/s", f"{one.ms_per_node:.3f}",
            f"{one.cpu_ms_per_node:.3f}", f"{one.create_ms:.0f}", _or_dash(one.hop_p50_ms, "{:.1f}".format),
            _or_dash(one.hop_p99_ms, "{:.1f}".format),
            _or_dash(one.more.get("chains_beside"), _count), _or_dash(one.more.get("slowest_chain_ms"), _count),
            _or_dash(one.more.get("largest_document") or None, _count),
        )  # fmt: skip
    return table


def _costs(found: Sequence[Summary]) -> Table:
    names = [name for name in found[0].cpu_sec if not name.startswith("floor")]
    counts = ["Kafka messages", "(floor)", "documents", "(floor)", "round trips"] if "mongod" in names else []
    table = Table(title="Cost: CPU seconds per run, counts per node, memory at the end", title_justify="left")
    table.add_column("")
    for name in [*names, *counts, "MB of each", "others' cores"]:
        table.add_column(name, justify="right")
    for one in found:
        figures = [
            f"{one.messages:.2f}",
            _or_dash(one.floor_messages, "{:.2f}".format),
            f"{one.documents:.2f}",
            _or_dash(one.floor_documents, "{:.2f}".format),
            f"{one.round_trips:.3f}",
        ]
        table.add_row(
            one.workload,
            *(f"{one.cpu_sec[name]:.2f}" for name in names),
            *(figures if counts else ()),
            " / ".join(f"{one.rss_mb[name]:.0f}" for name in names),
            f"{one.others_cores:.2f}",
        )
    return table


def _naps(one: Summary) -> str:
    cpu = ", ".join(
        f"{name} {value:.1f} %" for name, value in one.more["cpu_percent"].items() if not name.startswith("floor")
    )
    growth = ", ".join(
        f"{name} {value:+.1f} MB"
        for name, value in one.more["memory_growth_mb"].items()
        if not name.startswith("floor")
    )
    late = one.more["late_sec"]
    return (
        f"W6: {one.what}; in {one.more['quiet_sec']:.0f} s of waiting: CPU {cpu}; memory {growth}; "
        f"late p50 {late['p50']:.2f} s, p99 {late['p99']:.2f} s, at most {late['max']:.2f} s"
    )


def _targets(found: Sequence[Summary], backend: str) -> Table:
    table = Table(title="Targets (two cores of their own)", title_justify="left")
    for name in ("", "figure", "target", "measured", ""):
        table.add_column(name)
    for one in judge(found, backend):
        table.add_row(
            one.workload,
            one.figure,
            one.wanted,
            f"{one.measured:.4g}",
            "[green]met[/]" if one.met else "[red]missed[/]",
        )
    return table


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _spread_ms(hop: Spread) -> str:
    return f"{hop.median:.2f} ({hop.low:.2f} - {hop.high:.2f})"


def _or_dash(value: Any, say: Any) -> str:
    return "-" if value is None else say(value)
