"""What the programs of several attempts used together, as their supervisors measured it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from flowkit.monitor_ports import AttemptRecord

MB: Final = 1024 * 1024
CPU_BOUND: Final = 0.8
"""Programs that compute for so much of the time that they run wait for nothing that counts."""


@dataclass(frozen=True, slots=True)
class Resources:
    """Of `attempts` that ran a program: seconds that they ran and computed, the most memory that one of them had, and
    the bytes that they read, wrote, received and sent, all together. What could not be measured counts as nothing.
    `out_of_memory` of them were ended for want of memory."""

    attempts: int
    run_sec: float
    cpu_sec: float
    peak_memory_bytes: int
    read_bytes: int
    written_bytes: int
    received_bytes: int
    sent_bytes: int
    out_of_memory: int

    def hint(self, what: str) -> str:
        """What these figures say about time that went into `running`, or running `again`."""
        memory = f"{self.peak_memory_bytes / MB:,.0f} MiB"
        if what == "again" and self.out_of_memory:
            return (
                f"{self.out_of_memory} of {self.attempts} programs that did not succeed ran out of memory, with "
                f"{memory} at most: more `memory_mb`, or `on_oom`, which gives the next try more"
            )
        share = self.cpu_sec / self.run_sec if self.run_sec else 0.0
        computed = f"its programs computed {self.cpu_sec:.3g} s of the {self.run_sec:.3g} s that they ran"
        if share >= CPU_BOUND:
            return f"{computed}: faster code, or more `cpu` if it can compute side by side; memory at most {memory}"
        moved = (self.read_bytes + self.written_bytes) / MB, (self.received_bytes + self.sent_bytes) / MB
        return (
            f"{computed}, and waited for the rest: {moved[0]:,.1f} MiB of files and {moved[1]:,.1f} MiB of network; "
            f"memory at most {memory}"
        )


def resources_of(records: Sequence[AttemptRecord]) -> Resources | None:
    """What the programs among these attempts used; None where there were none."""
    programs = [(record, record.usage) for record in records if record.usage is not None]
    if not programs:
        return None
    usages = [usage for _, usage in programs]
    return Resources(
        attempts=len(programs),
        run_sec=sum(record.run_sec for record, _ in programs),
        cpu_sec=sum(usage.get("cpu_sec", 0.0) for usage in usages),
        peak_memory_bytes=max(usage.get("peak_memory_bytes", 0) for usage in usages),
        read_bytes=_sum(usages, "read_bytes"),
        written_bytes=_sum(usages, "written_bytes"),
        received_bytes=_sum(usages, "received_bytes"),
        sent_bytes=_sum(usages, "sent_bytes"),
        out_of_memory=sum(usage.get("verdict") == "oom" for usage in usages),
    )


def _sum(usages: Sequence[dict[str, Any]], name: str) -> int:
    return sum(usage.get(name, 0) for usage in usages)
