"""What the engine asks of the world, in its own verbs: the store, the bus, the clock, the secrets. Adapters answer."""

from __future__ import annotations

from flowkit.ports.bus import Bus, Member, Rebalanced, Record, Tail, TopicSpec
from flowkit.ports.clock import Clock
from flowkit.ports.documents import (
    FOREVER,
    Block,
    Commit,
    FlowTag,
    FlowVersion,
    Kept,
    LimitRecord,
    LimitSwap,
    Renewal,
    Request,
    StreamId,
)
from flowkit.ports.heads import DELETED, Head, HeadFilter, HeadUpdate, Removal, flow_name
from flowkit.ports.outcome import Outcome
from flowkit.ports.secrets import AuditFilter, AuditRow, Rewrap, SealedSecret, SecretSource, SecretStore, SecretUse
from flowkit.ports.store import Store

__all__ = [
    "DELETED",
    "FOREVER",
    "AuditFilter",
    "AuditRow",
    "Block",
    "Bus",
    "Clock",
    "Commit",
    "FlowTag",
    "FlowVersion",
    "Head",
    "HeadFilter",
    "HeadUpdate",
    "Kept",
    "LimitRecord",
    "LimitSwap",
    "Member",
    "Outcome",
    "Rebalanced",
    "Record",
    "Removal",
    "Renewal",
    "Request",
    "Rewrap",
    "SealedSecret",
    "SecretSource",
    "SecretStore",
    "SecretUse",
    "Store",
    "StreamId",
    "Tail",
    "TopicSpec",
    "flow_name",
]
