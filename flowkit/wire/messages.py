"""The messages of every topic, and their bytes.

`facts` and `work` carry batches: `[version, ...envelope, [item, ...]]`. A reader of an older version refuses a newer
envelope (`UnknownFact`), and an unreadable record is `Corrupt`; one unreadable item never spoils the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from flowkit.core.immutable import immutable
from flowkit.core.payload import Artifact
from flowkit.core.permits import LETTERS, Letter
from flowkit.core.reports import AttemptReport, ChildEnded
from flowkit.errors import Corrupt, UnknownFact
from flowkit.wire.codec import UNFIT, check_depth, dumps, loads
from flowkit.wire.facts import REPORT_ROW, decode_report, made, read_artifact, row_of, write_artifact
from flowkit.wire.topics import MAX_MESSAGE_BYTES

VERSION = 1

# ---------------------------------------------------------------------------------------------- facts.v1


@immutable
class Told:
    """One item of `facts`: a worker's report about a task, or that of the owner of a child task."""

    task_id: str
    tenant: str
    report: AttemptReport | ChildEnded


@immutable
class Mail:
    """A letter between a task and a limit. `to` is the id of whoever it is for."""

    to: str
    tenant: str
    letter: Letter


@immutable
class Knock:
    """The doorbell: something about the task stands in the store. `what` is `new` or `request`."""

    task_id: str
    tenant: str
    what: str


@immutable
class Unreadable:
    """An item that could not be read, as JSON text, and why. `newer`: a newer version's."""

    text: bytes
    why: str
    task_id: str = ""
    newer: bool = False


@immutable
class FactsBatch:
    """What one sender says. `held` is how many attempts the worker holds (running and queued); -1: no worker."""

    sender: str
    incarnation: str
    held: int
    items: Sequence[Told | Mail | Knock | Unreadable]


def encode_facts_batch(sender: str, incarnation: str, held: int, items: Iterable[Told | Mail | Knock]) -> bytes:
    rows = [_row(item) for item in items]
    return dumps([VERSION, sender, incarnation, held, rows])


def _row(item: Told | Mail | Knock) -> list[Any]:
    if type(item) is Told:  # nearly always
        return [item.task_id, item.tenant, row_of(item.report)]
    match item:
        case Told(task_id, tenant, report):
            return [task_id, tenant, row_of(report)]
        case Knock(task_id, tenant, what):
            return [task_id, tenant, ["knock", what]]
        case Mail(to, tenant, letter):
            return [to, tenant, row_of(letter)]


class _KnockRow(msgspec.Struct, array_like=True, tag="knock"):
    what: str


class _ItemRow(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    task_id: str
    tenant: str
    content: REPORT_ROW | _KnockRow


class _BatchRow(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    sender: str
    incarnation: str
    held: int
    items: list[_ItemRow]


_batch_decoder: msgspec.json.Decoder[_BatchRow] = msgspec.json.Decoder(_BatchRow)


def decode_facts_batch(value: bytes | None) -> FactsBatch:
    """Raises `Corrupt` or `UnknownFact` for the record as a whole."""
    data = checked(value)
    check_depth(data)  # what workers say is written again, into commits and events
    try:
        batch = _batch_decoder.decode(data)
        if batch.version == VERSION:
            items = [_item(row) for row in batch.items]
            return FactsBatch(batch.sender, batch.incarnation, batch.held, items)
    except (*UNFIT, Corrupt):
        pass  # something in it is unreadable: find out what, and read the rest
    (sender, incarnation), (held, rows) = _envelope(data, 2, 2)
    if not isinstance(held, int) or isinstance(held, bool) or not isinstance(rows, list):
        raise Corrupt("a batch of facts ends with a number and a list of items")
    return FactsBatch(sender, incarnation, held, [_told(row) for row in rows])


def _item(row: _ItemRow) -> Told | Mail | Knock:
    content = row.content
    if type(content) is _KnockRow:
        return Knock(row.task_id, row.tenant, content.what)
    return _sorted(row.task_id, row.tenant, made(content))


def _sorted(to: str, tenant: str, content: AttemptReport | ChildEnded | Letter) -> Told | Mail:
    return Mail(to, tenant, content) if isinstance(content, LETTERS) else Told(to, tenant, content)


def _told(row: Any) -> Told | Mail | Knock | Unreadable:
    try:
        if not isinstance(row, list) or len(row) != 3:
            raise Corrupt("an item is a list of a task, a tenant and a fact")
        task_id, tenant, content = row
        if not isinstance(task_id, str) or not isinstance(tenant, str):
            raise Corrupt("a task and a tenant are strings")
        if not (task_id.isascii() and tenant.isascii()):
            (task_id + tenant).encode()  # a lone surrogate is legal JSON, but no store can look for it
        if isinstance(content, list) and content[:1] == ["knock"]:
            return Knock(task_id, tenant, msgspec.convert(content, _KnockRow).what)
        return _sorted(task_id, tenant, decode_report(content))
    except UnknownFact as error:
        return Unreadable(dumps(row), str(error), row[0], newer=True)
    except (Corrupt, msgspec.ValidationError, UnicodeEncodeError) as error:
        return Unreadable(dumps(row), str(error))


# ---------------------------------------------------------------------------------------------- work.v1


class Job(msgspec.Struct, array_like=True, tag="job", frozen=True):
    """A dispatch: one attempt for the worker that holds its lease. Seconds throughout; `accept_by` is in the worker's
    own monotonic clock. `artifacts` are `[place, artifact]` pairs to be put into `inputs`. `body_ref` stands for
    `[inputs, artifacts, params, io, code]` in the artifact store where they are too large to travel. `given`: the node
    says what its inputs are; else they are what came before it. `params_in_head`: the params are too large to travel
    with every job of the task, and stand in its head. `io` is what the node's `io` has for its handler; `stream` what
    `core.streams.job` says of its streams; `code` the program of a node of type `code`, or what a handler's
    `secrets` are, with the places in the inputs where secrets belong (`holes`, pairs of a place and a name); `ticket`
    is what its worker shows to get these. `traceparent` is the span that the attempt's work is a child of."""

    task_id: str
    tenant: str
    principal: str
    partition: int
    node: str
    role: str
    attempt: int
    token: str
    generation: int
    accept_by: float
    inputs: Any = None
    artifacts: list[Any] = []
    params: Any = None
    run_sec: float | None = None
    heartbeat_sec: float | None = None
    deadline_sec: float | None = None
    body_ref: str = ""
    given: bool = True
    params_in_head: bool = False
    io: dict[str, Any] | None = None
    stream: dict[str, Any] | None = None
    code: dict[str, Any] | None = None
    ticket: str = ""
    traceparent: str = ""

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this node in this generation of its task."""
        return f"{self.task_id}:{self.generation}:{self.node}"


class Stop(msgspec.Struct, array_like=True, tag="stop", frozen=True):
    """A lease is over: stop the attempt, with `grace_sec` seconds to do so by itself, and say `released`."""

    token: str
    task_id: str
    node: str
    attempt: int
    reason: str
    grace_sec: float


class Over(msgspec.Struct, array_like=True, tag="over", frozen=True):
    """To a running attempt: these nodes, whose batches it reads or that read its own, have ended."""

    token: str
    task_id: str
    node: str
    attempt: int
    nodes: list[str]


WorkItem = Job | Stop | Over


@immutable
class WorkBatch:
    """What a coordinator has for one worker; `unreadable` are items that this version does not understand."""

    worker: str
    incarnation: str
    sender: str
    items: Sequence[WorkItem]
    unreadable: Sequence[Unreadable] = ()


class _WorkRow(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    version: int
    worker: str
    incarnation: str
    sender: str
    items: list[WorkItem]


_work_decoder: msgspec.json.Decoder[_WorkRow] = msgspec.json.Decoder(_WorkRow)


def encode_work(worker: str, incarnation: str, sender: str, items: Sequence[WorkItem]) -> bytes:
    return dumps([VERSION, worker, incarnation, sender, list(items)])


def decode_work(value: bytes | None) -> WorkBatch:
    """Raises `Corrupt` or `UnknownFact`."""
    data = checked(value)
    try:
        batch = _work_decoder.decode(data)
        if batch.version == VERSION:
            return WorkBatch(batch.worker, batch.incarnation, batch.sender, batch.items)
    except UNFIT:
        pass
    (worker, incarnation, sender), (rows,) = _envelope(data, 3, 1)
    if not isinstance(rows, list):
        raise Corrupt("a batch of work ends with a list of items")
    items: list[WorkItem] = []
    unreadable: list[Unreadable] = []
    for row in rows:
        try:
            items.append(msgspec.convert(row, WorkItem))
        except msgspec.ValidationError as error:
            unreadable.append(Unreadable(dumps(row), f"not work: {error}"))
    return WorkBatch(worker, incarnation, sender, items, unreadable)


def pack_artifacts(found: Iterable[tuple[tuple[str | int, ...], Artifact]]) -> list[Any]:
    return [[list(place), write_artifact(artifact)] for place, artifact in found]


def unpack_artifacts(rows: Iterable[Any]) -> list[tuple[tuple[str | int, ...], Artifact]]:
    """Raises `Corrupt`."""
    try:
        pairs = msgspec.convert(rows, list[tuple[tuple[str | int, ...], Any]])
    except msgspec.ValidationError as error:
        raise Corrupt(f"not artifacts and their places: {error}") from error
    return [(place, read_artifact(row)) for place, row in pairs]


# ---------------------------------------------------------------------------------------------- fleet.v1, control.v1


class Flowing(msgspec.Struct, array_like=True, frozen=True):
    """How far the streams of an attempt are: how many batches its node has made, and for each node whose batches it
    reads `[node, read, made]`."""

    made: int
    reads: list[tuple[str, int, int]] = []


class Held(msgspec.Struct, array_like=True, frozen=True):
    """One attempt that a worker holds: queued, running, or with a result that is not acknowledged yet. `progress` is
    what it last said of itself: done, total, message; `streams` how far its streams are."""

    token: str
    task_id: str
    tenant: str
    partition: int
    node: str
    attempt: int
    progress: tuple[float | None, float | None, str] | None = None
    streams: Flowing | None = None


class Hello(msgspec.Struct, tag="hello", tag_field="type", frozen=True):
    """A worker introduces itself. `mono` is its monotonic clock (seconds) when it wrote this; `schemas` are those of
    the inputs that its roles take (JSON Schema). `lease_ttl_sec` and `heartbeat_sec` are its settings, 0 where it does
    not say."""

    worker: str
    incarnation: str
    roles: list[str]
    slots: int
    mono: float
    labels: dict[str, str] = {}
    version: str = ""
    draining: bool = False
    schemas: dict[str, Any] = {}
    lease_ttl_sec: float = 0.0
    heartbeat_sec: float = 0.0


class Heartbeat(msgspec.Struct, tag="heartbeat", tag_field="type", frozen=True):
    """A worker lives, and holds these attempts. Everything of the hello but the schemas comes along: a coordinator that
    missed it can place work all the same. `whole`: it names all that the worker had at `mono`, so what it does not name
    is not there."""

    worker: str
    incarnation: str
    roles: list[str]
    slots: int
    mono: float
    held: list[Held] = []
    labels: dict[str, str] = {}
    cpu: float = 0.0
    memory_mb: float = 0.0
    draining: bool = False
    whole: bool = False


class Goodbye(msgspec.Struct, tag="goodbye", tag_field="type", frozen=True):
    """A worker leaves, and holds nothing any more."""

    worker: str
    incarnation: str


class Beacon(msgspec.Struct, tag="beacon", tag_field="type", frozen=True):
    """A coordinator asks whether the road still works: it must read its own nonce."""

    coordinator: str
    nonce: str


class SayHello(msgspec.Struct, tag="say_hello", tag_field="type", frozen=True):
    """To every worker: introduce yourself."""

    coordinator: str


FleetMessage = Hello | Heartbeat | Goodbye | Beacon
_fleet_decoder: msgspec.json.Decoder[FleetMessage] = msgspec.json.Decoder(FleetMessage)
_control_decoder: msgspec.json.Decoder[SayHello] = msgspec.json.Decoder(SayHello)


def encode_message(message: FleetMessage | SayHello) -> bytes:
    return msgspec.json.encode(message)


def decode_fleet(value: bytes | None) -> FleetMessage:
    """Raises `Corrupt`."""
    try:
        return _fleet_decoder.decode(checked(value))
    except UNFIT as error:
        raise Corrupt(str(error)) from error


def decode_control(value: bytes | None) -> SayHello:
    """Raises `Corrupt`."""
    try:
        return _control_decoder.decode(checked(value))
    except UNFIT as error:
        raise Corrupt(str(error)) from error


# ---------------------------------------------------------------------------------------------- common


def checked(value: bytes | None) -> bytes:
    if value is None:
        raise Corrupt("the message is empty")
    if len(value) > MAX_MESSAGE_BYTES:
        raise Corrupt(f"the message has {len(value)} bytes, more than {MAX_MESSAGE_BYTES}")
    return value


def _envelope(data: bytes, texts: int, others: int) -> tuple[list[str], list[Any]]:
    """The parts of a batch: so many strings after its version, then the rest."""
    message = loads(data)
    version = message[0] if isinstance(message, list) and message else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise Corrupt("a batch is a list that begins with its version")
    if version > VERSION:
        raise UnknownFact(f"version {version} of the envelope; this one knows {VERSION}")
    if len(message) != 1 + texts + others:
        raise Corrupt(f"a batch has {1 + texts + others} parts, not {len(message)}")
    if not all(isinstance(text, str) for text in message[1 : 1 + texts]):
        raise Corrupt(f"the first {texts} parts of a batch after its version are strings")
    return message[1 : 1 + texts], message[1 + texts :]
