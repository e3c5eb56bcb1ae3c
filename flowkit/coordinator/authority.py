"""Who may say what, where messages are signed: coordinators anything, a pool what is about its own workers."""

from __future__ import annotations

from flowkit.core.model import Task
from flowkit.core.reports import ChildEnded
from flowkit.ports import Record
from flowkit.wire.messages import Beacon, FactsBatch, FleetMessage, Knock, Told, Unreadable
from flowkit.wire.seals import COORDINATORS, may_speak_for


def of_batch(record: Record, batch: FactsBatch) -> str:
    """Why a batch of facts is not its signer's to send; empty where it is."""
    if record.signer in ("", COORDINATORS):
        return ""
    if batch.held >= 0 and not may_speak_for(record.signer, batch.sender):
        return f"signed by the pool {record.signer!r}, and sent as {batch.sender!r}"
    return ""


def of_item(record: Record, item: object) -> str:
    """Why an item is not for its signer to tell, whatever task it is about; empty where it is."""
    if record.signer in ("", COORDINATORS) or isinstance(item, Knock | Unreadable):
        return ""
    if isinstance(item, Told) and not isinstance(item.report, ChildEnded):
        return ""  # whose attempt it is, the task knows: see `foreign`
    return f"signed by the pool {record.signer!r}, and for coordinators alone to tell"


def of_fleet(record: Record, message: FleetMessage) -> str:
    """Why a sign of life is not its signer's to give; empty where it is."""
    if isinstance(message, Beacon):
        signed = record.signer in ("", COORDINATORS)
        return "" if signed else f"a beacon signed by the pool {record.signer!r}"
    if may_speak_for(record.signer, message.worker):
        return ""
    return f"signed by the pool {record.signer!r}, and about {message.worker!r}"


def foreign(task: Task, report: object, signer: str) -> str:
    """The worker that holds the lease which a report is about, where `signer` does not speak for it. A report about no
    current lease changes nothing, whoever signed it."""
    run = task.runs.get(getattr(report, "node", ""))
    lease = run.lease if run is not None else None
    if lease is None or lease.token != getattr(report, "token", None) or may_speak_for(signer, lease.worker):
        return ""
    return str(lease.worker)
